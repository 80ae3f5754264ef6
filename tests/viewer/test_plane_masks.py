"""Prompts drawn in the coronal and sagittal plane of the page: the mask lies where they were drawn."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from running import Server, Start
from web_page import Labelled, Voxel, at, drag, filled, go_to, open_image, ready

SHAPE, CENTRE, RADII = (64, 56, 40), (34, 27, 19), (13, 10, 12)
PLANES = {"sagittal": 0, "coronal": 1}  # the axis across each
Tool = Callable[[Page, int], None]


def ellipsoid() -> np.ndarray:
    axes = zip(np.indices(SHAPE, float), CENTRE, RADII, strict=True)
    return np.asarray(sum(((axis - c) / r) ** 2 for axis, c, r in axes) <= 1)


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    studies = tmp_path_factory.mktemp("studies")
    noise = np.random.default_rng(4).normal(0, 12, SHAPE)
    array = (np.where(ellipsoid(), 700, 0) + noise).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 2.0, 1.0])), studies / "ball.nii.gz")
    return start(studies, "--conf", "models", "segmed", "--conf", "labels", "ball")


@pytest.fixture
def client(page: Page, server: Server, request: pytest.FixtureRequest) -> str:
    name = f"reader with {request.node.callspec.id}"
    page.add_init_script(f"localStorage.setItem('segmed.client', '{name}')")
    page.goto(server.url)
    expect(page.locator("#images button")).to_have_count(1)
    return name


def in_plane(axis: int, *offsets: tuple[int, int]) -> list[Voxel]:
    """Voxels of the plane through the centre: offsets along its two axes, in the order i, j, k."""
    found = []
    for first, second in offsets:
        voxel = list(CENTRE)
        one, other = (n for n in range(3) if n != axis)
        voxel[one] += first
        voxel[other] += second
        found.append((voxel[0], voxel[1], voxel[2]))
    return found


def dice_in_plane(labelled: Labelled, axis: int) -> float:
    mask = np.zeros(SHAPE, bool)
    for voxel in labelled:
        mask[voxel[:3]] = True
    truth = ellipsoid().take(CENTRE[axis], axis)
    found = mask.take(CENTRE[axis], axis)
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def draw_box(page: Page, axis: int) -> None:
    r = [n + 1 for at_axis, n in enumerate(RADII) if at_axis != axis]
    page.keyboard.press("b")
    drag(page, [at(page, v) for v in in_plane(axis, (-r[0], -r[1]), (r[0], r[1]))])


def draw_click(page: Page, axis: int) -> None:
    page.keyboard.press("p")
    page.mouse.click(*at(page, CENTRE))
    ready(page)


def draw_scribble(page: Page, axis: int) -> None:
    page.keyboard.press("s")
    drag(page, [at(page, v) for v in in_plane(axis, (-6, 2), (0, -2), (6, 3))])


def draw_lasso(page: Page, axis: int) -> None:
    r = [n + 1 for at_axis, n in enumerate(RADII) if at_axis != axis]
    page.keyboard.press("l")
    drag(
        page,
        [at(page, v) for v in in_plane(axis, (-r[0], -r[1]), (r[0], -r[1]), (r[0], r[1]), (-r[0], r[1]))],
    )


@pytest.mark.parametrize(
    ("plane", "tool"),
    [
        ("coronal", draw_box),
        ("coronal", draw_click),
        ("sagittal", draw_scribble),
        ("sagittal", draw_lasso),
    ],
)
def test_the_mask_lies_where_it_was_drawn(page: Page, client: str, plane: str, tool: Tool) -> None:
    axis = PLANES[plane]
    open_image(page, "ball")
    page.locator(f"#views [data-view={plane}]").click()
    go_to(page, CENTRE)
    tool(page, axis)
    assert dice_in_plane(filled(page), axis) > 0.85
