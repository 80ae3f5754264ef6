"""The client: what the server offers, its images, and the work on them."""

from __future__ import annotations

from types import TracebackType
from urllib.parse import quote

import httpx

from .answers import ImageEntry, ImageInfo, ServerState, read_answer
from .monai_label import MonaiLabel
from .transport import Transport
from .version import check_version
from .work import Work


class SegMedClient:
    """A client of one server, for one user.

    Args:
        url: Address of the server, such as `http://127.0.0.1:8000`.
        name: Name that the user's program gives itself; where users log in, the server uses their names.
        token: Access token of `segmed users token`; "" where nobody has to log in.
        timeout: Longest time without a sign of the server, in seconds.
        http: Connection to use instead, such as one with certificates of its own.

    Attributes:
        monai: MONAI Label's part of the interface: files, labels, sessions, training.
    """

    def __init__(
        self,
        url: str,
        name: str = "",
        token: str = "",
        timeout: float = 600.0,
        http: httpx.Client | None = None,
    ) -> None:
        self.name = name
        self._transport = Transport(url, token, timeout, http)
        self.monai = MonaiLabel(self._transport, name)

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._transport.url

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> SegMedClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log_in(self, user: str, password: str) -> None:
        """Log in with a user's password; later requests carry the token of the session.

        Raises:
            NotAllowedError: The name or the password is wrong.
        """
        form = {"username": user, "password": password, "grant_type": "password"}
        self._transport.token = str(self._transport.json("POST", "/auth/token", data=form)["access_token"])

    def state(self) -> ServerState:
        """What the server offers.

        Raises:
            ApiVersionError: The server speaks another major version of the workspace API.
        """
        state = ServerState.read(self._transport.json("GET", "/api/state"))
        check_version(state.api, self.url)
        return state

    def images(self) -> list[ImageEntry]:
        """The images of the studies."""
        told = self._transport.json("GET", "/api/images", params={"client": self.name})
        return [read_answer(ImageEntry, entry) for entry in told]

    def image(self, image: str) -> ImageInfo:
        """The grid of an image."""
        return read_answer(ImageInfo, self._transport.json("GET", f"/api/images/{quote(image, safe='')}"))

    def volume(self, image: str) -> bytes:
        """The voxels of an image as a NIfTI file, in the order of the label maps."""
        return self._transport.ask("GET", f"/api/images/{quote(image, safe='')}/volume.nii").content

    def open(self, image: str) -> Work:
        """Begin or continue the work on an image; a finished label is opened for correction."""
        return Work(self._transport, self.image(image), self.name)
