"""3D Slicer's MONAI Label module without 3D Slicer: what it sends, when, and what it makes of the answers.

The wire is MONAI Label's own client, of which the module carries a copy. What the module does around it, its
mistakes included, is done here as in the module of MONAI Label 0.8.5, or of its development branch with
`upstream`.
"""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
from slicer_scene import Scene

_SECTIONS = {"infer": "models", "train": "trainers", "activelearning": "strategies"}
SCRIBBLES = ("background_scribbles", "foreground_scribbles")


class Shown(Exception):
    """The message box that the user sees."""


class Slicer(Scene):
    """One viewer.

    Args:
        url: of the server.
        folder: for temporary files.
        user: the setting Client/User-ID.
        upstream: behave as the development branch does.

    Attributes:
        info: what the server offers; changing a config here is what the options table does.
        sample: the image as the server or the user named it.
        label: the segment that is chosen.
        red: offset of the red slice, mm.
        sent: parameters of the last inference.
        told: parameters of its answer.
    """

    def __init__(self, url: str, folder: Path, user: str = "user-xyz", upstream: bool = False) -> None:
        super().__init__(folder)
        self.url, self.user, self.upstream = url, user, upstream
        self.info: dict[str, Any] = {}
        self.sample: dict[str, Any] = {}
        self.label, self.red = "", 0.0
        self.sent: dict[str, Any] = {}
        self.told: dict[str, Any] = {}
        self._switched = False

    def connect(self) -> None:
        """The round arrow."""
        with _shown("Failed to fetch models from remote server."):
            self.info = self._client().info()
        if self.info.get("config"):
            raise Shown("Please upgrade the monai server to latest version")
        for model in self.info["models"].values():
            assert model["type"] and model["description"]
        self.accuracy()

    def options(self, section: str, name: str) -> dict[str, Any]:
        """The values of the options table, of lists the first."""
        config = self.info[_SECTIONS[section]].get(name, {}).get("config", {})
        return {key: value[0] if isinstance(value, list) else value for key, value in config.items()}

    def next_sample(self, strategy: str, auto_run: bool = False) -> None:
        """The button *Next Sample*; `auto_run` is the setting Auto-Run Pre-Trained Model."""
        with _shown("Failed to fetch Sample from MONAI Label Server."):
            sample = self._client().next_sample(strategy, self.options("activelearning", strategy))
            if not sample.get("id"):
                raise Shown("Unlabeled samples or images not found at server.")
            assert not Path(sample.get("path") or "/nowhere").exists(), "the server's path would be opened"
            path = self.folder / sample["name"]
            uri = f"{self.url}/datastore/image?image={quote_plus(sample['id'])}"
            urllib.request.urlretrieve(uri, path)  # without a token, whatever the server asks for
            self._begin(path, sample)
            self._load_original()
        for label in self.info["labels"]:
            if auto_run and any(label in model["labels"] for model in self.info["models"].values()):
                automatic = [n for n, m in self.info["models"].items() if m["type"] == "segmentation"]
                self.segment(automatic[0] if automatic else "")
                return

    def load(self, path: Path, name: str) -> None:
        """A volume of the user's own; `name` is what 3D Slicer calls its node."""
        self._begin(path, {"id": name, "session": True})

    def choose(self, label: str) -> None:
        """Another segment in the list."""
        self._switched |= bool(self.label) and label != self.label
        self.label = label

    def click(self, ras: Sequence[float], model: str = "", positive: bool = True) -> None:
        """A click; with a model, *Auto* is ticked."""
        segment, ijk = self.segments[self.label], self.ijk(ras)
        (segment.foreground if positive else segment.background).append(ijk)
        if model:
            self._prompt(model, ijk)

    def update(self, model: str) -> None:
        """The button *Update* of SmartEdit."""
        self._prompt(model, None)

    def segment(self, model: str) -> None:
        """The button *Run* of Auto Segmentation."""
        if self.sample.get("session") and self.upstream:
            self._upload()
        with _shown("Failed to run inference in MONAI Label Server."):
            file, told = self._infer(model, self.options("infer", model))
            self.show(file, _names(told.get("label_names") or self.info["models"][model]["labels"]))

    def scribble(self, model: str) -> None:
        """The button *Update* of Scribbles, for what is painted in the two segments of scribbles."""
        with _shown(f"Failed to post process label on MONAI Label Server using {model}."):
            file = self.export(list(self.segments))
            params = self.options("infer", model) | {
                "roi": self.roi_ijk() if self.roi else [],
                "label_info": [{"name": name, "id": n} for n, name in enumerate(self.segments, 1)],
                "selected_label_name": self.label,
            }
            mask, _ = self._infer(model, params, file)
            self.show(mask, [self.label])

    def submit(self, model: str = "") -> dict[str, Any]:
        """The button *Submit Label*; `model` is the one chosen under Auto Segmentation."""
        for name in SCRIBBLES:
            if name in self.segments:
                self.segments[name].mask[:] = False
        self.roi = None
        if self.sample.get("session"):
            self._upload()
        with _shown("Failed to save Label to MONAI Label Server."):
            saved = [name for name in self.segments if name not in ("background", *SCRIBBLES)]
            order = list(self.segments)
            params: dict[str, Any] = {"label_info": [{"name": n, "idx": order.index(n) + 1} for n in saved]}
            if self.upstream:
                params["model"] = model
            told: dict[str, Any] = self._client().save_label(
                self.sample["id"], self.export(saved), params=params
            )
        self.connect()
        return told

    def reopen(self, tag: str, names: Sequence[str]) -> None:
        """A stored label as the segments of these names."""
        self.show(self._client().download_label(self.sample["id"], tag), names)

    def train(self, model: str, **changed: Any) -> dict[str, Any]:
        """The button *Train*; `changed` are values of the options table."""
        with _shown("Failed to run training in MONAI Label Server."):
            told: dict[str, Any] = self._client().train_start(model, self.options("train", model) | changed)
            return told

    def stop_training(self) -> str:
        """The button *Stop*: what is written about the training."""
        with _shown("Failed to stop Training Task."):
            status = self._client().train_stop()
        return str(status.get("result", status.get("details", [])[-1])) if status else ""

    def training_progress(self) -> float | None:
        """What the bar shows, %; None when no training runs. Asked every 5 s."""
        status = self._client().train_status(False)
        if status["status"] != "RUNNING":
            return None
        self.info = self._client().info()
        self.accuracy()
        if not self.info["train_stats"]:
            return 1.0
        first = next(iter(self.info["train_stats"].values()))
        current = 0 if first.get("total_time") else first.get("epoch", 1)
        return float(max(1, 100 * current / first.get("total_epochs", 1)))

    def accuracy(self) -> float:
        """What the other bar shows, %."""
        stats: dict[str, Any] = self.info.get("train_stats", {})
        first: dict[str, Any] = next(iter(stats.values()), {})
        return float(first.get("best_metric", 0) * 100)

    def _prompt(self, model: str, current: list[int] | None) -> None:
        segment, flat = self.segments[self.label], self.info["models"][model].get("dimension", 3) == 2
        what = (
            f"Run Inference for segment: {self.label}; model: {model}; 3d {'disabled' if flat else 'enabled'}"
        )
        roi: list[int] = self.roi_ijk() if self.roi else []
        clicks = segment.foreground or segment.background
        if current is None:
            if flat and not segment.foreground and not roi:
                raise Shown(f"{what} - points/roi not added")
            current = [0, 0, round(abs(self.red))] if flat and roi else clicks[-1] if clicks else None
        k = current[2] if current else None

        def kept(points: list[list[int]]) -> list[list[int]]:
            return [p for p in points if p[2] == k] if flat and k else points

        params = {
            "label": self.label,
            "foreground": kept(segment.foreground),
            "background": kept(segment.background),
            **self.options("infer", model),
            **({"roi": roi} if roi else {}),
            **({"slice": k} if flat else {}),
        }
        if not params.get("reset_state") and self._switched:
            params["reset_state"], self._switched = True, False
        with _shown(f"{what} - unexpected error."):
            file, _ = self._infer(model, params)
            self.show(file, [self.label], k if flat else None)

    def _infer(
        self, model: str, params: dict[str, Any], label: str | None = None
    ) -> tuple[str, dict[str, Any]]:
        session = self._session()
        params |= {"result_extension": ".nrrd", "result_dtype": "uint8"}
        file, told = self._client().infer(
            model, self.sample["id"], params, label_in=label, session_id=session
        )
        self.sent, self.told = params, told
        return file, told

    def _begin(self, path: Path, sample: dict[str, Any]) -> None:
        self.open(path, self.info["labels"])
        self.sample, self.label = sample, next(iter(self.segments), "")

    def _load_original(self) -> None:
        """A label that was made before, if there is one, with the names that its info holds."""
        with contextlib.suppress(KeyError, MONAILabelClientException):
            info = self._client().datastore()["objects"][self.sample["id"]]["labels"]["original"]["info"]
            names = info.get("params", {}).get("label_names", {}) or self._client().info()["labels"]
            self.reopen("original", list(names))

    def _session(self) -> str | None:
        if not self.sample.get("session"):
            return None
        session = self.sample.get("session_id")
        if not session or not self._client().get_session(session):
            self.sample["session_id"] = self._client().create_session(self.saved(self.image))["session_id"]
        return str(self.sample["session_id"])

    def _upload(self) -> None:
        """The volume itself goes into the studies, for good."""
        with _shown("Failed to upload volume to Server."):
            self._client().upload_image(self.saved(self.image), self.sample["id"])
        self.sample["session"] = False

    def _client(self) -> MONAILabelClient:
        """A new one for each request, which first asks whether there is a login."""
        client = MONAILabelClient(self.url, str(self.folder), self.user)
        assert not client.auth_enabled()
        return client


def _names(labels: Sequence[str] | dict[str, int]) -> list[str]:
    return sorted(labels, key=labels.__getitem__) if isinstance(labels, dict) else list(labels)


@contextlib.contextmanager
def _shown(title: str) -> Iterator[None]:
    try:
        yield
    except MONAILabelClientException as error:
        raise Shown(f"{title}\nMessage: {error.msg}") from error
    except OSError as error:
        raise Shown(title) from error
