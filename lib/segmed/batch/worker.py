"""The worker of a run: it holds the models, and makes a label map of an image."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmed.active.scoring.label_uncertainty import label_uncertainty
from segmed.batch.measurements import UNCERTAINTY, measure
from segmed.batch.outputs import seg_path, write_outputs
from segmed.batch.prompt_files import PromptBox, PromptFile, read_prompts
from segmed.batch.settings import BOXES, DETECTOR, RunSettings
from segmed.batch.sources import fetch, fetched, is_dicom_source, open_pacs
from segmed.batch.tasks import Away, Ending, Outcome, Phase, Task
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.labels.provenance import Provenance, checksum_of
from segmed.imaging.picture import Picture, windowed
from segmed.imaging.prompts import Prompt, parse_prompt
from segmed.imaging.reading import fingerprint, read_volume
from segmed.imaging.volume import Volume
from segmed.methods.detector.regions import link
from segmed.registry.predictors import open_model

if TYPE_CHECKING:
    from segmed.inference.predictor import Predictor

_DETECTOR_MODEL = "auto"  # it holds the detector
_EMBEDDING_BYTES = 2**28  # of the slices of one image, which are not asked for again later


@dataclass
class _Work:
    """A task on its way through the steps.

    Attributes:
        task: The task.
        begun: Time at its beginning.
        path: File or folder of the image.
        image: SHA-256 of the image.
        volume: Stored intensities.
        picture: Windowed intensities.
        boxes: Boxes from the file of boxes.
        labels: Label map.
        names: Names of its values.
        prompt: What the model was prompted with, JSON values.
        uncertainty: Uncertainty of the label map, NaN if it was not measured.
    """

    task: Task
    begun: float
    path: Path = Path()
    image: str = ""
    volume: Volume | None = None
    picture: Picture | None = None
    boxes: tuple[PromptBox, ...] = ()
    labels: np.ndarray | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    prompt: Mapping[str, Any] = field(default_factory=dict)
    uncertainty: float = math.nan


@dataclass(frozen=True)
class SegmentationWorkers:
    """Makes workers; it can be sent to other processes.

    Attributes:
        settings: Settings of the run, with pinned versions.
        out: Folder of the run.
    """

    settings: RunSettings
    out: Path

    def __call__(self) -> SegmentationWorker:
        """A worker with its models loaded."""
        return SegmentationWorker(self.settings, self.out)


class SegmentationWorker:
    """Segments the items of a run, see `tasks.Worker`.

    Args:
        settings: Settings of the run, with pinned versions.
        out: Folder of the run.

    Raises:
        ValueError: The model or its prompts cannot be used.
        FileNotFoundError: Weights, or the file of boxes, are missing.
    """

    def __init__(self, settings: RunSettings, out: Path) -> None:
        s = self.settings = settings
        self.out = out
        registry = Path(s.registry)
        # a run of days must not silently continue with a simpler model
        self._model = open_model(
            s.model, s.backbone, s.device, s.precision, registry, s.version, False, _EMBEDDING_BYTES
        )
        self._detector: Predictor | None = None
        if s.prompts == DETECTOR:
            version = s.detector_version
            found = open_model(_DETECTOR_MODEL, "", s.device, s.precision, registry, version, False)
            self._detector = found.predictor
        self._prompts = read_prompts(Path(s.boxes)) if s.prompts == BOXES else PromptFile({})
        self._pacs = open_pacs(s) if s.is_pacs else None

    def read(self, task: Task) -> _Work:
        """Fetch and decode the image of a task; nothing for one that is sent only."""
        work = _Work(task, time.monotonic())
        if task.phase is Phase.SEND:
            return work
        if (self.settings.seg or self.settings.send) and not is_dicom_source(task):
            raise ValueError(
                f"{task.key} is not DICOM, so no DICOM SEG can refer to it. Leave --seg out for such images."
            )
        work.boxes = self._prompts.of(task.key)
        if self.settings.prompts == BOXES and not work.boxes:
            raise ValueError(f"There is no box for {task.key} in {Path(self.settings.boxes).name}.")
        work.path = fetch(task, self.settings, self.out, self._pacs)
        work.volume = read_volume(work.path)
        work.image = checksum_of(work.path)
        work.picture = windowed(work.volume, self.settings.window, fingerprint(work.path))
        return work

    def segment(self, work: _Work) -> _Work:
        """Run the model."""
        if work.task.phase is Phase.SEND:
            return work
        self._label(work)
        if self.settings.uncertainty:
            assert work.picture is not None and work.labels is not None
            work.uncertainty = label_uncertainty(self._model.predictor, work.picture, work.labels)
        return work

    def _label(self, work: _Work) -> None:
        assert work.picture is not None
        picture, predictor = work.picture, self._model.predictor
        if self._model.automatic:
            work.labels = predictor.segment_classes(picture)
            work.names = dict(enumerate(predictor.segmenter.labels, 1))
            return
        if self._detector is not None:
            work.names = dict(enumerate(self._detector.segmenter.labels, 1))
            work.boxes = _detected(self._detector, picture, work.names)
            values = {name: value for value, name in work.names.items()}
        else:
            values = dict(self._prompts.values)
            work.names = {values[box.label]: box.label for box in work.boxes}
        work.prompt = {
            "boxes": [{"label": b.label, "value": values[b.label], "roi": list(b.roi)} for b in work.boxes]
        }
        work.labels = self._prompted(picture, work.boxes, values)

    def finish(self, work: _Work) -> Outcome:
        """Write the results of a task and measure them, or send what was written before."""
        task, settings = work.task, self.settings
        if task.phase is Phase.SEND:
            self._send(task)
            return Outcome(task.item, Ending.DONE, seconds=time.monotonic() - work.begun)
        assert work.volume is not None and work.picture is not None and work.labels is not None
        model, picture = self._model, work.picture
        options = {name: getattr(settings, name) for name in ("device", "precision", "backbone")}
        provenance = Provenance(
            settings.model,
            model.version,
            model.weights,
            work.image,
            picture.window,
            work.prompt,
            {name: value for name, value in options.items() if value},
        )
        outputs = write_outputs(
            task, settings, self.out, work.path, picture, work.labels, work.names, provenance
        )
        rows = measure(work.labels, work.volume.array, work.volume.spacing, work.names)
        if math.isfinite(work.uncertainty):
            rows = [row | {UNCERTAINTY: work.uncertainty} for row in rows]
        unsent = settings.send and work.labels.any()
        ending = Ending.WRITTEN if unsent else Ending.DONE
        seconds = time.monotonic() - work.begun
        return Outcome(task.item, ending, "", work.image, outputs, tuple(rows), seconds)

    def discard(self, task: Task) -> None:
        """Remove the fetched series of a task."""
        shutil.rmtree(fetched(task, self.out), ignore_errors=True)

    def _prompted(
        self, picture: Picture, boxes: tuple[PromptBox, ...], values: Mapping[str, int]
    ) -> np.ndarray:
        """A label map (I, J, K); where objects overlap, the first one counts."""
        flat = picture.shape[2] == 1
        prompts: list[Prompt] = []
        for box in boxes:
            if len(box.roi) == 4 and not flat:
                raise ValueError(
                    f"A box {list(box.roi)} has no slices, but the image has {picture.shape[2]}. Give k0 "
                    "and k1."
                )
            prompts.append(parse_prompt(picture.shape, (*box.roi, 0, 0)[:6])[0])
        predictor = self._model.predictor
        if self.settings.model.endswith("_3d"):
            masks = predictor.segment_objects(picture, prompts)
        else:
            masks = [predictor.segment_slices(picture, prompt) for prompt in prompts]
        labels = np.zeros(picture.shape, np.uint8)
        for box, mask in zip(boxes, masks, strict=True):
            labels[(stack_slices(mask, picture.shape) > 0) & (labels == 0)] = values[box.label]
        return labels

    def _send(self, task: Task) -> None:
        import pydicom

        from segmed.server.http.errors import PacsAway

        assert self._pacs is not None
        try:
            self._pacs.store(pydicom.dcmread(seg_path(task, self.out)))
        except PacsAway as error:
            raise Away(str(error)) from error


def _detected(detector: Predictor, picture: Picture, names: Mapping[int, str]) -> tuple[PromptBox, ...]:
    boxes = []
    for region in link(detector.boxes(picture)):
        i, j, k = (
            (float(low), float(max(high, low + 1 if axis < 2 else high)))
            for axis, (low, high) in enumerate(zip(region.low, region.high, strict=True))
        )
        boxes.append(PromptBox(names[region.label], (*i, *j, *k)))
    return tuple(boxes)
