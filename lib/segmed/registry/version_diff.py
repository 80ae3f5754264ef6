"""The differences between two versions of a model: data, settings and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from segmed.methods.base.trained_facts import read_facts
from segmed.registry.gate import LabelChange, label_changes
from segmed.registry.model_version import DataFingerprint, ModelVersion, VersionRecord


@dataclass(frozen=True)
class VersionDiff:
    """The differences from an old version to a new one.

    Attributes:
        added: Images that only the new version has.
        removed: Images that only the old version has.
        relabelled: Images of both with another, an added or a removed label file.
        moved: Images of both that are in another part of the split.
        settings: Values before and after by dotted name, None if missing; with the method's config, backbone
            and image size.
        labels: Scores on the cases on which both were validated.
        unshared: Number of scores of cases on which only one of them was validated.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    moved: tuple[str, ...]
    settings: Mapping[str, tuple[Any, Any]]
    labels: tuple[LabelChange, ...]
    unshared: int


def diff_versions(old: ModelVersion, new: ModelVersion) -> VersionDiff:
    """Compare two versions.

    Raises:
        ValueError: If one of them is damaged.
    """
    before, after = _record(old), _record(new)
    ours, theirs = set(after.data.images), set(before.data.images)
    both = sorted(ours & theirs)
    labels = before.data.labels, after.data.labels
    parts = _parts(before.data), _parts(after.data)
    settings = _settings(old, before), _settings(new, after)
    pairs = [{(s.case, s.label) for s in record.scores} for record in (before, after)]
    return VersionDiff(
        added=tuple(sorted(ours - theirs)),
        removed=tuple(sorted(theirs - ours)),
        relabelled=tuple(image for image in both if labels[0].get(image) != labels[1].get(image)),
        moved=tuple(image for image in both if parts[0].get(image) != parts[1].get(image)),
        settings={
            name: (settings[0].get(name), settings[1].get(name))
            for name in sorted({*settings[0], *settings[1]})
            if settings[0].get(name) != settings[1].get(name)
        },
        labels=label_changes(after.scores, before.scores),
        unshared=len(pairs[0] ^ pairs[1]),
    )


def _record(version: ModelVersion) -> VersionRecord:
    if version.record is None:
        raise ValueError(
            f"{version.name} {version.version} is damaged: {version.damage}. Compare other versions."
        )
    return version.record


def _parts(data: DataFingerprint) -> dict[str, str]:
    return {image: part for part, images in data.split.items() for image in images}


def _settings(version: ModelVersion, record: VersionRecord) -> dict[str, Any]:
    return dict(_flat({**read_facts(version.folder), "training": record.settings, "code": record.code}))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
