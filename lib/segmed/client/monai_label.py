"""The endpoints of MONAI Label that scripts and viewers need beside workspaces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from .transport import Transport


@dataclass(frozen=True)
class Mask:
    """The answer of a model.

    Attributes:
        content: Mask file.
        name: Name of the file, whose extension says what it is.
        params: What the model tells about it, such as `label_names` and `warnings`.
    """

    content: bytes
    name: str
    params: dict[str, Any] = field(default_factory=dict)


class MonaiLabel:
    """MONAI Label's part of the interface.

    Args:
        transport: Connection to the server.
        name: Name that the user's program gives itself (`client_id`).
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport, self.name = transport, name

    def info(self) -> dict[str, Any]:
        """Models, trainers, strategies and the state of the studies."""
        return dict(self._transport.json("GET", "/info/"))

    def infer(
        self,
        model: str,
        image: str = "",
        params: Mapping[str, Any] | None = None,
        session: str = "",
        file: Path | None = None,
        label: Path | None = None,
    ) -> Mask:
        """Ask a model for a mask.

        Args:
            model: Name of the model.
            image: Identifier of an image of the studies.
            params: Prompt and options, such as `foreground`, `roi` and `result_extension`.
            session: Session with an image of the user's own, instead of `image`.
            file: Image of the user's own, instead of `image`.
            label: Label map with scribbles, or one to refine.
        """
        asked = {"image": image, "session_id": session}
        sent = {"file": file, "label": label}
        answer = self._transport.ask(
            "POST",
            f"/infer/{quote(model, safe='')}",
            params={key: value for key, value in asked.items() if value},
            data={"params": json.dumps({"client_id": self.name, **(params or {})})},
            files={key: (path.name, path.read_bytes()) for key, path in sent.items() if path is not None}
            or None,
        )
        return _read_mask(answer)

    def next_sample(self, strategy: str, **params: Any) -> dict[str, Any]:
        """The image to label next, reserved for this user; {} if there is none."""
        body = {"client_id": self.name, **params}
        return dict(self._transport.json("POST", f"/activelearning/{quote(strategy, safe='')}", json=body))

    def open_session(self, *paths: Path) -> str:
        """Send an image, or the DICOM files of a series, for own requests; the identifier of the session."""
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        return str(self._transport.json("PUT", "/session/", files=files)["session_id"])

    def close_session(self, session: str) -> None:
        """Delete the image of a session."""
        self._transport.ask("DELETE", f"/session/{session}")

    def add_image(self, path: Path, image: str = "", new_name: bool = False) -> str:
        """Add an image to the studies; its identifier.

        Args:
            path: File of the image.
            image: Identifier to give it; "" for the name of the file.
            new_name: Whether an identifier that is taken gets a number behind it; otherwise it is refused.
        """
        asked = {"image": image, "new_name": str(new_name).lower()} if image else {}
        files = {"file": (path.name, path.read_bytes())}
        return str(self._transport.json("PUT", "/datastore/image", params=asked, files=files)["image"])

    def image_file(self, image: str) -> bytes:
        """The file of an image."""
        return self._transport.ask("GET", "/datastore/image", params={"image": image}).content

    def submit_label(
        self, image: str, path: Path, names: Sequence[str] = (), tag: str = "final"
    ) -> dict[str, Any]:
        """Save a label map.

        Args:
            image: Identifier of the image.
            path: File of the label map.
            names: Names of the values 1, 2, …
            tag: Tag of the label.
        """
        numbered = [{"name": name, "idx": value} for value, name in enumerate(names, 1)]
        params = {"client_id": self.name, **({"label_info": numbered} if numbered else {})}
        return dict(
            self._transport.json(
                "PUT",
                "/datastore/label",
                params={"image": image, "tag": tag},
                data={"params": json.dumps(params)},
                files={"label": (path.name, path.read_bytes())},
            )
        )

    def label_file(self, image: str, tag: str = "final") -> bytes:
        """The label map of an image."""
        return self._transport.ask("GET", "/datastore/label", params={"label": image, "tag": tag}).content

    def train(self, model: str, **options: Any) -> dict[str, Any]:
        """Start a training; its state, with `warnings` on options that are not known."""
        return dict(self._transport.json("POST", f"/train/{quote(model, safe='')}", json=options))

    def training(self) -> dict[str, Any]:
        """The state of the running or last training."""
        return dict(self._transport.json("GET", "/train/"))

    def stop_training(self) -> dict[str, Any] | None:
        """Stop the running training, which keeps what it has learnt; None if none runs."""
        told = self._transport.json("DELETE", "/train/")
        return dict(told) if told else None


def _read_mask(answer: httpx.Response) -> Mask:
    """The two parts of an answer in `multipart/form-data`, which `email` would read as text."""
    boundary = answer.headers["content-type"].partition("boundary=")[2].strip('"').encode("latin-1")
    params: dict[str, Any] = {}
    name, content = "", b""
    for part in (b"\r\n" + answer.content).split(b"\r\n--" + boundary)[1:-1]:
        head, _, payload = part.partition(b"\r\n\r\n")
        if file := re.search(rb'filename="([^"]*)"', head):
            name, content = file[1].decode("utf-8", "replace"), payload
        else:
            params = json.loads(payload)
    return Mask(content, name, params)
