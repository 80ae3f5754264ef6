"""Work that nobody waits for ends between two slices, and a client that leaves is noticed."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

import anyio
import anyio.to_thread
import numpy as np
import pytest
from fastapi import Request
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.cancelling import Cancelled, cancelled_by, raise_if_cancelled
from segmed.inference.loading import Loader
from segmed.inference.predictor import Predictor
from segmed.methods.base.backbone import BackboneConfig
from segmed.server import leaving
from tiny_sam2 import save_sam2, tiny_sam2


def _picture() -> Picture:
    array = (np.random.default_rng(0).random((40, 40, 9)) * 255).astype(np.uint8)
    return Picture(array, np.eye(4), "noise", "auto")


@pytest.mark.parametrize("model", ["classical", "sam2"])
def test_propagation_ends_between_two_slices_and_can_be_asked_again(model: str, tmp_path: Path) -> None:
    source = str(save_sam2(tiny_sam2(1), tmp_path / "m")) if model == "sam2" else ""
    segmenter = Loader().get(model, BackboneConfig(source, precision="fp32"))
    predictor = Predictor(segmenter, ByteBoundedStore(2**28))
    prompt = Prompt(Box((5, 30), (5, 30), (4, 4)))
    enough, done = Event(), []

    def progress(n: int, total: int, found: object) -> None:
        done.append(n)
        if len(done) == 2:
            enough.set()

    with pytest.raises(Cancelled), cancelled_by(enough):
        predictor.segment_volume(_picture(), prompt, progress)
        predictor.segment_volume(_picture(), prompt, progress)
    assert len(done) <= 3
    raise_if_cancelled()  # nothing is left of it outside of the context
    assert 4 in predictor.segment_volume(_picture(), prompt)


def test_a_client_that_leaves_cancels_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_EVERY", 0.01)
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, object]:
        if messages:
            return messages.pop(0)
        if not gone:
            await anyio.sleep_forever()
        return {"type": "http.disconnect"}

    gone: list[bool] = []
    http = Request({"type": "http", "headers": []}, receive)

    def endpoint() -> str:
        with leaving.ends_with(http):
            raise_if_cancelled()
            gone.append(True)
            for _ in range(500):
                time.sleep(0.01)
                raise_if_cancelled()
        return "an answer"

    async def serve() -> str:
        await http.body()
        return await anyio.to_thread.run_sync(endpoint)

    with pytest.raises(Cancelled):
        anyio.run(serve)
