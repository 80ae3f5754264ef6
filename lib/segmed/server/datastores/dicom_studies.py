"""Studies that are DICOM: each series is an image, called by its SeriesInstanceUID; labels become DICOM
SEG."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import math
import tempfile
import threading
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from segmed.data.left_out import LeftOut, sentence
from segmed.dicom.codes import SegmentCodes
from segmed.dicom.files import SeriesFacts
from segmed.imaging.formats.seg_nrrd import SEGMENTATION, is_segmentation
from segmed.imaging.grid import Grid, read_grid
from segmed.imaging.labels.segments import Segments
from segmed.imaging.labels.writing import write_labels
from segmed.imaging.reading import fingerprint
from segmed.server.datastores.fixed_images import FixedImages
from segmed.server.datastores.label_check import noted, take_label
from segmed.server.datastores.label_files import LabelFiles
from segmed.server.datastores.seg_labels import label_to_seg, seg_to_label
from segmed.server.http.errors import MAY_ONLY_READ, BadRequest

logger = logging.getLogger(__name__)

FINAL = "final"
_EMPTY = "The mask is empty, so no DICOM SEG was written; it is kept on the server."
_KEPT_GRIDS = 64
_TOLD = 200  # files and series that are named as left out
_BELIEVED = 60.0  # s that a SEG is taken for unreadable


class DicomStudies(FixedImages):
    """What a PACS and a folder of DICOM files have in common.

    Args:
        labels: where label maps are kept.
        structures: values by name where a label map does not tell.
        codes: of segments, by name, see `read_codes`.
    """

    kind = "dicom"

    def __init__(
        self,
        labels: LabelFiles,
        structures: Mapping[str, int] | None = None,
        codes: Mapping[str, SegmentCodes] | None = None,
    ) -> None:
        self.labels = labels
        self._datastore_path = str(labels.root)
        self._structures, self._codes = structures or {}, codes
        self._grids: dict[str, Grid] = {}
        self._held = contextlib.ExitStack()
        self._unreadable: dict[str, tuple[float, str]] = {}  # when and why, by SEG series
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @abstractmethod
    def series(self) -> Mapping[str, SeriesFacts]:
        """The series that are images, by UID. Raises BadRequest (424) if they cannot be listed."""

    @abstractmethod
    def facts(self, image: str) -> SeriesFacts:
        """Of one series, listed or not. Raises BadRequest (404, 424)."""

    @abstractmethod
    def use(self, image: str) -> AbstractContextManager[Path]:
        """A folder of the files of a series, which stays while it is used. Raises BadRequest (404, 424)."""

    @abstractmethod
    def segmentations(self) -> Mapping[str, str]:
        """Newest DICOM SEG series by image, as far as known without asking. Raises BadRequest (424)."""

    @abstractmethod
    def segmentation_of(self, image: str) -> str:
        """The newest DICOM SEG series of an image; "" if there is none. Raises BadRequest (404, 424)."""

    @abstractmethod
    def segmentation_file(self, series: str) -> AbstractContextManager[Path]:
        """The file of a DICOM SEG. Raises BadRequest (404, 424)."""

    @abstractmethod
    def send(self, image: str, file: Path, data: Dataset) -> None:
        """Put a new DICOM SEG where others find it. Raises BadRequest (424) or OSError."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """`kind`, `state`, which is ok or down, `message`, and `left_out` where something is."""

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None
    ) -> str:
        """Keep a label map, on the grid of its image; one that is final becomes a DICOM SEG too.

        Args:
            image_id: SeriesInstanceUID.
            label_filename: label map; see `take_label` on what its values mean.
            label_tag: only `final` makes a DICOM SEG.
            label_info: what is known of it: `label_info`, names of the values; `model`, a name, or an object
                of `name`, `version` and `automatic`. Added are `segments`, which is what each value means,
                and the UIDs of the SEG, or why there is none: `seg_sop`, `seg_series`, `seg_note`.

        Returns:
            The id of the label, which is that of the image.

        Raises:
            BadRequest: no such series, (424) the PACS does not take it, or (507) the disk is full; nothing is
                saved.
            ValueError: the label map is unreadable or does not lie on the image.
        """
        info = dict(label_info or {})
        for told in ("seg_sop", "seg_series", "seg_note"):
            info.pop(told, None)
        with (
            self._busy[image_id],
            self.use(image_id) as folder,
            tempfile.TemporaryDirectory(prefix="seg-") as work,
        ):
            grid = self._grid(folder)
            found = take_label(Path(label_filename), grid, info, self._structures)
            info["segments"] = noted(found)
            if label_tag == FINAL:
                info |= self._export(image_id, found, info, folder, Path(work) / "seg.dcm")
            self._keep(image_id, label_tag, found, grid, info, Path(work), is_segmentation(label_filename))
        if label_info is not None:
            label_info |= info
        return image_id

    def _export(
        self, image: str, found: Segments, info: Mapping[str, Any], folder: Path, file: Path
    ) -> dict[str, str]:
        """Write and send the DICOM SEG; what to add to the info."""
        if not any(layer.any() for layer in found.layers):
            return {"seg_note": _EMPTY}
        try:
            seg = label_to_seg(found, info, folder, self._grid(folder), file, self._codes)
        except ValueError as error:  # of a series that no segmentation can be attached to
            logger.warning(
                "A final label is kept on the server alone: no DICOM SEG can be made for its series."
            )
            return {"seg_note": f"No DICOM SEG was written. {error}"}
        self.send(image, file, seg)
        return {"seg_sop": str(seg.SOPInstanceUID), "seg_series": str(seg.SeriesInstanceUID)}

    def _keep(
        self,
        image: str,
        tag: str,
        found: Segments,
        grid: Grid,
        info: dict[str, Any],
        work: Path,
        segmentation: bool = False,
    ) -> None:
        """Keep a label map as NIfTI; as `.seg.nrrd` where segments overlap, or where it is to stay one."""
        assert grid.affine is not None
        file = work / f"label{SEGMENTATION if segmentation or len(found.layers) > 1 else '.nii.gz'}"
        try:
            write_labels(found, grid.affine, file)
            self.labels.put(image, tag, file, info)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise BadRequest(MAY_ONLY_READ, 403) from error
            raise BadRequest(
                f"The label cannot be kept on the server's disk: {error.strerror}.", 507
            ) from error
        self.refresh()

    def _grid(self, folder: Path) -> Grid:
        """Of the image; told from its voxels once."""
        key = fingerprint(folder)
        if key not in self._grids:
            if len(self._grids) >= _KEPT_GRIDS:
                self._grids.pop(next(iter(self._grids)))
            self._grids[key] = read_grid(folder)
        return self._grids[key]

    def _fetch_label(self, image: str) -> Path | None:
        """The final label map out of the newest DICOM SEG of an image; None without one.

        Raises:
            BadRequest: (424) the PACS does not answer.
            ValueError: the SEG cannot be read.
        """
        series = self.segmentation_of(image)
        if not series:
            return None
        with self._busy[image]:
            if FINAL not in self.labels.tags(image):
                self._raise_again(series)
                with self.use(image) as folder, self.segmentation_file(series) as file:
                    grid = self._grid(folder)
                    try:
                        found, note = seg_to_label(file, folder, grid, self._structures)
                    except (ValueError, FileNotFoundError) as error:
                        self._unreadable[series] = (time.monotonic(), str(error))
                        raise ValueError(str(error)) from error
                info = {
                    "label_info": [{"name": s.name, "idx": s.value} for s in found.segments],
                    "segments": noted(found),
                    "seg_series": series,
                    **({"note": note} if note else {}),
                }
                with tempfile.TemporaryDirectory(prefix="seg-") as work:
                    self._keep(image, FINAL, found, grid, info, Path(work))
        return self.labels.place(image, FINAL)

    def _raise_again(self, series: str) -> None:
        """Not each request is to fetch and read a SEG that could not be read a moment ago."""
        when, why = self._unreadable.get(series, (-math.inf, ""))
        if time.monotonic() - when < _BELIEVED:
            raise ValueError(why)
        self._unreadable.pop(series, None)

    def hold(self, image: str) -> Path:
        """The folder of a series, which stays until this process ends."""
        return self._held.enter_context(self.use(image))

    def pairs(self) -> dict[str, Path]:
        """Folders of the images with a final label, which is fetched where it is not here yet; they stay.

        Images or labels that cannot be read are left out.

        Raises:
            BadRequest: (424) the PACS does not answer.
            ValueError: there is none.
        """
        found = {}
        for image in self.get_labeled_images():
            try:
                if self.get_label_uri(image, FINAL):
                    found[image] = self.hold(image)
            except (ValueError, OSError) as error:
                if isinstance(error, BadRequest) and error.status != 404:
                    raise
                logger.warning("A label is left out: %s", error)
        if not found:
            raise ValueError(
                "No image has a final label that can be read. Submit labels in the viewer first."
            )
        return found

    def list_images(self) -> list[str]:
        found = self.series()
        return sorted(found, key=lambda uid: found[uid].order)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        done = {*self.labels.labelled(FINAL), *self.segmentations()}
        return [image for image in self.list_images() if image in done]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        done = set(self.get_labeled_images())
        return [image for image in self.list_images() if image not in done]

    def get_image_uri(self, image_id: str) -> str:
        """A folder with the files of the series; it stays for a minute at least."""
        with self.use(image_id) as folder:
            return str(folder)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What headers tell. `name` is that of the file that 3D Slicer loads."""
        return self._told(self.facts(image_id))

    def _told(self, facts: SeriesFacts) -> dict[str, Any]:
        return {"name": f"{facts.series}.nii", **facts.to_json(), **self.labels.image_info(facts.series)}

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        tags = self.labels.tags(image_id)
        if FINAL not in tags and self.segmentation_of(image_id):
            tags = [*tags, FINAL]
        return dict.fromkeys(tags, image_id)

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """The label's id, also of a DICOM SEG that has not been read yet; "" without one."""
        return (
            image_id
            if self.has_label(image_id, tag) or (tag == FINAL and self.segmentation_of(image_id))
            else ""
        )

    def has_label(self, image: str, tag: str) -> bool:
        """Whether the label map is kept here, so that nothing has to be fetched for it."""
        return tag in self.labels.tags(image)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The label map on the grid of its image; a DICOM SEG is read for it if there is none yet. "" without
        one."""
        if self.has_label(label_id, label_tag):
            return str(self.labels.place(label_id, label_tag))
        return str(self._fetch_label(label_id) or "") if label_tag == FINAL else ""

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        return self.labels.info(label_id, label_tag)

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        path = self.get_label_uri(label_id, label_tag)
        return io.BytesIO(Path(path).read_bytes()) if path else None

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        return [
            {"image": self.get_image_uri(image), "label": self.get_label_uri(image, FINAL)}
            for image in self.get_labeled_images()
        ]

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Forget a label map. DICOM SEGs stay, and are not read back."""
        while label_tag == FINAL and (series := self.segmentation_of(label_id)):
            dropped = self.labels.image_info(label_id).get("dropped", [])
            self.labels.note_image(label_id, {"dropped": [*dropped, series]})
        self.labels.remove(label_id, label_tag)
        self.refresh()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self.facts(image_id)
        self.labels.note_image(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        if not self.has_label(label_id, label_tag):
            raise BadRequest(f"There is no label {label_tag} of {label_id}.", 404)
        self.labels.note_label(label_id, label_tag, info)

    def status(self) -> dict[str, Any]:
        """Counts; those of before while the PACS is down, and what is wrong with it."""
        tags: dict[str, int] = {}
        for image in self.labels.objects():
            for tag in self.labels.tags(image):
                tags[tag] = tags.get(tag, 0) + 1
        told = self.state()
        total = completed = 0
        with contextlib.suppress(BadRequest):
            total, completed = len(self.series()), len(self.get_labeled_images())
        counts: dict[str, Any] = {"total": total, "completed": completed, "label_tags": tags}
        return counts | {key: told[key] for key in ("message", "left_out") if told.get(key)}

    def json(self) -> dict[str, Any]:
        """All images with their labels, in the form of MONAI Label's folder datastore."""
        found, noted = self.series(), self.labels.objects()
        objects = {
            image: {
                "image": {"ext": "", "info": self._told(found[image])},
                "labels": noted.get(image, {}).get("labels", {}),
            }
            for image in self.list_images()
        }
        return {"name": self.name(), "description": self.description(), "objects": objects}


def state_json(kind: str, left: Sequence[LeftOut], trouble: str = "") -> dict[str, Any]:
    """The state of studies that can be reached.

    Args:
        kind: folder, dicom or pacs.
        left: what is not offered.
        trouble: a sentence that comes before what is said of it.
    """
    told: dict[str, Any] = {
        "kind": kind,
        "state": "ok",
        "message": " ".join(filter(None, (trouble, sentence(left)))),
    }
    return told | ({"left_out": [one.to_json() for one in left[:_TOLD]]} if left else {})
