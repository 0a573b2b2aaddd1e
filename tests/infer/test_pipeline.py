import threading
import time

import pytest

from humanpose.infer.stream import ahead, overlapped


def fail_at(n: int):
    def work(i: int) -> int:
        if i == n:
            raise ValueError("boom")
        return i

    return work


def assert_no_thread_left() -> None:
    end = time.monotonic() + 2
    while time.monotonic() < end:
        left = [t.name for t in threading.enumerate() if t.name in ("reader", "worker", "ahead")]
        if not left:
            return
        time.sleep(0.01)
    raise AssertionError(f"threads left: {left}")


def test_everything_arrives_in_order():
    assert list(overlapped(range(500), lambda i: 2 * i)) == list(range(0, 1000, 2))
    assert list(ahead([])) == []
    assert_no_thread_left()


def test_an_error_in_the_work_ends_everything():
    with pytest.raises(ValueError, match="boom"):
        list(overlapped(range(10_000), fail_at(5)))
    assert_no_thread_left()


def test_an_error_in_the_source_arrives_after_what_came_before_it():
    def source():
        yield from range(3)
        raise OSError("camera gone")

    got = []
    with pytest.raises(OSError, match="camera gone"):
        got.extend([])
        for i in overlapped(source(), lambda i: i):
            got.append(i)
    assert got == [0, 1, 2]
    assert_no_thread_left()


def test_leaving_early_stops_the_threads_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    frames = overlapped(source(), lambda i: i)
    for i in frames:
        if i == 3:
            break
    frames.close()
    assert_no_thread_left()
    assert closed.wait(2)


def test_reading_stays_a_bounded_way_ahead():
    read = []

    def source():
        for i in range(1000):
            read.append(i)
            yield i

    frames = ahead(source(), depth=3)
    next(frames)
    time.sleep(0.05)
    assert len(read) <= 6  # one handed out, three waiting, one in hand, one being made
    frames.close()
    assert_no_thread_left()


def test_stages_overlap_in_time():
    together, busy, lock = [], set(), threading.Lock()

    def stage(name: str) -> None:
        with lock:
            busy.add(name)
            together.append(len(busy))
        time.sleep(0.01)
        with lock:
            busy.discard(name)

    def source():
        for i in range(20):
            stage("read")
            yield i

    for _ in overlapped(source(), lambda i: stage("work")):
        stage("write")
    assert max(together) == 3
