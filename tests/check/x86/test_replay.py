"""A question about a layout asked again, of a guest that is the rules: of one that cannot be asked
the reason is said."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from harness.check.compare import PROBE
from harness.check.x86 import replay as module
from harness.check.x86.replay import Case, layout_of, replay, replay_in
from harness.machine.errors import Misuse
from harness.machine.machine import Processor
from harness.machine.ram import ARENA, MIB
from harness.paging.x86.access import Access, Kind
from tests.check.x86.by_rules import ByRules, info_of

PAGE = 0x4000_0000
LAYOUT = f"""
title = "A page of the user's, and one in the machine's own memory"
levels = [4, 5]
ram = "64M"
[cpu]
smap = true
[[map]]
virtual = {PAGE:#x}
size = "4K"
rights = "u"
"""


def case(**changed: Any) -> Case:
    saved = {
        **{"layout": "some", "text": LAYOUT, "levels": 4, "engine": "tcg", "qemu": "7.2.22"},
        **{"oracle": PROBE, "address": PAGE, "access": Access(Kind.READ, user=True), "ac": False},
        **{"expected": "", "observed": ""},
    }
    return Case(**{**saved, **changed})


def guest_of(*lacking: str) -> Any:
    return ByRules(info=info_of(Processor(), *lacking), ram_bytes=64 * MIB)


@pytest.mark.parametrize("kind", [Kind.READ, Kind.WRITE, Kind.FETCH])
@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("levels", [4, 5])
def test_the_access_of_a_case_is_made_again_as_it_was(levels: int, user: bool, kind: Kind) -> None:
    guest, asked = guest_of(), case(levels=levels, access=Access(kind, user))
    found = replay_in(guest, layout_of(asked), asked)
    assert (found.oracle, found.compared, found.disagreed) == (PROBE, 1, 0)
    # A user page, not writable, and not to be executed; SMAP keeps the supervisor from it.
    assert (guest.last.vector is None) is (user and kind is Kind.READ)


def test_what_the_processor_lacks_is_said() -> None:
    asked = case(levels=5)
    with pytest.raises(Misuse) as refused:
        replay_in(guest_of("la57"), layout_of(asked), asked)
    said = "the case cannot be replayed: the engine's processor has no five-level paging (LA57)"
    assert str(refused.value) == said


def test_a_question_that_is_not_compared_is_said_to_be_none() -> None:
    asked = case(
        text=LAYOUT.replace('rights = "u"', f"rights = 'u'\nphysical = {64 * MIB:#x}"),
    )
    with pytest.raises(Misuse, match=r"^the case cannot be replayed: the page has no memory"):
        replay_in(guest_of(), layout_of(asked), asked)
    assert ARENA.stop < 64 * MIB


def test_what_an_oracle_finds_nothing_of_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = type("Nothing", (), {"compared": 0, "disagreed": 0, "not_comparable": {}})
    monkeypatch.setattr(module, "compare_one", lambda *_: nothing)
    with pytest.raises(Misuse, match=r"replayed: the layout has nothing there$"):
        replay_in(guest_of(), layout_of(case()), case())


def test_a_disagreement_is_an_answer_though_nothing_was_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: Any = type("Found", (), {"compared": 0, "disagreed": 1, "not_comparable": {"why": 1}})
    monkeypatch.setattr(module, "compare_one", lambda *_: found)
    assert replay_in(guest_of(), layout_of(case()), case()) is found


def test_a_case_is_replayed_by_its_engine_and_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()

    @contextmanager
    def guest_for(layout: Any, engine: str, program: str | None) -> Any:
        asked.append((layout.name, engine, program))
        yield guest_of()

    monkeypatch.setattr(module, "guest_for", guest_for)
    found = replay(replace(case(), engine="kvm"), program="/opt/qemu")
    assert (found.compared, found.disagreed) == (1, 0)
    replay(case())
    assert asked == [("some", "kvm", "/opt/qemu"), ("some", "tcg", None)]
