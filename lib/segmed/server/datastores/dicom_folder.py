"""A folder of DICOM files as studies."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from segmed.data.left_out import (
    LeftOut,
    image_names,
    is_hidden,
    left_out_beside_dicom,
    left_out_files,
    sentence,
)
from segmed.dicom.codes import SegmentCodes
from segmed.dicom.files import DicomFiles, FoundSeries, SeriesFacts, holds_dicom, holds_more_dicom
from segmed.imaging.durable import appear_whole
from segmed.imaging.formats.dicom_reading import open_dicom
from segmed.imaging.formats.pictures import PICTURE_EXTENSIONS
from segmed.imaging.reading import extension_of
from segmed.server.config.dicomweb_settings import NO_IMAGES
from segmed.server.datastores.dicom_studies import DicomStudies
from segmed.server.datastores.fixed_images import check_image
from segmed.server.datastores.label_files import LabelFiles
from segmed.server.datastores.read_only import TOLD, can_write
from segmed.server.datastores.state import state_json
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import check_uid

BESIDE_EVERY = 30.0  # s between two looks at files that are no DICOM


class DicomFolderStudies(DicomStudies):
    """Studies of one folder: DICOM files at any depth, and what is ours in `labels` and `datastore_v2.json`.

    Args:
        root: the folder.
        modalities: that are listed.
        structures: values by name where a label map does not tell.
        codes: of segments, by name.
    """

    def __init__(
        self,
        root: Path,
        modalities: Collection[str],
        structures: Mapping[str, int] | None = None,
        codes: Mapping[str, SegmentCodes] | None = None,
    ) -> None:
        super().__init__(LabelFiles(root), structures, codes)
        self.files = DicomFiles(root)
        self._writable = can_write(root)
        self._faults: dict[str, str] = {}
        self._beside: tuple[float, list[LeftOut]] = (float("-inf"), [])
        self._modalities = frozenset(modalities)

    def series(self) -> Mapping[str, SeriesFacts]:
        found = self.files.series()
        return {
            uid: one.facts
            for uid, one in found.items()
            if one.facts.modality in self._modalities and not one.repeated
        }

    def facts(self, image: str) -> SeriesFacts:
        found = self.files.series().get(check_uid(image))
        if found is None:
            raise BadRequest(f"There is no series {image} in the studies.", 404)
        return check_image(found.facts)

    @contextlib.contextmanager
    def use(self, image: str) -> Iterator[Path]:
        self.facts(image)
        yield self.files.folder_of(image)

    def segmentations(self) -> Mapping[str, str]:
        found = self.files.series()
        newest: dict[str, str] = {}
        for uid in sorted(found, key=lambda uid: found[uid].made):
            for image in found[uid].refers_to if found[uid].facts.modality == "SEG" else ():
                if uid not in self.labels.image_info(image).get("dropped", ()):
                    newest[image] = uid
        return newest

    def segmentation_of(self, image: str) -> str:
        return self.segmentations().get(image, "")

    @contextlib.contextmanager
    def segmentation_file(self, series: str) -> Iterator[Path]:
        yield self.files.series()[series].files[-1]

    def send(self, image: str, file: Path, data: Dataset) -> None:
        target = self._seg(image)
        target.parent.mkdir(parents=True, exist_ok=True)
        with appear_whole(target, ".dcm") as name:
            shutil.copyfile(file, name)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        super().remove_label(label_id, label_tag)
        if label_tag == "final":
            self._seg(label_id).unlink(missing_ok=True)

    def refresh(self) -> None:
        self.files.forget()

    def state(self) -> dict[str, Any]:
        return state_json(self.kind, self.left_out(), "" if self._writable else TOLD)

    def left_out(self) -> list[LeftOut]:
        """Series and files that are not offered."""
        found, others = self.files.series(), dict[str, list[FoundSeries]]()
        for one in found.values():
            if one.facts.modality not in self._modalities and one.facts.modality not in NO_IMAGES:
                others.setdefault(one.facts.modality or "none", []).append(one)
        left = [
            LeftOut(
                f"{len(series)} series of the modality {modality}",
                f"only {', '.join(sorted(self._modalities))} are listed. Start with --conf modalities "
                f"{modality if modality != 'none' else 'OT'} to have them, with commas between several.",
                sum(one.facts.slices for one in series),
            )
            for modality, series in sorted(others.items())
        ]
        for uid, one in found.items():
            if one.repeated and one.facts.modality in self._modalities:
                left.append(LeftOut(f"series {one.facts.number or uid}", self._fault(uid), one.facts.slices))
            if one.unassigned:
                left.append(LeftOut(f"DICOM SEG {one.facts.number or uid}", one.unassigned, one.facts.slices))
        left += self._superseded()
        for path in self.files.damaged():
            name = str(path.relative_to(self.files.root.absolute()))
            left.append(LeftOut(name, "its DICOM header cannot be read: it is damaged. Fetch it again."))
        if time.monotonic() - self._beside[0] >= BESIDE_EVERY:
            self._beside = time.monotonic(), left_out_beside_dicom(self.files.root)
        return left + self._beside[1]

    def _superseded(self) -> Iterator[LeftOut]:
        """Segmentations of others in whose place a newer one of the same series is shown."""
        found, shown = self.files.series(), self.segmentations()
        for uid, one in found.items():
            if one.facts.modality != "SEG":
                continue
            for image in one.refers_to:
                hidden = len(one.files) - (uid == shown.get(image))
                if not hidden or image not in shown or self._saved_here(image):
                    continue
                series = found[image].facts.number if image in found else 0
                yield LeftOut(
                    f"DICOM SEG {one.facts.number or uid}",
                    f"a newer segmentation of series {series or image} is shown in its place. To have the "
                    "structures of both, merge them, for instance in 3D Slicer.",
                    hidden,
                )

    def _saved_here(self, image: str) -> bool:
        kept = self.labels.info(image, "final") if self.has_label(image, "final") else {}
        return bool(kept.keys() & {"seg_sop", "seg_note"})

    def _fault(self, uid: str) -> str:
        """Why a series cannot be opened."""
        if uid not in self._faults:
            try:
                open_dicom(self.files.folder_of(uid))
                self._faults[uid] = "several of its slices lie at one place."
            except (ValueError, OSError) as error:
                self._faults[uid] = str(error).replace(uid, "it", 1)
        return self._faults[uid]

    def _seg(self, image: str) -> Path:
        return self.labels.root / "labels" / "seg" / f"{image}.dcm"


def is_dicom_folder(root: Path) -> bool:
    """Whether studies are DICOM: DICOM files at some depth, and no other images in the folder itself that
    count more.

    Those that count are volumes, and pictures if there are as many as DICOM files; a disc with a DICOMDIR is
    DICOM whatever pictures are on it.
    """
    names = [path.name for path in root.iterdir() if not is_hidden(path.name) and path.is_file()]
    others = [extension_of(name) for name in names if extension_of(name) not in ("", ".dcm")]
    if any(extension not in PICTURE_EXTENSIONS for extension in others):
        return False
    if not others or any(name.upper() == "DICOMDIR" for name in names):
        return holds_dicom(root)
    return holds_more_dicom(root, len(others))


def left_out(root: Path) -> str:
    """A sentence on the files of a folder of images that are not offered; "" if there are none."""
    return sentence(left_out_files(root, image_names(root).values()))
