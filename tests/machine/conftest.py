"""Guests for the tests of the machine: one an engine and module, with tables written by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from harness.machine.ram import ARENA, MIB
from harness.machine.x86.engines import why_absent, why_long_mode_only
from harness.machine.x86.guest import Guest
from harness.machine.x86.registry import ENGINES
from tests.machine.handmade import MODES, PAGE, HandMade, Mode

RAM_BYTES = 96 * MIB


@pytest.fixture(scope="session")
def absent() -> dict[str, str | None]:
    """Why an engine cannot be run here; None: it can."""
    return {name: why_absent(name) for name in ENGINES}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, absent: dict[str, str | None]) -> str:
    if reason := absent[request.param]:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="module")
def guests(engine: str) -> Iterator[list[Guest]]:
    """The guest that is up, if one is."""
    up: list[Guest] = []
    yield up
    for guest in up:
        guest.close()


@pytest.fixture
def guest(engine: str, guests: list[Guest]) -> Guest:
    """One for the module; another after a test that lost it, so that it is the only one to fail."""
    if not guests or not guests[-1].is_well():
        guests.append(Guest(engine, ram_bytes=RAM_BYTES, deadline=20))
    return guests[-1]


@pytest.fixture(scope="module")
def frames() -> Iterator[int]:
    return itertools.count(ARENA.stop, PAGE)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, guest: Guest) -> Mode:
    mode = MODES[request.param]
    if mode.name == "5" and not guest.info.has("la57"):
        pytest.skip(f"{guest.engine.name} shows the guest no LA57, so it has no five levels")
    if not mode.long and (reason := why_long_mode_only(guest)):
        pytest.skip(reason)
    return mode


@pytest.fixture
def made(guest: Guest, mode: Mode, frames: Iterator[int]) -> HandMade:
    return HandMade(guest, mode, frames)
