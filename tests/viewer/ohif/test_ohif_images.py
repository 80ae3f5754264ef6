"""Images in OHIF: tilted ones, single ones, films, and voxels of any order matched with the server."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from browser import Picture
from dicom_phantom import in_plane
from ohif_page import Ohif, Places, uids
from orthanc import Pacs, needs_orthanc
from playwright.sync_api import Error, Page, expect
from running import Server
from segmed.data.phantom import make_phantom
from segmed.data.phantom.dicom import write_series

from ohif.structures import seg_places

pytestmark = needs_orthanc
SINGLE = {
    "US": pydicom.uid.UltrasoundMultiFrameImageStorage,
    "XA": pydicom.uid.XRayAngiographicImageStorage,
    "CR": pydicom.uid.ComputedRadiographyImageStorage,
    "DX": pydicom.uid.DigitalXRayImageStorageForPresentation,
    "MG": pydicom.uid.DigitalMammographyXRayImageStorageForPresentation,
}


def test_a_tilted_gantry(pacs: Pacs, server: Server, page: Page, tmp_path: Path, picture: Picture) -> None:
    """OHIF shows its slices upright; the segmentation in the PACS lies where the voxels are."""
    phantom = in_plane(make_phantom("CT", (64, 56, 24), (5.4, 5.4, 8.0), 12), "axial")
    tilted = phantom.affine.copy()
    tilted[1, 2] = np.tan(np.deg2rad(20)) * tilted[2, 2]
    write_series(tmp_path / "tilted", phantom.image, tilted, patient="Phantom^Tilted")
    pacs.upload(tmp_path / "tilted")
    study, series = uids(tmp_path / "tilted")
    ohif = Ohif(page, server.url, series)
    true = ohif.affine
    assert abs(np.dot(true[:3, 1], true[:3, 2])) > 1
    ohif.open(study)
    ohif.affine = ohif.upright()
    inside = np.array(ohif.shape) // 2
    page.fill("#segmed-label", "spleen")
    ohif.go_to("mpr-axial", inside)
    ohif.press("brush")
    ohif.drag("mpr-axial", inside, inside + np.array([5, 0, 0]), "/labelmap")
    painted = ohif.both()
    voxels = ohif.voxel(painted.by_name["spleen"])
    assert np.unique(voxels[:, 2]).tolist() == [inside[2]] and inside.tolist() in voxels.tolist()
    picture(page, "ohif-tilted")
    assert "in the PACS as DICOM SEG" in ohif.save()
    (stored,) = pacs.series("SEG", study)
    expected = Places({"spleen": voxels @ true[:3, :3].T + true[:3, 3]})
    assert seg_places(pydicom.dcmread(io.BytesIO(stored))).agree(expected)


@pytest.mark.parametrize(("modality", "frames"), [("US", 12), ("XA", 12), ("CR", 1), ("DX", 1), ("MG", 1)])
def test_single_images_and_films_are_shown(
    modality: str, frames: int, pacs: Pacs, server: Server, page: Page, tmp_path: Path
) -> None:
    """OHIF labels volumes; for others the bar leads to the page."""
    phantom = make_phantom("CT", (64, 56, 12), (5.4, 5.4, 8.0), 4)
    (path, *_) = write_series(
        tmp_path, phantom.image, phantom.affine, modality=modality, patient=f"P^{modality}"
    )
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SINGLE[modality]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "FrameOfReferenceUID"):
        delattr(data, name)
    data.NumberOfFrames, data.FrameTime = frames, 40
    data.PixelData = np.ascontiguousarray(phantom.image[:, :, :frames].T, "<i2").tobytes()
    for other in tmp_path.glob("*.dcm"):
        other.unlink()
    data.save_as(path)
    pacs.upload(tmp_path)
    page.goto(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={data.StudyInstanceUID}")
    link = page.locator("#segmed-elsewhere")
    expect(link).to_be_visible(timeout=60_000)
    assert link.get_attribute("href") == f"{server.url}/"
    count = """() => { const { viewports, activeViewportId: id } = services.viewportGridService.getState();
      const view = services.cornerstoneViewportService.getCornerstoneViewport(id);
      return view && viewports.size === 1 && view.type === 'stack' && view.getImageIds().length }"""
    page.wait_for_function(f"({count})() === {frames}")
    expect(page.locator("#segmed-save")).to_be_disabled()


def test_voxels_of_any_order_are_matched(server: Server, page: Page) -> None:
    """All 48 ways to swap and mirror axes, against coordinates in the patient."""
    page.goto(f"{server.url}/segmed/ohif.css")
    rng = np.random.default_rng(4)
    shape = np.array([5, 4, 3])
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 0.9, 2.5]
    affine[:3, 3] = [12, -30, 55]
    lps = np.diag([-1, -1, 1, 1]) @ affine
    voxels = np.argwhere(np.ones(shape))
    for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        for signs in np.ndindex(2, 2, 2):
            columns = lps[:3, :3][:, order] * (1 - 2 * np.array(signs))
            first = np.where(signs, shape[list(order)] - 1, 0)
            origin = lps[:3, 3] + lps[:3, :3][:, order] @ first
            spacing = np.linalg.norm(columns, axis=0)
            viewer = {
                "dimensions": shape[list(order)].tolist(),
                "origin": origin.tolist(),
                "spacing": spacing.tolist(),
                "direction": (columns / spacing).T.ravel().tolist(),
            }
            world = voxels @ lps[:3, :3].T + lps[:3, 3]
            found, back, ordered = page.evaluate(
                """async ([image, viewer, voxels, world]) => {
                  const { GridMap } = await import('/segmed/grid.js');
                  const map = new GridMap(image, viewer);
                  const there = voxels.map(voxel => map.index(...voxel));
                  const values = new Uint8Array(voxels.length);
                  there.forEach((to, n) => (values[to] = n));
                  return [there, world.map(place => map.voxel(place)), [...map.inServerOrder(values)]];
                }""",
                [
                    {"shape": shape.tolist(), "affine": affine.tolist()},
                    viewer,
                    voxels.tolist(),
                    world.tolist(),
                ],
            )
            at = np.stack(np.unravel_index(found, viewer["dimensions"], order="F"), -1)
            np.testing.assert_allclose(at @ columns.T + origin, world, atol=1e-6)
            np.testing.assert_allclose(back, voxels, atol=1e-6)
            assert ordered == np.arange(len(voxels)).reshape(shape).ravel(order="F").tolist()


def test_slices_of_a_tilted_gantry_and_of_another_image(server: Server, page: Page) -> None:
    """OHIF shows the former upright; voxels stay themselves, and where they lie is what the files say."""
    page.goto(f"{server.url}/segmed/ohif.css")
    affine = np.array([[-0.7, 0, 0, 12], [0, -0.7, 2.2, -30], [0, 0, 5, 55], [0, 0, 0, 1]])
    viewer = {
        "dimensions": [5, 4, 3],
        "origin": [-12, 30, 55],
        "spacing": [0.7, 0.7, 5],
        "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    }
    script = """async ([image, viewer]) => {
      const { GridMap } = await import('/segmed/grid.js');
      const map = new GridMap(image, viewer);
      return [map.index(3, 2, 1), map.voxel([-12 + 0.7 * 3, 30 + 0.7 * 2, 60]), map.place()];
    }"""
    index, voxel, place = page.evaluate(script, [{"shape": [5, 4, 3], "affine": affine.tolist()}, viewer])
    assert index == 3 + 5 * 2 + 20
    np.testing.assert_allclose(voxel, [3, 2, 1], atol=1e-6)
    told = np.array(place["direction"]).reshape(3, 3) * place["spacing"]
    np.testing.assert_allclose(told, np.diag([-1, -1, 1]) @ affine[:3, :3], atol=1e-6)
    np.testing.assert_allclose(place["origin"], [-12, 30, 55])
    assert place["size"] == [5, 4, 3]
    for image, complaint in (
        ({"shape": [5, 4, 2], "affine": np.diag([-0.7, -0.7, 5, 1]).tolist()}, "the server has 5 × 4 × 2"),
        (
            {"shape": [5, 4, 3], "affine": np.diag([-0.7, -0.7, 5, 1]).tolist()},
            "place this series differently",
        ),
    ):
        with pytest.raises(Error, match=complaint):
            page.evaluate(script, [image, viewer])
