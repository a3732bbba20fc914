"""What a check of someone's own guest asks, and of which of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.check.compare import Answer, Comparison, Disagreement
from harness.inspect import check as module
from harness.inspect.check import Checked, check
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.x86.cpu import Cpu
from tests.inspect.s390 import spaces
from tests.inspect.spaces import memory_of

SPACE = Snapshot("QEMU at x", Cpu.long_mode(4, 0), memory_of([0] * 512), None)


def asked(monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot, shared: bool) -> list[Any]:
    """What the oracles will be asked of a QEMU with this space, as it comes."""
    questions: list[Any] = []
    monitor = SimpleNamespace(version=(7, 2, 1), engine_in_use=lambda: "tcg")
    connection = SimpleNamespace(
        snapshot=lambda registers: snapshot,
        monitor=monitor,
        shared=shared,
        through_monitor=lambda: "through",
    )

    def of_foreign(*question: Any) -> Iterator[Comparison]:
        assert question[:3] == (monitor, snapshot.cpu, snapshot.memory)
        questions.append(question[3:])
        yield Comparison("walk", 1, 1, [Disagreement("walk", 0x123, None, "0", "1")])

    def new_versions(engine: str, version: tuple[int, ...]) -> tuple[str, ...]:
        return (f"{engine} {version}",)

    oracles = SimpleNamespace(of_foreign=of_foreign, new_versions=new_versions)
    if snapshot is SPACE:
        monkeypatch.setattr(module, "oracles_of", lambda arch: {"x86": oracles}[arch])
    for way in "_by_qmp", "_of_stub":

        @contextmanager
        def connected(path: Path, *given: object, way: str = way) -> Iterator[Any]:
            questions.append((way, path, *given))
            yield connection

        monkeypatch.setattr(module, way, connected)
    return questions


@pytest.mark.parametrize("shared", [False, True])
def test_memory_that_is_shared_is_read_through_the_monitor_too(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    questions = asked(monkeypatch, SPACE, shared)
    found = check(Path("x"), 3, thorough=True)
    assert questions == [("_by_qmp", Path("x"), 3), ("through" if shared else None, True)]
    assert (found.qemu, found.engine, found.not_run_on) == ("7.2.1", "tcg", ("tcg (7, 2, 1)",))
    (disagreement,) = found.disagreements
    assert disagreement.walk and disagreement.walk.address == 0x123
    check(Path("x"), 3, thorough=False, stub=True, held=True)
    assert questions[2:] == [
        ("_of_stub", Path("x"), 3, True),
        ("through" if shared else None, False),
    ]


def test_a_guest_whose_architecture_has_no_oracles_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked(monkeypatch, spaces.snapshot(), shared=False)
    with pytest.raises(QuestionError, match="test is of s390, of which no monitor is asked"):
        check(Path("x"), 0, thorough=False)


def test_disagreements_of_all_oracles_come_with_the_answers_to_the_first() -> None:
    found = [Disagreement("walk", number, None, "0", "1") for number in range(3)]
    answers = ((Answer("tcg", "QEMU", True, ""),),)
    comparisons = Comparison("a", 2, 2, found[:2]), Comparison("b", 1, 1, found[2:])
    checked = Checked(SPACE, "7.2", "tcg", (), comparisons, answers)
    assert checked.disagreements == found
    assert checked.told == [(found[0], answers[0]), (found[1], ()), (found[2], ())]
