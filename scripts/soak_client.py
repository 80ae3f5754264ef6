"""One user of `soak.py`, who knows what the server must answer."""

from __future__ import annotations

import base64
import gzip
import io
import json
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import requests

HANGS = 30.0  # s
_ALLOWED = (503, 507)  # of the 5xx: the studies are gone, the disk is full
_BAD: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/datastore/image?image=..%2Fetc", {}),
    ("GET", "/datastore/image?image=nobody", {}),
    ("GET", "/api/images/nobody/work?client=x", {}),
    ("POST", "/infer/nothing?image=shared0", {"data": {"params": "{}"}}),
    ("POST", "/infer/classical?image=shared0", {"data": {"params": "[1"}}),
    ("POST", "/infer/classical?image=shared0", {"data": {"params": '{"roi": [1, "x"]}'}}),
    ("POST", "/infer/classical", {"files": {"file": ("a.nii.gz", b"no image")}, "data": {"params": "{}"}}),
    ("POST", "/api/images/shared0/prompt", {"data": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", "/api/images/shared0/undo", {"json": {"client": "x", "revision": -1}}),
    ("PUT", "/datastore/label?image=shared0", {"files": {"label": ("a.nii.gz", b"x")}}),
    ("PUT", "/session/", {"files": {"files": ("a.png", b"x")}}),
    ("PUT", "/model/segmed", {"files": {"file": ("a.pt", b"x")}}),
    ("POST", "/train/nothing", {"json": {}}),
)


class Seen:
    """What all clients have seen.

    Args:
        most: requests after which they stop; None for no end.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.answers: list[tuple[str, int, float]] = []
        self.faults: list[str] = []
        self._guard = threading.Lock()

    @property
    def enough(self) -> bool:
        """Whether so many requests were made."""
        return self.most is not None and len(self.answers) >= self.most

    def answer(self, kind: str, status: int, took: float) -> None:
        with self._guard:
            self.answers.append((kind, status, took))

    def fault(self, told: str) -> None:
        with self._guard:
            self.faults.append(told[:400])


class Client:
    """Asks for this and that, and keeps its own label map beside that of the server.

    Args:
        url: of the server.
        number: of the client; its image is `own<number>`.
        shape: of all images.
        shared: how many images `shared<n>` there are.
        seed: of what it asks for.
        seen: where answers are noted.

    Attributes:
        own: id of its image.
        saved: the label map (I, J, K) that was saved last; None before that.
    """

    def __init__(
        self, url: str, number: int, shape: tuple[int, int, int], shared: int, seed: int, seen: Seen
    ) -> None:
        self.url, self.own, self.shape, self.shared, self.seen = url, f"own{number}", shape, shared, seen
        self.name = f"client {number}"
        self.saved: np.ndarray | None = None
        self._labels = np.zeros(shape, np.uint8)
        self._names: dict[str, int] = {}
        self._rng = np.random.default_rng((seed, number))
        self._http = requests.Session()
        self._body = {"client": self.name}

    def work(self, until: float) -> None:
        """Ask until a time of the monotonic clock."""
        doings: list[tuple[Callable[[], None], float]] = [
            (self._box, 5),
            (self._click, 5),
            (self._volume, 1),
            (self._prompt, 4),
            (self._paint, 5),
            (self._steps, 2),
            (self._look, 2),
            (self._save, 3),
            (self._submit, 1),
            (self._info, 3),
            (self._next, 2),
            (self._page, 3),
            (self._files, 2),
            (self._bad, 4),
        ]
        weights = np.array([weight for _, weight in doings])
        self._changed(
            self._ask("work", "GET", f"/api/images/{self.own}/work?client={self.name}")
        )  # of a run before
        while time.monotonic() < until and not self.seen.enough:
            do = doings[int(self._rng.choice(len(doings), p=weights / weights.sum()))][0]
            try:
                do()
            except Exception as error:  # an answer that cannot be understood is a fault, and the others go on
                self.seen.fault(f"{self.name}, {do.__name__}: {type(error).__name__}: {error}")

    def check_saved(self) -> None:
        """Read the label that was saved last."""
        if self.saved is None:
            return
        answer = self._ask("read", "GET", f"/datastore/label?label={self.own}&tag=final")
        if answer is not None and not np.array_equal(_voxels(answer.content), self.saved):
            self.seen.fault(f"{self.name}: the label that is read is not the one that was saved last")

    def _ask(
        self, kind: str, method: str, path: str, wanted: int = 200, **more: Any
    ) -> requests.Response | None:
        begun = time.monotonic()
        try:
            answer = self._http.request(method, self.url + path, timeout=HANGS, **more)
        except requests.RequestException as error:
            self.seen.answer(kind, 0, time.monotonic() - begun)
            self.seen.fault(f"{self.name}, {kind}: {type(error).__name__}")
            return None
        self.seen.answer(kind, answer.status_code, time.monotonic() - begun)
        fine = answer.status_code == wanted or (wanted == 400 and 400 <= answer.status_code < 500)
        if not fine and answer.status_code not in _ALLOWED:
            self.seen.fault(f"{self.name}, {kind}: {answer.status_code} {answer.text[:200]}")
        return answer if answer.status_code == wanted else None

    def _place(self) -> tuple[list[int], list[int]]:
        """A box [i0, i1, j0, j1] and a slice, anywhere on the images."""
        # at least two voxels wide, as a box has to be
        i, j = (sorted(self._rng.integers(0, size - 1, 2).tolist()) for size in self.shape[:2])
        return [i[0], i[1] + 1, j[0], j[1] + 1], [int(self._rng.integers(self.shape[2]))]

    def _infer(self, kind: str, model: str, params: dict[str, Any]) -> None:
        image = f"shared{self._rng.integers(self.shared)}"
        data = {"params": json.dumps({"client_id": self.name, "result_extension": ".nii.gz", **params})}
        answer = self._ask(kind, "POST", f"/infer/{model}?image={image}&output=image", data=data)
        if answer is not None and _voxels(answer.content).shape != self.shape:
            self.seen.fault(f"{self.name}, {kind}: the mask has another shape than the image")

    def _model(self) -> str:
        return "segmed" if self._rng.random() < 0.3 else "classical"

    def _box(self) -> None:
        box, (k,) = self._place()
        self._infer("box", self._model(), {"roi": [*box, k, k]})

    def _click(self) -> None:
        box, (k,) = self._place()
        self._infer(
            "click", self._model(), {"foreground": [[(box[0] + box[1]) // 2, (box[2] + box[3]) // 2, k]]}
        )

    def _volume(self) -> None:
        box, _ = self._place()
        self._infer("volume", f"{self._model()}_3d", {"roi": [*box, 3, 6]})

    def _changed(self, answer: requests.Response | None) -> None:
        if answer is None:
            return
        told = answer.json()
        self._names = told["labels"]
        for change in told["changes"]:
            (i0, i1), (j0, j1) = change["i"], change["j"]
            data = zlib.decompress(base64.b64decode(change["data"]))
            self._labels[i0:i1, j0:j1, change["k"]] = (
                np.frombuffer(data, np.uint8).reshape(j1 - j0, i1 - i0).T
            )

    def _workspace(self, kind: str, what: str, wanted: int = 200, **body: Any) -> None:
        path = f"/api/images/{self.own}/{what}"
        self._changed(self._ask(kind, "POST", path, wanted, json={**self._body, **body}))

    def _prompt(self) -> None:
        box, (k,) = self._place()
        self._workspace("prompt", "prompt", model=self._model(), label="liver", box=[*box, k, k])

    def _paint(self) -> None:
        box, (k,) = self._place()
        labels = self._ask("work", "GET", f"/api/images/{self.own}/work?client={self.name}")
        if labels is None:
            return
        known = labels.json()["labels"]
        value = known.get("spleen", max(known.values(), default=0) + 1)
        values = np.full(
            (box[3] - box[2], box[1] - box[0]), value if self._rng.random() < 0.8 else 0, np.uint8
        )
        data = base64.b64encode(zlib.compress(values.tobytes())).decode()
        change = {"k": k, "i": box[:2], "j": box[2:], "data": data}
        self._workspace("paint", "paint", label="spleen", changes=[change])

    def _steps(self) -> None:
        self._workspace("undo", "undo")
        if self._rng.random() < 0.5:
            self._workspace("redo", "redo")

    def _look(self) -> None:
        """The whole label map must be what the changes have added up to."""
        answer = self._ask("work", "GET", f"/api/images/{self.own}/work?client={self.name}")
        if answer is None:
            return
        mine, self._labels = self._labels, np.zeros(self.shape, np.uint8)
        self._changed(answer)
        if not np.array_equal(mine, self._labels):
            self.seen.fault(f"{self.name}: the work that is read is not what was done")

    def _save(self) -> None:
        now = self._labels.copy()
        if self._ask("save", "POST", f"/api/images/{self.own}/save", json=self._body) is not None:
            self.saved = now
            self.check_saved()

    def _submit(self) -> None:
        """Save a label map as 3D Slicer does, and open it."""
        _, (k,) = self._place()
        mine = self._labels.copy()
        mine[3:9, 3:9, k] = 1
        # by other values the server would rightly save the work, too, as its names are numbered here
        names = [{"name": name, "idx": value} for name, value in self._names.items()]
        image = nib.Nifti1Image(mine, np.diag([2.0, 2.0, 4.0, 1.0]))
        params = json.dumps({"client_id": self.name, "label_info": names})
        answer = self._ask(
            "submit",
            "PUT",
            f"/datastore/label?image={self.own}&tag=final",
            files={"label": ("label.nii.gz", gzip.compress(image.to_bytes(), 1))},
            data={"params": params},
        )
        if answer is None:
            return
        self.saved = mine
        self.check_saved()
        # an undone step would be of the label before, so that the page would begin again, too
        work = self._ask("work", "GET", f"/api/images/{self.own}/work?client={self.name}")
        if work is not None:
            self._labels = np.zeros(self.shape, np.uint8)
            self._changed(work)

    def _info(self) -> None:
        answer = self._ask("info", "GET", "/info/")
        if answer is not None and "models" not in answer.json():
            self.seen.fault(f"{self.name}: /info/ tells no models")

    def _next(self) -> None:
        answer = self._ask("next", "POST", "/activelearning/random", json={"client_id": self.name})
        if answer is not None and answer.json() and not answer.json().get("id"):  # {} where all are taken
            self.seen.fault(f"{self.name}: a sample without an image")

    def _page(self) -> None:
        for path in ("/api/state", "/api/images?client=a", f"/api/images/{self.own}"):
            self._ask("page", "GET", path)
        self._ask("page", "GET", "/")  # 503 where it has not been built

    def _files(self) -> None:
        answer = self._ask(
            "volume file", "GET", f"/api/images/shared{self._rng.integers(self.shared)}/volume.nii"
        )
        if answer is not None and _voxels(answer.content).shape != self.shape:
            self.seen.fault(f"{self.name}: the volume has another shape")
        self._ask("report", "GET", "/api/active/state")

    def _bad(self) -> None:
        method, path, more = _BAD[int(self._rng.integers(len(_BAD)))]
        self._ask("bad", method, path, 400, **more)


def _voxels(content: bytes) -> np.ndarray:
    """Of a NIfTI file, deflated or not."""
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    image: Any = nib.Nifti1Image.from_stream(io.BytesIO(plain))
    return np.asarray(image.dataobj)
