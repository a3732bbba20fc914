"""Ctrl-C where it must not be raised at once, and how often it is."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from harness.machine.interrupts import postponed, raised_once


@pytest.fixture(autouse=True)
def usual_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_first_is_raised_and_what_it_ends_is_not_broken_off() -> None:
    ended = []
    with raised_once():
        with pytest.raises(KeyboardInterrupt):
            try:
                ctrl_c()
            finally:
                ctrl_c()
                ctrl_c()
                ended.append("in order")
        assert ended == ["in order"]
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()


def test_a_postponed_one_is_raised_at_the_end_and_wakes_what_waits() -> None:
    done = []
    with raised_once(), pytest.raises(KeyboardInterrupt):
        with postponed(lambda: done.append("woken")):
            ctrl_c()
            done.append("whole")
        done.append("lost")
    assert done == ["woken", "whole"]


def test_what_is_being_ended_is_waited_for() -> None:
    done = []
    with raised_once(), pytest.raises(KeyboardInterrupt):
        try:
            ctrl_c()
        finally:
            with postponed(lambda: pytest.fail("woken")):
                ctrl_c()
            done.append("ended")
    assert done == ["ended"]


def test_it_comes_in_place_of_the_error_that_waking_made() -> None:
    with pytest.raises(KeyboardInterrupt), postponed():
        ctrl_c()
        raise TimeoutError


def test_without_one_nothing_is_woken_or_raised() -> None:
    with raised_once(), postponed(lambda: pytest.fail("woken")):
        pass


def test_a_handler_of_the_user_is_called_and_wakes_nothing() -> None:
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    with postponed(lambda: pytest.fail("woken")):
        ctrl_c()
        assert not came
    assert came == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_ignored_one_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with raised_once(), postponed(lambda: pytest.fail("woken")):
        ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
