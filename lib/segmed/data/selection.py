"""Parts of a dataset by structure, other names of its patients, and structures that nothing shows."""

from __future__ import annotations

from dataclasses import replace

from segmed.data.pairs import patient_of
from segmed.data.slices import SliceDataset


def selected(data: SliceDataset, labels: str = "", patient: str = "") -> SliceDataset:
    """A dataset with some of its structures, and with patients that the names of the images state.

    Args:
        data: The dataset.
        labels: Names of structures with commas, in the order of their new values; "" for all, unchanged.
        patient: Regular expression whose first group is the patient in the name of an image; "" leaves the
            patients as they are.

    Raises:
        ValueError: There is no such structure, or the pattern does not match a name.
    """
    wanted = [name.strip() for name in labels.split(",") if name.strip()]
    values = {name.casefold(): value for value, name in data.classes.items()}
    if strange := [name for name in wanted if name.casefold() not in values]:
        raise ValueError(
            f"The dataset has no structure {strange[0]!r}. Choose from {', '.join(data.classes.values())}."
        )
    numbers = {values[name.casefold()]: n for n, name in enumerate(wanted, 1)}
    classes = {n: data.classes[value] for value, n in numbers.items()} or data.classes
    volumes = []
    for volume in data.volumes:
        stored = volume.values or {value: value for value in data.classes}
        kept = {where: numbers.get(value, 0) for where, value in stored.items()} if numbers else volume.values
        who = patient_of(volume.name, patient) if patient else volume.patient
        image_id = volume.image_id or volume.name
        volumes.append(replace(volume, values=kept, patient=who, image_id=image_id))
    return SliceDataset(volumes, classes, data.unit, data.binary, data.slices, skipped=data.skipped)


def missing_structures(data: SliceDataset) -> list[str]:
    """Names of structures that no label map has, as far as the label maps name theirs.

    Raises:
        ValueError: No label map has any of them.
    """
    known = [data.volumes[n].values for n in {n for n, _ in data.slices}]
    if not known or any(values is None for values in known):
        return []
    found = {value for values in known if values for value in values.values() if value}
    missing = [name for value, name in data.classes.items() if value not in found]
    if len(missing) == len(data.classes):
        raise ValueError(
            f"No label map contains {', '.join(missing)}. Choose structures that the label maps name, or "
            "leave the choice out to take all of them."
        )
    return missing
