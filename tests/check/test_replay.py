"""What every architecture's cases have in common: how they are asked again of the one engine that
runs them, and how their files are named and read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.architectures import NAMES, USUAL
from harness.check import replay
from harness.check.compare import Answer, Comparison, Disagreement
from harness.check.replay import CaseError, Host, MatrixCase, OneEngine, Present
from harness.machine.errors import MachineError, Misuse


class Kind(IntEnum):
    """Accesses."""

    READ = 0
    STORE_CONDITIONAL = 1


def test_a_kind_of_access_is_named_in_small_letters() -> None:
    assert replay.kind_named(Kind, "read") is Kind.READ
    assert replay.kind_named(Kind, "store_conditional") is Kind.STORE_CONDITIONAL
    for wrong in "READ", "", "write":
        with pytest.raises(ValueError, match=f"access.kind is '{wrong}'; it is one of read, store"):
            replay.kind_named(Kind, wrong)


@dataclass(frozen=True)
class Case:
    """A question, told by what comes of it."""

    says: Any
    engine: str = "tcg"


ENGINE: Any = SimpleNamespace(name="tcg", maker="QEMU")
PROGRAMS = {"QEMU": "/opt/qemu", "Bochs": "/opt/bochs"}


def comes_of(case: Case, program: str) -> Comparison:
    """What a case says: an error, why it cannot be compared, a quirk, or what is seen instead."""
    if isinstance(case.says, Exception):
        raise case.says
    kind, text = case.says
    comparison = Comparison("probe", compared=int(kind != "not comparable"))
    if kind == "not comparable" and text:
        comparison.not_comparable[text] += 1
    if kind == "quirk":
        comparison.quirks[text] += 1
    if kind == "seen":
        comparison.disagree(1, [Disagreement("probe", 0, None, "", f"{text} by {program}")])
    return comparison


def one_engine(started: list[str] | None = None, error: Exception | None = None) -> OneEngine[Any]:
    @contextmanager
    def guest(program: str) -> Iterator[Any]:
        if error:
            raise error
        if started is not None:
            started.append(program)
        yield SimpleNamespace(version=(11, 1, 3))

    starts: Any = guest
    return OneEngine("POWER", ENGINE, starts, comes_of)


def test_the_one_engine_of_an_architecture_is_asked_and_no_other() -> None:
    ours = one_engine()
    case = Case(("agrees", ""), engine="an earlier one")
    assert ours.on(case, "tcg") == replace(case, engine="tcg")
    with pytest.raises(Misuse, match="bochs runs no POWER: choose tcg"):
        ours.on(case, "bochs")


def test_a_host_has_the_engine_if_a_guest_starts_there() -> None:
    started: list[str] = []
    host = one_engine(started).this_host(PROGRAMS)
    assert host == Host({"tcg": Present("/opt/qemu", "tcg 11.1.3")}, {})
    assert started == ["/opt/qemu"]
    for error in Misuse("there is no /opt/qemu"), MachineError("it ended"):
        assert one_engine(error=error).this_host(PROGRAMS) == Host({}, {"tcg": str(error)})
    with pytest.raises(ZeroDivisionError):
        one_engine(error=ZeroDivisionError()).this_host(PROGRAMS)


def test_each_case_has_an_answer_with_its_number() -> None:
    ours = one_engine()
    cases = [
        Case(("agrees", "")),
        Case(("seen", "a fault")),
        Case(Misuse("no such feature")),
        Case(("not comparable", "no memory is there")),
        Case(("quirk", "some quirk")),
        Case(MachineError("the guest is lost")),
        Case(("not comparable", "")),
    ]
    who = "tcg", "tcg 11.1.3"
    unable = "the case cannot be replayed: "
    assert list(ours.ask_every(cases, ours.this_host(PROGRAMS))) == [
        (0, Answer(*who, True, "as expected")),
        (1, Answer(*who, False, "a fault by /opt/qemu")),
        (2, Answer(*who, None, "no such feature")),
        (3, Answer(*who, None, unable + "no memory is there")),
        (4, Answer(*who, True, "departs, as some quirk has it")),
        (5, Answer(*who, None, "the guest is lost")),
        (6, Answer(*who, None, unable + "the layout has nothing there")),
    ]


def test_an_engine_that_cannot_run_answers_no_case_and_says_why() -> None:
    host: Host[Present] = Host({}, {"tcg": "there is no QEMU", "kvm": "this is no POWER"})
    assert list(one_engine().ask_every([Case(None)] * 2, host)) == [
        (n, Answer(name, name, None, f"it cannot run here: {reason}"))
        for name, reason in host.absent.items()
        for n in range(2)
    ]


def a_matrix_case() -> MatrixCase:
    return MatrixCase(
        mode="radix",
        control=Case(0),
        values="level 1",
        words=(1, 2),
        address=0x1000,
        access="read",
        engine="tcg",
        qemu="7.2",
        expected="then",
        observed="seen then",
    )


def test_what_comes_of_a_case_of_the_matrix_has_the_answers_of_today() -> None:
    case = a_matrix_case()
    agrees = case.came_to(True, ("one", "other"), "now", "seen now")
    assert (agrees.oracle, agrees.compared, agrees.disagreed) == ("probe", 1, 0)
    assert agrees.quirks == Counter(("one", "other"))
    differs = case.came_to(False, ("one",), "now", "seen now")
    assert (differs.compared, differs.disagreed, differs.quirks) == (1, 1, Counter())
    assert differs.disagreements == [Disagreement("probe", 0x1000, None, "now", "seen now")]
    assert case.title == "radix, tcg, level 1, at 0x1000"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("a layout, 4-level: read", "a-layout-4-level-read"),
        ("x" * 240, "x" * 240),
        ("x" * 241, "x" * 240),
        ("left " + "x" * 239, "x" * 239),
        ("l" * 100 + " " + "x" * 139, "l" * 100 + "-" + "x" * 139),
        ("l" * 101 + " " + "x" * 139, "x" * 139),
    ],
)
def test_a_file_has_a_name_that_every_file_system_takes(
    title: str, name: str, tmp_path: Path
) -> None:
    made = replay.write(tmp_path / "new" / "folder", title, {"some": 1})
    assert made == tmp_path / "new" / "folder" / f"{name}.json"
    assert json.loads(made.read_text()) == {"version": 1, "some": 1}
    assert made.read_text().endswith("}\n")


def test_a_version_that_is_not_read_is_refused() -> None:
    for fine in b"{}", b'{"version": 1}', b'{"version": 1, "arch": "power", "some": [1]}':
        replay.check_version(fine)
    with pytest.raises(ValueError, match="its version is 2: a later pagetable wrote it, and this"):
        replay.check_version(b'{"version": 2}')
    with pytest.raises(ValueError, match="its version is 0: this one reads version 1"):
        replay.check_version(b'{"version": 0}')


def test_a_file_says_whose_case_it_has(tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    for arch in NAMES:
        path.write_text(json.dumps({"arch": arch, "version": 7}))
        assert replay.arch_in(path) == arch
    path.write_text("{}")
    assert replay.arch_in(path) == USUAL
    for text, why in (
        ('{"arch": "vax"}', "arch is 'vax', of which none can be asked again"),
        (r'{"arch": "\u0000"}', r"arch is '\x00', of which none can be asked again"),
        ('{"arch": "x86.matrix"}', "arch is 'x86.matrix', of which none can be asked again"),
        ('{"arch": 1}', "arch: expected text, got int"),
    ):
        path.write_text(text)
        with pytest.raises(CaseError, match="holds no case: ") as caught:
            replay.arch_in(path)
        assert why in str(caught.value) and str(caught.value).startswith(f"{path} ")
    with pytest.raises(CaseError, match="cannot be read: No such file or directory"):
        replay.arch_in(tmp_path / "none.json")
