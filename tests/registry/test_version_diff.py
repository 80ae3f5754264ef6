"""The fingerprint of training data follows its content, and a comparison of two versions names what changed
between them."""

from __future__ import annotations

from pathlib import Path

import pytest
from segmed.registry.model_version import DataFingerprint
from segmed.registry.version_diff import diff_versions
from segmed.registry.versions import Registry
from small_versions import cut_record, record, writer


def test_fingerprint_follows_the_data(tmp_path: Path) -> None:
    labels = {name: tmp_path / name for name in ("b", "a")}
    for name, path in labels.items():
        path.write_text(name)
    split = {"train": ("a", "c"), "validation": ("b",)}
    found = DataFingerprint.of(labels, split)
    assert found.images == ("a", "b", "c")
    # of the letter a, as sha256sum prints it
    assert found.labels["a"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    shuffled = DataFingerprint(
        ("c", "b", "a"), dict(reversed(found.labels.items())), {**split, "train": ("c", "a")}
    )
    assert shuffled.digest == found.digest
    labels["b"].write_text("changed")
    assert DataFingerprint.of(labels, split).digest != found.digest
    assert DataFingerprint.of(labels, {"train": ("a", "b", "c")}).digest != found.digest
    with pytest.raises(ValueError, match="'b' is both in train and in test"):
        DataFingerprint(("a", "b"), {}, {"train": ("a", "b"), "test": ("b",)})
    with pytest.raises(ValueError, match="'d' has a label"):
        DataFingerprint(("a",), {"d": "0"}, {})


def test_diff_names_what_changed(registry: Registry) -> None:
    old = registry.add("lora", writer(1), record(0.5, 0.6, 0.7))
    data = DataFingerprint(
        ("b", "c", "d"),
        {"b": "3" * 64, "c": "4" * 64},
        {"train": ("b",), "validation": ("c",), "test": ("d",)},
    )
    settings = {"epochs": 3, "rates": {"": 1e-3}, "batch": 8}
    new = registry.add("lora", writer(2), record(0.9, 0.8, data=data, settings=settings))
    found = diff_versions(old, new)
    assert (found.added, found.removed, found.relabelled, found.moved) == (
        ("d",),
        ("a",),
        ("b", "c"),
        ("b", "c"),
    )
    assert found.settings == {"training.rates.": (1e-4, 1e-3), "training.batch": (None, 8)}
    assert (found.labels[0].cases, found.unshared) == (2, 1)
    assert found.labels[0].gain == pytest.approx(0.3)
    same = diff_versions(old, old)
    assert (same.added, same.settings, same.unshared) == ((), {}, 0)
    cut_record(new)
    with pytest.raises(ValueError, match="is damaged"):
        diff_versions(old, registry.get("lora", new.version))
