"""A deadline counts the seconds in which a process could work, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.machine import patience
from harness.machine.foreign import conversation
from harness.machine.patience import Clock
from tests.inspect.sources.test_qmp import MADE, served

SECOND = 10**9
"""In nanoseconds."""


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the kernel counts, by thread, and the wall's clock as `wall`: both as a test sets it."""
    told: dict[str, int] = {"wall": 0}

    def waits(_: int) -> Mapping[str, int]:
        return {name: count for name, count in told.items() if name != "wall"}

    monkeypatch.setattr(patience, "waits", waits)
    monkeypatch.setattr(time, "monotonic", lambda: told["wall"] / SECOND)
    return told


def test_what_a_thread_waits_for_a_processor_is_not_counted(planted: dict[str, int]) -> None:
    planted["one"] = planted["two"] = 7 * SECOND
    clock = Clock(1)
    planted["wall"] += 3 * SECOND
    planted["one"] += 2 * SECOND
    assert clock.now() == pytest.approx(1)
    planted["wall"] += 3 * SECOND
    planted["one"] += SECOND
    planted["two"] += 2 * SECOND
    assert clock.now() == pytest.approx(2)  # they waited at the same time


def test_a_process_that_hangs_has_every_second_counted(planted: dict[str, int]) -> None:
    planted["one"] = SECOND
    clock = Clock(1)
    planted["wall"] += 3 * SECOND
    assert clock.now() == pytest.approx(3)


def test_threads_come_and_go(planted: dict[str, int]) -> None:
    planted["one"] = 7 * SECOND
    clock = Clock(1)
    del planted["one"]
    planted["two"] = 2 * SECOND
    planted["wall"] += 5 * SECOND
    assert clock.now() == pytest.approx(3)


def test_the_clock_never_runs_backwards_for_long(planted: dict[str, int]) -> None:
    clock = Clock(1)
    planted["wall"] += SECOND
    planted["one"] = 4 * SECOND  # counts are of another moment than the wall's clock
    assert clock.now() == 0


SPIN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def test_the_kernel_counts_the_waits_of_two_that_share_a_processor() -> None:
    processor = str(min(os.sched_getaffinity(0)))
    two = [subprocess.Popen([sys.executable, "-c", SPIN, processor]) for _ in range(2)]
    try:
        clock, began = Clock(two[0].pid), time.monotonic()
        time.sleep(1)
        assert clock.now() < 0.8 * (time.monotonic() - began)
    finally:
        for one in two:
            one.kill()
            one.wait()


def test_of_a_process_that_sleeps_every_second_counts() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        clock = Clock(process.pid)
        time.sleep(0.5)
        process.kill()
        assert clock.now() > 0.25


def test_of_a_process_that_cannot_be_seen_every_second_counts() -> None:
    assert set(patience.waits(0)) <= set(patience.waits(os.getpid()))
    for absent in (0, 1 << 30):
        own = sum(patience.waits(0).values())  # nanoseconds that this thread itself waited
        clock = Clock(absent)
        time.sleep(0.2)
        found = clock.now()
        assert found > 0.1 - (sum(patience.waits(0).values()) - own) / 1e9


CPUS = b'{"id": "__qmp#00000", "return": [{"cpu-index": 0, "target": "x86_64", "qom-path": "/"}]}\n'


@pytest.mark.parametrize("starved", [True, False])
def test_an_answer_that_is_late_since_qemu_waits_for_a_processor_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starved: bool
) -> None:
    def waits(_: int) -> Mapping[str, int]:
        return {"one": time.monotonic_ns() if starved else 0}

    monkeypatch.setattr(patience, "waits", waits)
    with served(tmp_path / "socket", *MADE, CPUS, before=1.0):
        if starved:
            with conversation(tmp_path / "socket", 0, 0.2) as monitor:
                assert monitor.cpu_path == "/"
        else:
            with (
                pytest.raises(Exception, match=r"did not answer|says nothing|said nothing"),
                conversation(tmp_path / "socket", 0, 0.2),
            ):
                pytest.fail("it answered")
