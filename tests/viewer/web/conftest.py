"""Images, a server on them and a browser for all modules of this folder, and a page for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import nibabel as nib
import numpy as np
import pytest
from browser import launched
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from running import Server, Start, starting
from segmed.data.phantom import Phantom, make_phantom

from web.stored_images import STORED, stored_as

_readers = itertools.count(1)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    yield from launched()


@pytest.fixture(scope="package")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    yield from starting(tmp_path_factory)


@pytest.fixture(scope="package")
def phantom() -> Phantom:
    return make_phantom("CT", shape=(160, 128, 40), spacing=(2.2, 2.2, 4.0), seed=5)


@pytest.fixture(scope="package")
def server(start: Start, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Server:
    studies = tmp_path_factory.mktemp("studies")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "abdomen.nii.gz")
    for code in STORED:
        nib.save(stored_as(code), studies / f"{code}.nii.gz")
    photo = np.full((150, 220, 3), (40, 60, 90), np.uint8)
    photo[30:70, 150:200] = (230, 220, 210)
    Image.fromarray(photo).save(studies / "photo.png")
    return start(studies, "--conf", "models", "segmed,classical", "--conf", "labels", "liver,spleen,kidney")


@pytest.fixture
def client(page: Page, server: Server) -> str:
    """Who works: another one in each test. The page is open."""
    name = f"reader {next(_readers)}"
    page.add_init_script(f"localStorage.setItem('segmed.client', '{name}')")
    page.goto(server.url)
    expect(page.locator("#images button")).to_have_count(len(STORED) + 2)
    return name
