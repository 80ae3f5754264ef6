"""Splits by patient, so that no method is tested on slices of a patient that it was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Split:
    """Patients of the three parts; none is in two of them.

    Attributes:
        train: Patients to train on.
        validation: Patients to choose settings by.
        test: Patients to report results on.
        seed: Seed with which the patients were shuffled.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        everyone = [*self.train, *self.validation, *self.test]
        twice = sorted({p for p in everyone if everyone.count(p) > 1})
        if twice:
            raise ValueError(
                f"The patient {twice[0]!r} is in two parts of the split; each may be in one. Split again."
            )

    def save(self, path: Path) -> None:
        """Write as JSON, to be replayed by `load`."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file does not hold a split, or a patient is in two parts.
        """
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            parts = {name: tuple(map(str, facts[name])) for name in ("train", "validation", "test")}
            seed = int(facts["seed"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a split (train, validation, test and seed): {error}. Remove it to split "
                f"again."
            ) from error
        return cls(**parts, seed=seed)


def split_patients(patients: Iterable[str], seed: int, validation: float = 0.1, test: float = 0.1) -> Split:
    """Divide patients at random; equal sets of patients and equal seeds give equal splits.

    Args:
        patients: Names of the patients; repeated names count once.
        seed: Seed of the shuffle.
        validation: Share of the patients for validation, 0 for none.
        test: Share of the patients for the test, 0 for none. A part with a share above 0 gets at least one
            patient. The default 80 : 10 : 10 is that of Ma et al., Segment anything in medical images (2024).

    Raises:
        ValueError: The shares leave no patient to train on, or there are too few patients.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(
            f"validation {validation} and test {test} must be shares of at least 0 that leave a part to "
            f"train on."
        )
    names = np.random.default_rng(seed).permutation(sorted(set(patients))).tolist()
    sizes = [max(1, round(share * len(names))) if share else 0 for share in (validation, test)]
    if sum(sizes) >= len(names):
        raise ValueError(
            f"{len(names)} patients are too few for {sizes[0]} of validation, {sizes[1]} of test and one of "
            "training. Add patients or set a share to 0."
        )
    held_out, tested, trained = names[: sizes[0]], names[sizes[0] : sum(sizes)], names[sum(sizes) :]
    return Split(tuple(sorted(trained)), tuple(sorted(held_out)), tuple(sorted(tested)), seed)
