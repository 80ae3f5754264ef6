"""DICOM studies: each series is an image, named by its SeriesInstanceUID; labels become DICOM SEG."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmed.dicom.codes import SegmentCodes
from segmed.dicom.files import SeriesFacts
from segmed.dicom.label_maps import label_to_seg, seg_to_label
from segmed.imaging.formats.seg_nrrd import SEGMENTATION, is_segmentation
from segmed.imaging.grid import Grid
from segmed.imaging.labels.segments import Segments
from segmed.imaging.labels.writing import write_labels
from segmed.server.datastores.dicom_source import DicomSource, SeriesGrids, UnreadableSegmentations
from segmed.server.datastores.label_check import noted, take_label
from segmed.server.datastores.label_files import LabelFiles
from segmed.server.http.errors import MAY_ONLY_READ, BadRequest

logger = logging.getLogger(__name__)

FINAL = "final"
_ABOUT_PATIENT = ("PatientID", "PatientName")
_EMPTY = "The mask is empty, so no DICOM SEG was written; it is kept on the server."


class DicomStudies(DicomSource):
    """What a PACS and a folder of DICOM files have in common.

    Args:
        labels: where label maps are kept.
        structures: values by name where a label map does not tell.
        codes: of segments, by name, see `read_codes`.
    """

    kind = "dicom"
    show_patient = True  # whether clients are told whose images they are

    def __init__(
        self,
        labels: LabelFiles,
        structures: Mapping[str, int] | None = None,
        codes: Mapping[str, SegmentCodes] | None = None,
    ) -> None:
        self.labels = labels
        self._datastore_path = str(labels.root)
        self._structures, self._codes = structures or {}, codes
        self._grids = SeriesGrids()
        self._held = contextlib.ExitStack()
        self._unreadable = UnreadableSegmentations()
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None
    ) -> str:
        """Keep a label map, on the grid of its image; one that is final becomes a DICOM SEG too.

        Args:
            image_id: SeriesInstanceUID.
            label_filename: label map; see `take_label` on what its values mean.
            label_tag: only `final` makes a DICOM SEG.
            label_info: what is known of it: `label_info`, names of the values; `model`, a name, or an object
                of `name`, `version` and `automatic`. Added are `segments`, what each value means; `seg_sop`,
                `seg_series` and `seg_edition`, UIDs and number of the SEG; or `seg_note`, why there is none.

        Returns:
            The id of the label, which is that of the image.

        Raises:
            BadRequest: no such series, (424) the PACS does not take it, or (507) the disk is full; nothing is
                saved.
            ValueError: the label map is unreadable or does not lie on the image.
        """
        info = dict(label_info or {})
        for told in ("seg_sop", "seg_series", "seg_edition", "seg_note"):
            info.pop(told, None)
        with (
            self._busy[image_id],
            self.use(image_id) as folder,
            tempfile.TemporaryDirectory(prefix="seg-") as work,
        ):
            grid = self._grids.of(folder)
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
    ) -> dict[str, Any]:
        """Write and send the DICOM SEG; what to add to the info."""
        if not any(layer.any() for layer in found.layers):
            return {"seg_note": _EMPTY}
        edition = self.next_edition(image)
        try:
            seg = label_to_seg(found, info, folder, self._grids.of(folder), file, self._codes, edition)
        except ValueError as error:  # of a series that no segmentation can be attached to
            logger.warning("A final label is kept on the server alone: its series takes no DICOM SEG.")
            return {"seg_note": f"No DICOM SEG was written. {error}"}
        self.send(image, file, seg)
        told = {"seg_sop": str(seg.SOPInstanceUID), "seg_series": str(seg.SeriesInstanceUID)}
        return told | ({"seg_edition": edition} if edition else {})

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
                self._unreadable.raise_again(series)
                with self.use(image) as folder, self.segmentation_file(series) as file:
                    grid = self._grids.of(folder)
                    try:
                        found, note = seg_to_label(file, folder, grid, self._structures)
                    except (ValueError, FileNotFoundError) as error:
                        self._unreadable.note(series, str(error))
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

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
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
        told = {"name": f"{facts.series}.nii", **facts.to_json(), **self.labels.image_info(facts.series)}
        return told if self.show_patient else {k: v for k, v in told.items() if k not in _ABOUT_PATIENT}

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
        """The label map on the grid of its image, from a DICOM SEG if there is none yet; "" without one."""
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
