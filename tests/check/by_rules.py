"""A guest whose processor is rules written a second time, so that what is asked of guests can be
tested without QEMU: its memory, its batches and the words of its jobs, which all architectures
have alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.machine.errors import Misuse
from harness.machine.guest import HALVES
from harness.machine.ram import around
from harness.machine.stub import Build, StubImage


class ByRules(ABC):
    """A guest at its prompt, which refuses as many jobs and batches as one with a stub."""

    def __init__(self, build: Build, base: int, ram_bytes: int, word_bytes: int = 8) -> None:
        if not build.path.exists():
            pytest.skip(f"there is no {build.path.name}: build it, `make guest`{build.needs}")
        self.image = StubImage.load(build)
        buffer = np.zeros(ram_bytes, np.uint8)
        self.ram = SimpleNamespace(buffer=buffer, base=base, size=ram_bytes)
        each = self.image.job_dtype.itemsize + self.image.result_dtype.itemsize
        self.capacity = len(self.image.job_arena) // HALVES // each
        self._flying = deque[tuple[Any, npt.NDArray[np.void]]]()
        self._words = buffer.view(f"<u{word_bytes}")

    @property
    def free(self) -> tuple[range, ...]:
        return around(self.image.arena, range(self.ram.base, self.ram.base + self.ram.size))

    def start(self, state: Any, jobs: npt.NDArray[np.void]) -> None:
        if len(self._flying) == HALVES:
            raise Misuse("two batches are under way already: finish() one first")
        if len(jobs) > self.capacity:
            raise Misuse(f"{len(jobs)} jobs: one batch holds {self.capacity}, so use run()")
        self._flying.append((state, jobs))

    def finish(self) -> npt.NDArray[np.void]:
        if not self._flying:
            raise Misuse("no batch is under way: start() one first")
        return self._executed(*self._flying.popleft())

    def run(self, state: Any, jobs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        if self._flying:
            raise Misuse("a batch is under way: finish() it first")
        return self._executed(state, jobs)

    def _executed(self, state: Any, jobs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        results = np.zeros(len(jobs), self.image.result_dtype)
        names = {
            value: name
            for name, value in self.image.enums.items()
            if name.startswith(("ACCESS_", "TRANSLATE_"))
        }
        size, words = self._words.itemsize, self._words
        places = (jobs["where"].astype(np.int64) - self.ram.base) // size
        for job, at, result in zip(jobs, places, results, strict=True):
            if patched := int(job["patched"]):
                words[at[:patched]] = job["word"][:patched]
            self._execute(state, job, names[int(job["access"])], result)
            if watched := int(job["watched"]):
                result["after"][:watched] = words[at[:watched]]
        return self.tampered(results)

    @abstractmethod
    def _execute(self, state: Any, job: np.void, name: str, result: np.void) -> None:
        """Makes the access of this name, or none, and says what came of it."""

    def tampered(self, results: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """What it answers instead."""
        return results

    def word(self, at: int) -> int:
        """What is at a physical address."""
        return int(self._words[(at - self.ram.base) // self._words.itemsize])

    def _store(self, at: int, value: int) -> None:
        self._words[(at - self.ram.base) // self._words.itemsize] = value


@contextmanager
def other(rules: ModuleType, **functions: Callable[..., object]) -> Iterator[None]:
    """The rules with other functions, while the block runs: at each access, so without the cost of
    a `MonkeyPatch`."""
    names = vars(rules)
    before = {name: names[name] for name in functions}
    names.update(functions)
    try:
        yield
    finally:
        names.update(before)


def has_room_for_two(new: Callable[[], ByRules], batch: int) -> None:
    """Holds that guests take two batches of so many jobs, and no more: `Guest.start` refuses what
    it has no room for."""
    guest = new()
    jobs = guest.image.new_jobs(batch)
    guest.start(None, jobs)
    guest.start(None, jobs)
    with pytest.raises(Misuse, match="two batches are under way"):
        guest.start(None, jobs)
    with pytest.raises(Misuse, match="jobs: one batch holds"):
        new().start(None, guest.image.new_jobs(guest.capacity + 1))


def ends(levels: Iterable[int]) -> set[int]:
    """The lowest and the highest of levels: those between are an engine's."""
    every = set(levels)
    return {min(every), max(every)}
