"""The engine's lock: one thread at a time, again and again for the same one, in the order in which they asked."""

from __future__ import annotations

import threading
import time

import pytest

from loquent.engine.fair_lock import FairLock


def test_threads_take_turns() -> None:
    lock, order, inside = FairLock(), [], []

    def work(name: int) -> None:
        for _ in range(20):
            with lock, lock:  # re-entrant
                inside.append(name)
                assert len(inside) == 1
                order.append(name)
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    with lock:
        for thread in threads:
            thread.start()
        time.sleep(0.05)  # all of them wait now
    for thread in threads:
        thread.join(30)
    assert len(order) == 60
    for turn in range(0, 54, 3):
        assert set(order[turn : turn + 3]) == {0, 1, 2}


def test_an_error_inside_passes_the_turn_on() -> None:
    lock = FairLock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    done = []

    def work() -> None:
        with lock:
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert done == [True]
