"""An application without a server around it, and label maps that are sent to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from segmed.server import asgi
from segmed.server.app import SegMedApp
from segmed.server.http import download_routes, routes
from segmed.server.http.errors import BadRequest
from segmed.server.segmenting import routes as segmenting_routes
from segmed.server.workspace import routes as workspace_routes
from study_folder import SHAPE

AFFINE = np.diag([-1.0, -1, 2, 1])
AFFINE[:3, 3] = 20, 30, -10
CONF = {"models": "classical", "labels": "liver,spleen,tumor"}


class Site:
    """The endpoints of one application, without a server around it."""

    def __init__(self, app: SegMedApp, client: TestClient, folder: Path) -> None:
        self.app, self.client, self.folder = app, client, folder

    def put(self, image: str, file: Path | bytes, name: str = "", tag: str = "final", **params: Any) -> Any:
        content = file if isinstance(file, bytes) else file.read_bytes()
        name = name or (file.name if isinstance(file, Path) else "label.nii.gz")
        return self.client.put(
            "/datastore/label",
            params={"image": image, "tag": tag},
            data={"params": json.dumps(params)},
            files={"label": (name, content)},
        )

    def info(self, image: str, tag: str = "final") -> dict[str, Any]:
        return dict(self.app.datastore().get_label_info(image, tag))

    def work(self, image: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/images/{image}/work", params={"client": "dr"})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def post(self, image: str, what: str, **body: Any) -> Any:
        return self.client.post(f"/api/images/{image}/{what}", json={"client": "dr", **body})

    def download(self, image: str, kind: str) -> bytes:
        answer = self.client.get(f"/api/images/{image}/download", params={"client": "dr", "format": kind})
        assert answer.status_code == 200, answer.text
        return bytes(answer.content)

    def stored(self, image: str, tag: str = "final") -> tuple[str, bytes]:
        answer = self.client.get("/datastore/label", params={"label": image, "tag": tag})
        assert answer.status_code == 200, answer.text
        return answer.headers["content-disposition"].split('"')[1], answer.content

    def completed(self) -> int:
        return int(self.client.get("/datastore/").json()["completed"])


def make_site(studies: Path, folder: Path, patch: pytest.MonkeyPatch) -> Site:
    patch.setattr("segmed.server.app.monailabel_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    app = SegMedApp(str(folder), str(studies), {**CONF, "registry": str(folder / "registry")})
    api = FastAPI()
    for module in (download_routes, segmenting_routes, workspace_routes, routes):
        patch.setattr(module, "app_instance", lambda: app)
        api.include_router(module.router)
    patch.setattr("segmed.server.segmenting.stream.app_instance", lambda: app)
    api.add_exception_handler(BadRequest, asgi._refused)
    api.add_exception_handler(ValueError, asgi._refused)
    return Site(app, TestClient(api), studies)


def nifti_bytes(labels: np.ndarray, affine: np.ndarray = AFFINE) -> bytes:
    return bytes(nib.Nifti1Image(labels, affine).to_bytes())


def two_labels(first: int = 1, second: int = 2) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 4:12, 1:5], labels[14:20, 10:15, 1:5] = first, second
    return labels


def label_info(*names: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "idx": idx} for name, idx in names]


def far_affine() -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += 900
    return affine
