"""What MONAI Label would do to images, and is not done to those of a PACS or of DICOM files."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.datastore import Datastore

from segmed.dicom.files import SeriesFacts
from segmed.server.config.dicomweb_settings import NO_IMAGES
from segmed.server.http.errors import BadRequest


class FixedImages(Datastore):  # type: ignore[misc]
    """A datastore whose images come and go elsewhere."""

    def name(self) -> str:
        return "SegMed"

    def description(self) -> str:
        return "DICOM"

    def set_name(self, name: str) -> None:
        raise BadRequest("The name is fixed.", 403)

    def set_description(self, description: str) -> None:
        raise BadRequest("The description is fixed.", 403)

    def get_image(self, image_id: str, params: Any = None) -> Any:
        raise BadRequest("An image that is DICOM is a folder. Ask for GET /datastore/image.")

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        raise BadRequest("These studies are DICOM. Add images to the PACS, or DICOM files to the folder.")

    def remove_image(self, image_id: str) -> None:
        raise BadRequest(
            "Images are not deleted from here. Delete the series in the PACS, or in the folder.", 403
        )

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        raise BadRequest("Archives are not made. Export labels by `segmed export`.", 403)


def check_image(facts: SeriesFacts) -> SeriesFacts:
    """Facts of a series of images. Raises BadRequest for what holds none."""
    if facts.modality in NO_IMAGES:
        raise BadRequest(
            f"The series is of the kind {facts.modality}, which holds no image. Choose one with images."
        )
    return facts
