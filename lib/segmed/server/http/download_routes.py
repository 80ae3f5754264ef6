"""Images and label maps as files, which viewers load: in place of MONAI Label's, which know no DICOM and
block."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response, StreamingResponse
from monailabel.interfaces.utils.app import app_instance

from segmed.data.checksums import file_checksum
from segmed.imaging.formats.itk_readable import itk_reads
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import check_id, check_tag
from segmed.server.http.routes import USER
from segmed.server.http.volume_stream import nifti_pieces

router = APIRouter(tags=["Datastore"])


@router.get("/datastore/image", dependencies=USER)
def download_image(image: str) -> Response:
    """The image's file; one that ITK in the viewer cannot open, such as a series, as plain NIfTI with its
    voxels in the same order."""
    path = Path(app_instance().image_path(image))
    if path.is_file() and itk_reads(path):
        return FileResponse(path, filename=path.name)
    length, pieces = nifti_pieces(app_instance().engine.volume(path))
    headers = {"Content-Length": str(length), "Content-Disposition": f'attachment; filename="{image}.nii"'}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@router.head("/datastore/image", dependencies=USER)
def has_image(image: str, check_sum: str = "") -> Response:
    """Whether there is such an image, and with `check_sum` as `SHA256:…` whether its file is that one."""
    path = Path(app_instance().image_path(image))
    kind, _, digest = check_sum.rpartition(":")
    if digest and (not path.is_file() or file_checksum(path, kind or "SHA256") != digest.lower()):
        raise BadRequest("The image is another one by now.", 404)
    return Response()


@router.get("/datastore/label", dependencies=USER)
def download_label(label: str, tag: str) -> FileResponse:
    """The label map; one that a PACS has as DICOM SEG is read on the grid of its image."""
    path = _label(label, tag)
    return FileResponse(path, filename=path.name)  # by which 3D Slicer tells what kind of file it is


@router.head("/datastore/label", dependencies=USER)
def has_label(tag: str, image: str = "", label: str = "") -> Response:
    """Whether there is such a label map."""
    _label(label or image, tag)
    return Response()


def _label(label: str, tag: str) -> Path:
    path = Path(app_instance().datastore().get_label_uri(check_id(label, "label"), check_tag(tag)) or "-")
    if not path.is_file():
        raise BadRequest(f"The image {label[:128]} has no label {tag}.", 404)
    return path
