"""Users of one device take turns."""

from __future__ import annotations

import threading

import pytest
from segmed.inference.device_queue import DeviceQueue


def test_the_queue_serves_in_order_of_coming() -> None:
    queue, order = DeviceQueue(), []
    inside, release = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        release.wait(5)

    threads = [threading.Thread(target=queue.run, args=(hold,))]
    threads[0].start()
    assert inside.wait(5)
    for n in range(5):
        threads.append(threading.Thread(target=queue.run, args=(lambda n=n: order.append(n),)))
        threads[-1].start()
        while queue._worker._work_queue.qsize() <= n:
            pass
    release.set()
    for thread in threads:
        thread.join(5)
    assert order == list(range(5))


def test_the_queue_passes_results_and_errors_on_and_survives_them() -> None:
    queue = DeviceQueue()

    def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        queue.run(fail)
    assert queue.run(lambda: 7) == 7
