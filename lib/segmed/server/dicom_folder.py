"""A folder of DICOM files as studies."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from segmed.data.dicom_files import DicomFiles, SeriesFacts, holds_dicom
from segmed.imaging.masks import _appear_whole
from segmed.imaging.reading import extension_of
from segmed.server.codes import SegmentCodes
from segmed.server.dicom_studies import DicomStudies
from segmed.server.fixed_images import check_image
from segmed.server.label_files import LabelFiles
from segmed.server.requests import BadRequest, check_uid


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
        self._modalities = frozenset(modalities)

    def series(self) -> Mapping[str, SeriesFacts]:
        found = self.files.series()
        return {uid: one.facts for uid, one in found.items() if one.facts.modality in self._modalities}

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
        with _appear_whole(target, ".dcm") as name:
            shutil.copyfile(file, name)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        super().remove_label(label_id, label_tag)
        if label_tag == "final":
            self._seg(label_id).unlink(missing_ok=True)

    def refresh(self) -> None:
        self.files.forget()

    def state(self) -> dict[str, str]:
        return {"kind": self.kind, "state": "ok", "message": ""}

    def _seg(self, image: str) -> Path:
        return self.labels.root / "labels" / "seg" / f"{image}.dcm"


def is_dicom_folder(root: Path) -> bool:
    """Whether studies are DICOM: no other images lie in the folder itself, and DICOM files at some depth."""
    return not any(extension_of(path.name) not in ("", ".dcm") for path in root.iterdir()) and holds_dicom(root)


def left_out(root: Path) -> str:
    """A sentence on the DICOM files of a folder that is served for its other images; "" if it has none."""
    if any(extension_of(path.name) == ".dcm" for path in root.iterdir()):
        return "DICOM files lie beside other images and are left out. Put them into a folder of their own and open it."
    return ""
