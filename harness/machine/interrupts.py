"""Ctrl-C, raised once, and never in the middle of what cannot be broken off.

Python raises it between any two instructions of the main thread: also where a coroutine was made
and nothing waits for it yet, within a fork, in a finalizer, or in what an earlier one had ended.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

SOON: Final = 0.001
"""Seconds after which a finalizer is over; if it is not, the same happens once more."""


@contextlib.contextmanager
def raised_once() -> Iterator[None]:
    """Has the first Ctrl-C raise KeyboardInterrupt, unless it is ignored, as long as the block
    runs: what that ends in order is not broken off by the next ones."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    once = _Once()
    alarm = signal.signal(signal.SIGALRM, once.come_again)
    sys.unraisablehook, usual = once.dropped, sys.unraisablehook
    signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = usual
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)


class _Once:
    """The handler of SIGINT that raises the first, and what has it come again where Python drops
    what is raised: in a finalizer or in the callback of a weak reference."""

    def __init__(self) -> None:
        self._usual = sys.unraisablehook
        self.came = False
        """Whether one was raised, so that no other will be."""

    def __call__(self, _: int, frame: FrameType | None) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt

    def dropped(self, what: sys.UnraisableHookArgs) -> None:
        """In place of `sys.unraisablehook`."""
        if isinstance(what.exc_value, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, SOON)
        else:
            self._usual(what)

    def come_again(self, _: int, frame: FrameType | None) -> None:
        """The handler of the alarm.  Raised in `dropped` itself, it would be lost."""
        while frame is not None and frame.f_code is not _Once.dropped.__code__:
            frame = frame.f_back
        if frame is not None:
            signal.setitimer(signal.ITIMER_REAL, SOON)
        else:
            self.came = False
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def postponed(wake: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Has Ctrl-C in the block come at its end, after `wake` was called where it will be raised."""
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True
        raises = not usual.came if isinstance(usual, _Once) else usual is signal.default_int_handler
        if raises:
            wake()

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            usual(signal.SIGINT, None)
