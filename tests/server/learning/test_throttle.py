"""The throttle of background work: its share, its pieces, and requests that come first."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from segmed.server.learning.throttle import Cancelled, Throttle


class Clock:
    """Time that a test moves; waiting moves it, too."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_background_work_takes_its_share_and_no_more() -> None:
    clock = Clock()
    throttle = Throttle(share=0.05, quiet=1.0, idle=20.0, clock=clock)
    assert throttle.delay() == 0
    with throttle.piece():
        clock.now += 0.5
    assert throttle.delay() == 0, "nobody is there"
    with throttle.request():
        assert throttle.delay() == np.inf
    assert throttle.delay() == 9.5, "half a second of work in ten"
    clock.now += 9.5
    with throttle.request():
        pass
    assert throttle.delay() == 1.0
    clock.now += 1.0
    for _ in range(10):
        with throttle.piece():
            clock.now += 0.2
        with throttle.request():  # a user who never stops for long
            pass
        began = clock.now
        clock.now += throttle.delay()
        assert clock.now - began == pytest.approx(3.8)
    clock.now += 20
    assert throttle.delay() == 0
    with throttle.piece():
        clock.now += 3  # a slow model
    with throttle.request():
        pass
    clock.now += 30
    assert throttle.delay() == 27, "twenty seconds without a request are not enough for pieces of three"
    clock.now += 27
    assert throttle.delay() == 0
    with throttle.request(), pytest.raises(Cancelled), throttle.piece(lambda: True):
        pass
    with pytest.raises(ValueError, match="share of 0"):
        Throttle(share=0)


def test_a_piece_waits_for_the_request_that_runs() -> None:
    throttle = Throttle(quiet=0.05, idle=0.1)
    order = []

    def work() -> None:
        with throttle.piece():
            order.append("piece")

    with throttle.request():
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.3)
        order.append("request")
    thread.join(5)
    assert order == ["request", "piece"]
    with throttle.request(), throttle.piece(at_most=0.1):
        order.append("labels are examined all the same")
    assert len(order) == 3


def test_pieces_come_one_at_a_time() -> None:
    throttle, inside, most = Throttle(share=1), [], 0

    def work() -> None:
        nonlocal most
        for _ in range(20):
            with throttle.piece():
                inside.append(1)
                most = max(most, len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert throttle.spent >= 0.06


def test_impatient_pieces_take_their_share_and_no_more() -> None:
    clock = Clock()
    throttle = Throttle(share=0.05, clock=clock)
    with throttle.request():
        pass
    with throttle.piece(at_most=0):
        clock.now += 1.0
    waited = threading.Event()

    def again() -> None:
        with throttle.piece(at_most=0):
            waited.set()

    thread = threading.Thread(target=again)
    with throttle.request():
        thread.start()
        assert not waited.wait(0.5), "a second of work in twenty"
        clock.now += 19
        assert waited.wait(10), "in spite of the request"
    thread.join(10)
