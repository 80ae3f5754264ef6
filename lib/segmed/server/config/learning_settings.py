"""Settings of active learning and continual retraining in `--conf KEY VALUE`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from segmed.active.policy import RetrainConfig
from segmed.active.scoring.strategies import STRATEGIES, find_strategy
from segmed.methods import find_method


@dataclass(frozen=True)
class LearningSettings:
    """Settings of the loop, see `KEYS` for their names in `--conf`.

    Attributes:
        model: Method whose scores Next Sample uses and that is retrained; "" for none.
        strategy: Strategy that viewers show first.
        lease: Time in seconds that an image stays reserved without a sign of work on it.
        scoring: Whether images are scored in the background; `auto` does so for images in a folder.
        policy: Conditions of a retraining.
        options: Options of the retraining, as its trainer lists them.
        replay: Largest number of earlier images to train on again.
        folder: Folder of the database; None for `.segmed` beside the labels.
    """

    model: str = ""
    strategy: str = "hybrid"
    lease: float = 1800.0
    scoring: Literal["auto", "on", "off"] = "auto"
    policy: RetrainConfig = field(default_factory=RetrainConfig)
    options: Mapping[str, str] = field(default_factory=dict)
    replay: int = 100
    folder: Path | None = None

    KEYS: ClassVar[Mapping[str, str]] = {
        "active_model": "method whose scores Next Sample uses and that is retrained; the first trainable one",
        "active_folder": "folder of the database on a local disk, if not .segmed beside the labels",
        "strategy": f"that viewers show first: {', '.join(STRATEGIES)}; tta is only scored if chosen here",
        "reserve_minutes": "time that Next Sample reserves an image for a user without work on it, 30",
        "scoring": "on or off: score images in the background; auto: for studies in a folder, not in a PACS",
        "retrain_after": "number of newly labelled images that begins a retraining, 20; 0 for never",
        "retrain_hours": "hours from one retraining to the next, if anything was labelled; 0 is off",
        "retrain_on_drift": "true retrains when new images differ from earlier ones, if any was labelled",
        "retrain_options": "options of the trainer, comma-separated, such as epochs=10,learning_rate=1e-4",
        "replay": "largest number of earlier images that a retraining uses again, 100",
    }

    @classmethod
    def from_conf(cls, conf: Mapping[str, str], models: Sequence[str]) -> LearningSettings:
        """Read and check `--conf` values.

        Args:
            conf: All `--conf` values.
            models: Names of the offered models.

        Raises:
            ValueError: There is no such method or strategy, or a number is out of range.
        """
        learners = [name for name in models if find_method(name).learns]
        model = conf.get("active_model", next(iter([*learners, *models]), ""))
        if model not in models:
            raise ValueError(f"--conf active_model {model!r} must be one of {', '.join(models)}.")
        scoring = conf.get("scoring", "auto")
        if scoring not in ("auto", "on", "off"):
            raise ValueError(f"--conf scoring {scoring!r} must be auto, on or off.")
        drift = conf.get("retrain_on_drift", "false")
        if drift not in ("true", "false"):
            raise ValueError(f"--conf retrain_on_drift {drift!r} must be true or false.")
        labels, hours = int(_number(conf, "retrain_after", 20)), _number(conf, "retrain_hours", 0)
        minutes = _number(conf, "reserve_minutes", 30)
        if not minutes:
            raise ValueError(
                "--conf reserve_minutes 0 would give two users one image; give a number above 0."
            )
        learns = model in learners
        folder = conf.get("active_folder", "")
        return cls(
            model=model,
            strategy=find_strategy(conf.get("strategy", cls.strategy)).name,
            lease=60 * minutes,
            scoring=scoring,  # type: ignore[arg-type]
            policy=RetrainConfig(labels, hours, drift == "true") if learns else RetrainConfig(0),
            options=_options(conf.get("retrain_options", "")),
            replay=int(_number(conf, "replay", 100)),
            folder=Path(folder).expanduser() if folder else None,
        )


def _number(conf: Mapping[str, str], key: str, default: float) -> float:
    text = conf.get(key, str(default))
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"--conf {key} {text!r} must be a number such as {default}.") from error
    if not 0 <= value < math.inf or (key in ("retrain_after", "replay") and value != int(value)):
        raise ValueError(
            f"--conf {key} {text!r} must be 0 or a positive number, whole where it counts images."
        )
    return value


def _options(text: str) -> dict[str, str]:
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    if wrong := [key for key, sign, value in parts if not (sign and key.strip() and value.strip())]:
        raise ValueError(
            f"--conf retrain_options: {wrong[0]!r} has no value. Write epochs=10,learning_rate=1e-4."
        )
    return {key.strip(): value.strip() for key, _, value in parts}
