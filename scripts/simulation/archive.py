"""Pictures that a simulated annotator labels, and others to measure on: drawn phantoms, or slices of a
dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from segmed.data.datasets.catalogue import DATASETS
from segmed.data.phantom import make_phantom
from segmed.imaging.intensity import to_uint8
from segmed.imaging.volume import Volume

_ORGANS = {1: 1, 2: 2, 3: 3, 4: 3, 6: 1}  # a lesion belongs to the liver, both kidneys are one structure
STRUCTURES = {1: "liver", 2: "spleen", 3: "kidney"}
_SHAPE = (64, 56, 24)
_UPPER, _LOWER = (0.64, 0.78), (0.24, 0.34)  # of the height; liver and spleen, or kidneys


@dataclass(frozen=True)
class Case:
    """A picture with its truth.

    Attributes:
        name: id in the studies, `<patient>_<number>`.
        patient: whose it is; of synthetic images and of slices a patient may have many.
        kind: what sort of picture it is.
        image: (H, W) or (H, W, 3) uint8.
        truth: (H, W) uint8, 0 for background.
    """

    name: str
    patient: str
    kind: str
    image: np.ndarray
    truth: np.ndarray

    def write(self, folder: Path) -> Path:
        """Write `<name>.png`, and its truth below `truth`."""
        (folder / "truth").mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.truth).save(self.truth_in(folder))
        Image.fromarray(self.image).save(folder / f"{self.name}.png")
        return folder / f"{self.name}.png"

    def truth_in(self, folder: Path) -> Path:
        """Where `write` put the truth."""
        return folder / "truth" / f"{self.name}.png"


@dataclass(frozen=True)
class Archive:
    """What is there.

    Attributes:
        name: for tables.
        classes: names by label value.
        pool: can be labelled.
        test: of patients that are not in the pool.
    """

    name: str
    classes: dict[int, str]
    pool: tuple[Case, ...]
    test: tuple[Case, ...]


@dataclass(frozen=True)
class Kind:
    """A sort of patient.

    Attributes:
        name: of it.
        modality: `CT` or `MR`.
        prone: lying on the belly, so that the picture is turned by 180°.
        patients: in the pool.
        pictures: of each of these.
        tested: patients to measure on, with one picture each.
        height: part of the body that is shown.
    """

    name: str
    modality: str = "CT"
    prone: bool = False
    patients: int = 1
    pictures: int = 1
    tested: int = 0
    height: tuple[float, float] = _UPPER


# what an archive looks like: most pictures are of a few patients who come again and again, or are frames of
# one clip; lying prone is rare
CLINIC = (
    Kind("CT", patients=28, tested=14),
    Kind("CT follow-up", patients=6, pictures=25, tested=3),
    Kind("MR", "MR", patients=20, tested=10),
    Kind("CT prone", prone=True, patients=8, tested=4),
    Kind("MR prone", "MR", prone=True, patients=6, tested=3),
)
# what comes later in the continual experiment has other structures or another modality than the beginning
STAGES = (
    Kind("upper CT", patients=24, tested=16, height=_UPPER),
    Kind("lower CT", patients=24, tested=8, height=_LOWER),
    Kind("upper MR", "MR", patients=24, tested=8, height=_UPPER),
    Kind("lower MR prone", "MR", prone=True, patients=24, tested=8, height=_LOWER),
)


def draw(kinds: Sequence[Kind], seed: int, name: str = "phantoms") -> Archive:
    """An archive of synthetic images; equal arguments give equal ones. Structures are those that are
    shown."""
    parts: dict[str, list[Case]] = {"pool": [], "test": []}
    for number, kind in enumerate(kinds):
        for part, patients, pictures in (("pool", kind.patients, kind.pictures), ("test", kind.tested, 1)):
            for who in range(patients):
                rng = np.random.default_rng([seed, number, part == "test", who])
                body = _body(kind, rng)
                patient = f"{kind.name} {part} {who}"
                parts[part] += [_shot(kind, body, f"{patient} {n}", patient, rng) for n in range(pictures)]
    order = np.random.default_rng(seed).permutation(len(parts["pool"]))
    pool = [parts["pool"][place] for place in order]
    numbers = {who: n for n, who in enumerate(dict.fromkeys(case.patient for case in pool))}
    pool = [
        replace(case, name=f"p{numbers[case.patient]:03d}_{n}", patient=f"p{numbers[case.patient]:03d}")
        for n, case in enumerate(pool)
    ]
    shown = set(np.unique(np.concatenate([case.truth.ravel() for case in (*pool, *parts["test"])])).tolist())
    return Archive(
        name, {v: n for v, n in STRUCTURES.items() if v in shown}, tuple(pool), tuple(parts["test"])
    )


def from_dataset(
    dataset: str,
    root: str,
    seed: int,
    patients: int,
    slices: int,
    tested: int,
    options: dict[str, str] | None = None,
) -> Archive:
    """Slices of some patients of a dataset; those of others are for the test.

    Args:
        dataset: name in `segmed data list`.
        root: its folder.
        seed: of the draw of patients.
        patients: in the pool, at most.
        slices: of each, at most, evenly spaced over the volume; empty ones among them.
        tested: patients for the test.
        options: of the loader.

    Raises:
        ValueError: no such dataset, or fewer patients than are tested.
    """
    if dataset not in DATASETS:
        raise ValueError(f"There is no dataset {dataset!r}. Choose one of phantoms, {', '.join(DATASETS)}.")
    data = DATASETS[dataset].load(root, **(options or {}))
    order = np.random.default_rng(seed).permutation(data.patients).tolist()
    if len(order) <= tested:
        raise ValueError(f"{dataset} has {len(order)} patients, too few to test on {tested}. Test on fewer.")
    cases: dict[str, list[Case]] = {"pool": [], "test": []}
    for part, chosen in (("test", order[:tested]), ("pool", order[tested : tested + patients])):
        thin = data.of(chosen).thinned(slices)
        for n, (volume, k) in enumerate(thin.slices):
            sample, depth = thin[n], data.volumes[volume].slices
            kind = (
                "empty"
                if not sample.labels.any()
                else f"third {min(3 * k // max(depth, 1), 2) + 1} of the volume"
            )
            cases[part].append(
                Case(f"{sample.patient}_{n}", sample.patient, kind, sample.image, sample.labels)
            )
    return Archive(dataset, dict(data.classes), tuple(cases["pool"]), tuple(cases["test"]))


def _body(kind: Kind, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grey values (J, I) uint8 and labels of one patient, who has a size and a place of his own."""
    phantom = make_phantom(kind.modality, _SHAPE, (6.0, 6.0, 10.0), int(rng.integers(2**31)))
    window = "ct-soft-tissue" if kind.modality == "CT" else "percentile"
    grey = to_uint8(Volume(phantom.image, phantom.affine), window)
    table = np.zeros(256, np.uint8)
    table[list(_ORGANS)] = list(_ORGANS.values())
    k = int(rng.uniform(*kind.height) * _SHAPE[2])
    zoom, move = rng.uniform(0.9, 1.15), rng.uniform(-4, 4, 2)
    middle = np.array(_SHAPE[1::-1]) / 2
    place: Callable[[np.ndarray, int], np.ndarray] = lambda plane, order: ndimage.affine_transform(  # noqa: E731
        plane, [1 / zoom] * 2, middle - (middle + move) / zoom, order=order
    )
    shown, labels = place(grey[:, :, k].T, 1), place(table[phantom.labels[:, :, k].T], 0)
    return (shown[::-1, ::-1], labels[::-1, ::-1]) if kind.prone else (shown, labels)


def _shot(
    kind: Kind, body: tuple[np.ndarray, np.ndarray], name: str, patient: str, rng: np.random.Generator
) -> Case:
    """A picture of a patient: a little moved, with noise of its own."""
    move = tuple(int(v) for v in rng.integers(-1, 2, 2))
    grey, labels = (np.roll(plane, move, (0, 1)) for plane in body)
    noisy = (grey + rng.normal(0, 4, grey.shape)).round().clip(0, 255).astype(np.uint8)
    return Case(name, patient, kind.name, noisy, np.ascontiguousarray(labels))
