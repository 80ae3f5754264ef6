"""Requests to `/infer/{model}` that nobody would send: forms, parameters and parts by a grammar and a
seed."""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass, field
from typing import Any

from odd_values import (
    EXTENSIONS,
    FLAWS,
    LITERALS,
    MODELS,
    NUMBERS,
    PLAIN,
    STRINGS,
    TYPES,
    WINDOWS,
    label_file,
    picture_file,
)


@dataclass(frozen=True)
class Sent:
    """A request.

    Attributes:
        path: with the query.
        headers: of the request.
        body: bytes.
    """

    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def request(seed: int, shape: tuple[int, int, int]) -> Sent:
    """One request about an image `ct` of the given shape (I, J, K) or a file that is sent along."""
    return _Grammar(random.Random(seed), shape).request()


class _Grammar:
    def __init__(self, rng: random.Random, shape: tuple[int, int, int]) -> None:
        self.rng, self.shape = rng, shape
        self.odd = rng.choice([0.0, 0.0, 0.3, 1.0])  # how much of the request is wrong

    def oddly(self, chance: float) -> bool:
        """Whether something is to be wrong here."""
        return self.rng.random() < chance * self.odd

    def request(self) -> Sent:
        rng = self.rng
        model = rng.choice(MODELS) if self.oddly(0.3) else rng.choice(MODELS[:6])
        parts = self.parts()
        boundary = rng.choice(["e" * 70, "e" * 300, "a b", "ü"]) if self.oddly(0.4) else "edge"
        if rng.random() < 0.25 and not any(name == "file" for name, *_ in parts):
            text = "&".join(f"{name}={_quoted(content)}" for name, _, _, content in parts)
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            body = text.encode("utf-8", "surrogatepass")
        else:
            body = self.multipart(parts, boundary)
            headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if self.oddly(0.2):
            kind = rng.choice(TYPES)
            headers = {} if kind is None else {"Content-Type": kind.replace("\r", "")}
        if self.oddly(0.15):
            body = self.torn(body)
        headers = {key: value.encode("utf-8").decode("latin-1") for key, value in headers.items()}
        return Sent(f"/infer/{model}{self.query()}", headers, body)

    def query(self) -> str:
        rng = self.rng
        wanted = []
        if not self.oddly(0.2):
            image = rng.choice(["ct", "ct", "ct", "ct", "photo"])
            if self.oddly(0.3):
                image = rng.choice(["nobody", "", "..", "%00", "%F0%9F%98%80", "a" * 400])
            wanted.append(f"image={image}")
        if self.oddly(0.2):
            ids = ["", "x", "0" * 36, "00000000-0000-0000-0000-000000000000", "../../x", "%ff", "ct"]
            wanted.append(f"session_id={rng.choice(ids)}")
        if rng.random() < 0.6:
            wanted.append(f"output={rng.choice(['image', 'image', 'json', 'all'])}")
        if self.oddly(0.2):
            wanted.append(
                rng.choice(
                    [
                        "output=picture",
                        "output=",
                        "image=photo",
                        "params={}",
                        "model=segmed",
                        "a=%ff",
                        "&&",
                        "tag=x",
                        "label=..",
                    ]
                )
            )
        return f"?{'&'.join(wanted)}" if wanted else ""

    def parts(self) -> list[tuple[str, str | None, str | None, bytes]]:
        """Name, file name, content type and content."""
        rng = self.rng
        found: list[tuple[str, str | None, str | None, bytes]] = []
        for _ in range(rng.choice([0, 1, 2]) if self.oddly(0.4) else 1):
            name = rng.choice(["param", "PARAMS", "", "params[]", "ü"]) if self.oddly(0.1) else "params"
            file = rng.choice(["p.json", ""]) if self.oddly(0.1) else None
            kind = rng.choice(["application/json", "text/plain", "x"]) if rng.random() < 0.2 else None
            found.append((name, file, kind, self.params().encode("utf-8", "surrogatepass")))
        for name in ("file", "label"):
            if self.oddly(0.3) or rng.random() < 0.05:
                found.append((name, *self.upload()))
        rng.shuffle(found)
        return found

    def upload(self) -> tuple[str | None, str | None, bytes]:
        rng = self.rng
        if not self.oddly(0.7):
            return "a.nii", "application/octet-stream", label_file(self.shape)
        names = [
            "a.nii.gz",
            "a.nii",
            "a.nrrd",
            "a.png",
            "a.dcm",
            "a.mhd",
            "a",
            "",
            "../../a.png",
            "ü😀.png",
            f"{'a' * 300}.png",
        ]
        name = rng.choice(names) if rng.random() < 0.9 else None
        kind = rng.choice(["application/octet-stream", "image/png", None, "text/plain; charset=x"])
        return (
            name,
            kind,
            rng.choice(
                [b"", b"x", b"\x00" * 400, label_file(self.shape), label_file((4, 4, 1)), picture_file()]
            ),
        )

    def params(self) -> str:
        rng = self.rng
        if self.oddly(0.1):
            return rng.choice(FLAWS)
        keys = [
            "roi",
            "foreground",
            "background",
            "label",
            "label_info",
            "selected_label_name",
            "window",
            "device",
        ]
        keys += [
            "output",
            "clean",
            "refinement",
            "denoise",
            "result_extension",
            "result_compress",
            "client_id",
            "strange",
        ]
        chosen = rng.sample(keys, rng.randint(0, 4)) + (["roi"] if rng.random() < 0.8 else [])
        if self.oddly(0.2):
            chosen += rng.choices(chosen or keys, k=2)  # keys twice
        pairs = [f"{json.dumps(key)}: {self.value(key)}" for key in chosen]
        return "{" + ", ".join(pairs) + "}"

    def value(self, key: str) -> str:
        rng = self.rng
        if self.oddly(0.15):
            return rng.choice(LITERALS)
        if self.oddly(0.2):
            return json.dumps(self.anything())
        fitting: dict[str, Any] = {
            "roi": self.box,
            "foreground": self.points,
            "background": self.points,
            "label_info": lambda: [
                {"name": rng.choice(STRINGS), "idx": rng.choice(NUMBERS)} for _ in range(rng.randint(0, 3))
            ],
            "window": lambda: rng.choice(WINDOWS),
            "output": lambda: rng.choice(["mask", "uncertainty", "x"]),
            "clean": lambda: rng.choice(
                ["nothing", "largest piece", "holes", "largest piece and holes", "all"]
            ),
            "refinement": lambda: rng.choice(["nothing", "outline", "level set", "crf", "x"]),
            "denoise": lambda: rng.choice(["nothing", "gaussian", "dncnn", "x"]),
            "result_extension": lambda: rng.choice(EXTENSIONS),
            "result_compress": lambda: rng.choice([True, False, "yes", 3]),
            "client_id": lambda: rng.choice(STRINGS),
        }
        if not self.oddly(0.7) and key in PLAIN:
            return json.dumps(PLAIN[key])
        return json.dumps(fitting.get(key, lambda: rng.choice(STRINGS))())

    def box(self) -> Any:
        rng = self.rng
        if self.oddly(0.2):
            return [self.coordinate(0) for _ in range(rng.choice([0, 1, 5, 7]))]
        return [self.coordinate(axis) for axis in (0, 0, 1, 1, 2, 2)]

    def points(self) -> Any:
        rng = self.rng
        lengths = [rng.choice([0, 2, 4]) if self.oddly(0.1) else 3 for _ in range(rng.randint(0, 3))]
        points = [[self.coordinate(axis) for axis in range(length)] for length in lengths]
        return points[0] if points and self.oddly(0.1) else points

    def coordinate(self, axis: int) -> Any:
        rng = self.rng
        size = self.shape[min(axis, 2)]
        if not self.oddly(0.3):
            return rng.randint(0, size - 1)
        if rng.random() < 0.6:
            return rng.choice([rng.uniform(-0.5, size), rng.randint(-size, 2 * size), size, -1])
        return rng.choice([*NUMBERS, "3", None, [1], True])

    def anything(self, depth: int = 0) -> Any:
        rng = self.rng
        kind = rng.randrange(6 if depth < 4 else 4)
        if kind == 4:
            return [self.anything(depth + 1) for _ in range(rng.randint(0, 4))]
        if kind == 5:
            return {rng.choice(STRINGS): self.anything(depth + 1) for _ in range(rng.randint(0, 3))}
        return rng.choice([STRINGS, NUMBERS, (True, False), (None,)][kind])

    def multipart(self, parts: list[tuple[str, str | None, str | None, bytes]], boundary: str) -> bytes:
        edge, out = boundary.encode(), io.BytesIO()
        for name, file, kind, content in parts:
            filename = "" if file is None else f'; filename="{file}"'
            out.write(
                b"--" + edge + f'\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n'.encode()
            )
            out.write(f"Content-Type: {kind}\r\n".encode() if kind else b"")
            out.write(b"\r\n" + content + b"\r\n")
        out.write(b"--" + edge + b"--\r\n")
        return out.getvalue()

    def torn(self, body: bytes) -> bytes:
        at = self.rng.randrange(len(body) + 1)
        cut = (body[:at], body[at:], body[:at] + b"\xff\x00\r\n--" + body[at:], body.replace(b"\r\n", b"\n"))
        return cut[self.rng.randrange(4)]


def _quoted(content: bytes) -> str:
    return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"%{b:02X}" for b in content)
