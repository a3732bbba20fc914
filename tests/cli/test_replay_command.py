from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.check.layouts import find, load
from harness.check.x86.replay import Case
from harness.paging.x86.access import Access, Kind
from tests.cli.commands import run

PAGE = 0x40_0000
"""Where the smallest layout has its one page."""


def case(**changed: Any) -> Case:
    """What could have been saved of the smallest layout."""
    saved: dict[str, Any] = {
        "layout": "smallest",
        "text": load(find("smallest")).text,
        "levels": 4,
        "engine": "tcg",
        "qemu": "7.2.0",
        "oracle": "probe",
        "address": PAGE,
        "access": Access(Kind.WRITE, user=True),
        "ac": False,
        "expected": "what was expected then",
        "observed": "what was seen then",
    }
    return Case(**{**saved, **changed})


QUESTIONS = [
    case(),
    case(levels=5, access=Access(Kind.FETCH, user=False)),
    case(access=Access(Kind.READ, user=False), ac=True, address=(1 << 64) - 8),
    case(access=None, oracle="info tlb"),
    case(access=None, oracle="gva2gpa", levels=5),
    case(access=None, oracle="memsave"),
    case(access=None, oracle="walk of monitor memory"),
]


@pytest.mark.hw
@pytest.mark.parametrize("saved", QUESTIONS, ids=lambda saved: saved.question)
def test_a_case_is_asked_again_and_both_answers_are_shown(tmp_path: Path, saved: Case) -> None:
    code, output, errors = run("replay", saved.save(tmp_path / "cases"), cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert f"smallest, {saved.levels} levels, tcg, {saved.question}" in output
    assert "expected  what was expected then" in output
    assert "observed  what was seen then" in output
    assert "They agree now." in output


@pytest.mark.hw
def test_a_case_carries_its_layout(tmp_path: Path) -> None:
    text = case().text.replace("0x40_0000", "0x70_0000")
    assert text != case().text
    saved = case(text=text, access=None, oracle="memsave", address=0x70_0000)
    code, _, errors = run("replay", saved.save(tmp_path), cwd=tmp_path)
    assert (code, errors) == (0, "")


@pytest.mark.hw
def test_a_question_about_nothing_is_misuse(tmp_path: Path) -> None:
    saved = case(access=None, oracle="info tlb", address=0x123_4000)
    code, _, errors = run("replay", saved.save(tmp_path), cwd=tmp_path)
    assert code == 2
    assert errors == "pagetable: the case cannot be replayed: the layout has nothing there\n"


def test_a_file_says_what_it_is_by_its_name(tmp_path: Path) -> None:
    path = case().save(tmp_path)
    assert path.name == "smallest-4-tcg-probe-user-write-at-0x400000.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"case": "else"}, "holds no case: case: invalid value 'else'"),
        ({"levels": "4"}, "levels: expected int, got text"),
        ({"address": "here"}, "holds no case: "),
        ({"address": hex(1 << 64)}, "address is 0x10000000000000000"),
        ({"oracle": "Delphi"}, "there is no oracle 'Delphi': choose one of probe, "),
        ({"access": None}, "an access goes with the oracle probe"),
        ({"access": {"kind": "look", "user": True}}, "access.kind is 'look'; it is one of read"),
        ({"access": {"kind": "read", "user": 1}}, "access.user: expected bool, got int"),
        ({"text": "levels = ["}, "smallest.toml is not TOML"),
        pytest.param({"levels": 3}, "smallest is written for 4 and 5 levels", marks=pytest.mark.hw),
        ({"engine": "abacus"}, "there is no engine 'abacus'"),
    ],
    ids=str,
)
def test_a_damaged_case_is_misuse_in_one_sentence(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = case().save(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, output, errors = run("replay", path, cwd=tmp_path)
    assert (code, output) == (2, "")
    assert said in errors
    assert errors.startswith("pagetable: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[]", "holds no case"), (None, "read")],
    ids=["half", "bytes", "list", "absent"],
)
def test_a_file_that_is_no_case_is_misuse(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "case.json"
    if content is not None:
        path.write_bytes(content)
    code, _, errors = run("replay", path, cwd=tmp_path)
    assert code == 2
    assert said in errors
    assert errors.count("\n") == 1


def test_a_case_has_a_name_that_a_file_can_have(tmp_path: Path) -> None:
    path = case(layout="so-long-" * 40).save(tmp_path)
    assert len(path.name) <= 255
    assert path.name.endswith(case().save(tmp_path).name.partition("-4-")[2])
    assert case(layout="x" * 400, oracle="y" * 400).save(tmp_path).is_file()
