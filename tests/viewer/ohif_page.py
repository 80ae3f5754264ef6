"""OHIF in a browser, as its user sees it: where a voxel is on the screen, what the label map holds."""

from __future__ import annotations

import base64
import contextlib
import io
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
from PIL import Image
from playwright.sync_api import Page
from scipy.spatial import cKDTree

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_VIEWPORT = "services.cornerstoneViewportService.getCornerstoneViewport(id)"
_LABELMAP = """() => {
  const volume = services.segmentationService.getLabelmapVolume('1');
  const values = volume.voxelManager.getCompleteScalarDataArray();
  const filled = [];
  values.forEach((value, n) => value && filled.push([n, value]));
  const names = Object.values(services.segmentationService.getSegmentation('1').segments);
  return { size: [...volume.dimensions], origin: [...volume.origin], spacing: [...volume.spacing],
    direction: [...volume.direction], filled, names: names.map(one => [one.segmentIndex, one.label]) };
}"""
_CAMERA = f"""id => {{
  const viewport = {_VIEWPORT};
  const box = viewport.element.getBoundingClientRect();
  const at = point => [...viewport.canvasToWorld(point)];
  const [zero, right, down] = [at([0, 0]), at([100, 0]), at([0, 100])];
  return {{ box: [box.x, box.y, box.width, box.height], zero, right, down }};
}}"""
# OHIF takes the nearest slice; done when it is drawn
_GO_TO = f"""async ([id, world]) => {{
  services.viewportGridService.setActiveViewportId(id);
  const viewport = {_VIEWPORT};
  const {{ focalPoint, position, viewPlaneNormal: n }} = viewport.getCamera();
  const far = n.reduce((sum, v, a) => sum + v * (world[a] - focalPoint[a]), 0);
  viewport.setCamera({{ focalPoint: focalPoint.map((v, a) => v + far * n[a]),
    position: position.map((v, a) => v + far * n[a]) }});
  const drawn = new Promise(done =>
    viewport.element.addEventListener('CORNERSTONE_IMAGE_RENDERED', done, {{ once: true }}));
  viewport.render();
  await drawn;
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}}"""


_MARKS = """tool => cornerstoneTools.annotation.state.getAllAnnotations()
  .filter(mark => mark.metadata.toolName === tool).length"""
_SHOWN = """id => services.displaySetService.getDisplaySetByUID(
  services.viewportGridService.getState().viewports.get(id).displaySetInstanceUIDs[0]).SeriesInstanceUID"""


@dataclass(frozen=True)
class Places:
    """Label names and the centres of their voxels, (N, 3) RAS mm."""

    by_name: dict[str, np.ndarray]

    @classmethod
    def of(cls, labels: np.ndarray, affine: np.ndarray, names: dict[int, str]) -> Places:
        """Args: labels (I, J, K); affine voxel to RAS mm; names of the values."""
        found = {}
        for value in np.unique(labels[labels > 0]):
            voxels = np.argwhere(labels == value)
            found[names[int(value)]] = voxels @ affine[:3, :3].T + affine[:3, 3]
        return cls(found)

    def count(self, name: str) -> int:
        return len(self.by_name.get(name, ()))

    def agree(self, other: Places) -> bool:
        """Whether the same voxels have the same names, to 0.05 mm."""
        if {n: len(p) for n, p in self.by_name.items()} != {n: len(p) for n, p in other.by_name.items()}:
            return False
        pairs = [(places, other.by_name[name]) for name, places in self.by_name.items()]
        return all(
            cKDTree(a).query(b)[0].max() < 0.05 and cKDTree(b).query(a)[0].max() < 0.05 for a, b in pairs
        )


class Ohif:
    """A study in OHIF.

    Args:
        page: of the browser.
        url: of the server.
        series: UID.
        token: of the user who is logged in; "" where nobody has to.
    """

    def __init__(self, page: Page, url: str, series: str, token: str = "") -> None:
        self.page, self.url, self.series = page, url, series
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.server = httpx.Client(base_url=url, timeout=60, headers=headers)
        image = self.server.get(f"/api/images/{series}").raise_for_status().json()
        self.shape, self.affine = tuple(image["shape"]), np.array(image["affine"])
        self.window = image["window"]

    def open(self, study: str) -> None:
        self.page.goto(f"{self.url}/ohif/monai-label?StudyInstanceUIDs={study}")
        self.page.wait_for_load_state("networkidle")
        self.wait()
        self.page.add_style_tag(content="[data-sonner-toaster] { display: none }")  # messages cover a view

    def wait(self) -> None:
        """Until the tool bar can be used and is at rest."""
        self.page.wait_for_selector("#segmed-save:enabled", timeout=60_000)
        self.page.wait_for_selector("#segmed:not([aria-busy=true])")

    def press(self, name: str) -> None:
        self.page.click(f"#segmed-{name}:enabled")
        self.wait()

    def save(self) -> str:
        """Press Save; what the tool bar says after it."""
        with self.page.expect_response(lambda answer: answer.url.endswith("/save"), timeout=60_000):
            self.page.click("#segmed-save:enabled")
        self.wait()
        return self.page.inner_text("#segmed-status")

    def viewer(self) -> Places:
        """The label map as OHIF has it."""
        told = self.page.evaluate(_LABELMAP)
        labels = np.zeros(np.prod(told["size"]), int)
        for n, value in told["filled"]:
            labels[n] = value
        affine = np.eye(4)
        affine[:3, :3] = np.array(told["direction"]).reshape(3, 3).T * told["spacing"]
        affine[:3, 3] = told["origin"]
        names = {int(value): str(name) for value, name in told["names"]}
        return Places.of(labels.reshape(told["size"], order="F"), _TO_RAS @ affine, names)

    def upright(self) -> np.ndarray:
        """The affine (4, 4) of the server's voxels as OHIF shows them, for axes in the same order."""
        told = self.page.evaluate(_LABELMAP)
        lps = np.eye(4)
        lps[:3, :3] = np.array(told["direction"]).reshape(3, 3).T * told["spacing"]
        lps[:3, 3] = told["origin"]
        affine = _TO_RAS @ lps
        for axis in range(3):
            if affine[:3, axis] @ self.affine[:3, axis] < 0:
                affine[:3, 3] += affine[:3, axis] * (self.shape[axis] - 1)
                affine[:3, axis] *= -1
        return affine

    def known(self) -> Places:
        """The label map as the server has it for this browser."""
        client = self.page.evaluate("localStorage['segmed.client']")
        work = (
            self.server.get(f"/api/images/{self.series}/work", params={"client": client})
            .raise_for_status()
            .json()
        )
        labels = np.zeros(self.shape, np.uint8)
        for change in work["changes"]:
            (i0, i1), (j0, j1) = change["i"], change["j"]
            values = np.frombuffer(zlib.decompress(base64.b64decode(change["data"])), np.uint8)
            labels[i0:i1, j0:j1, change["k"]] = values.reshape(j1 - j0, i1 - i0).T
        return Places.of(labels, self.affine, {value: name for name, value in work["labels"].items()})

    def both(self) -> Places:
        """The label map, which OHIF and the server agree about."""
        viewer = self.viewer()
        assert viewer.agree(self.known())
        return viewer

    def go_to(self, view: str, voxel: np.ndarray) -> None:
        """Show the slice of a voxel."""
        world = (_TO_RAS @ self.affine @ [*voxel, 1])[:3]
        self.page.evaluate(_GO_TO, [view, world.tolist()])

    def on_screen(self, view: str, voxels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of voxels (N, 3) of the server's image."""
        box, zero, axes = self._camera(view)
        world = voxels @ (_TO_RAS @ self.affine)[:3, :3].T + (_TO_RAS @ self.affine)[:3, 3]
        return np.array(box[:2]) + (world - zero) @ np.linalg.pinv(axes)

    def mask_on_screen(self, view: str, places: Places) -> np.ndarray:
        """Which pixels (H, W) of a view show a labelled voxel."""
        (_, _, width, height), zero, axes = self._camera(view)
        y, x = np.mgrid[: int(height), : int(width)] + 0.5
        world = zero + x[..., None] * axes[0] + y[..., None] * axes[1]
        to_voxel = np.linalg.inv(_TO_RAS @ self.affine)
        of_pixel = np.rint(world @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
        to_index = np.linalg.inv(self.affine)
        filled = np.zeros(self.shape, bool)
        for points in places.by_name.values():
            filled[tuple(np.rint(points @ to_index[:3, :3].T + to_index[:3, 3]).astype(int).T)] = True
        inside = ((of_pixel >= 0) & (of_pixel < self.shape)).all(-1)
        at = np.where(inside[..., None], of_pixel, 0)
        return inside & filled[at[..., 0], at[..., 1], at[..., 2]]

    def pixels(self, view: str) -> np.ndarray:
        """(H, W, 3), what a view shows."""
        x, y, width, height = self._camera(view)[0]
        area = {"x": x, "y": y, "width": width, "height": height}
        picture = Image.open(io.BytesIO(self.page.screenshot(clip=area))).convert("RGB")  # type: ignore[arg-type]
        return np.asarray(picture, int)[: int(height), : int(width)]

    def voxel(self, world: np.ndarray) -> np.ndarray:
        """Voxels of the server's image at places (…, 3) in RAS mm."""
        to_voxel = np.linalg.inv(self.affine)
        return np.rint(world @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)

    def drag(self, view: str, start: np.ndarray, end: np.ndarray, answer: str = "") -> None:
        """With the mouse, from voxel to voxel; `answer` is a part of the address that is asked then."""
        (x0, y0), (x1, y1) = self.on_screen(view, np.array([start, end], float))
        mouse = self.page.mouse
        mouse.move(x0, y0)
        with self._answered(answer):
            mouse.down()
            mouse.move((x0 + x1) / 2, (y0 + y1) / 2, steps=3)
            mouse.move(x1, y1, steps=3)
            mouse.up()
        self.wait()

    def draw(self, view: str, voxels: np.ndarray, answer: str) -> None:
        """A line with the mouse through voxels (N, 3)."""
        mouse = self.page.mouse
        first, *others = self.on_screen(view, voxels.astype(float))
        mouse.move(*first)
        with self._answered(answer):
            mouse.down()
            for x, y in others:
                mouse.move(x, y, steps=4)
            mouse.up()
        self.wait()

    def marks(self, tool: str) -> int:
        """How many marks of one of SegMed's tools are drawn."""
        return int(self.page.evaluate(_MARKS, tool))

    def shown(self, view: str = "mpr-axial") -> str:
        """UID of the series in a view."""
        return str(self.page.evaluate(_SHOWN, view))

    def range(self, view: str = "mpr-axial") -> list[float]:
        """The grey values that are black and white in a view."""
        told = self.page.evaluate(f"id => {_VIEWPORT}.getProperties().voiRange", view)
        return [told["lower"], told["upper"]]

    def click(self, view: str, voxel: np.ndarray, answer: str = "") -> None:
        x, y = self.on_screen(view, np.array([voxel], float))[0]
        self.page.mouse.move(x, y)
        with self._answered(answer):
            self.page.mouse.down()
            self.page.mouse.up()
        self.wait()

    def _answered(self, part: str) -> AbstractContextManager[Any]:
        return (
            self.page.expect_response(lambda answer: part in answer.url) if part else contextlib.nullcontext()
        )

    def _camera(self, view: str) -> tuple[list[float], np.ndarray, np.ndarray]:
        told = self.page.evaluate(_CAMERA, view)
        zero = np.array(told["zero"])
        axes = np.array([told["right"], told["down"]]) - zero
        return told["box"], zero, axes / 100


def uids(folder: Path) -> tuple[str, str]:
    """Of the study and the series in a folder."""
    header = pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
