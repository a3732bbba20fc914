"""A file of a case is held against its form before anything is done with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from harness.check.compare import PROBE, Disagreement
from harness.check.layouts import find, load
from harness.check.replay import CaseError
from harness.check.validation import SpaceReport
from harness.check.x86.matrix.case import MatrixCase, saved
from harness.check.x86.matrix.stage import WINDOW_KEY, Control, Model
from harness.check.x86.replay import ORACLES, Case
from harness.machine.ram import TABLE_ARENA
from harness.paging.x86.access import Access, Kind
from tests.cli.commands import run
from tests.cli.test_replay_command import case

MATRIX: dict[str, Any] = {
    "case": "matrix",
    "engine": "tcg",
    "qemu": "7.2.22",
    "values": "family=rights mode=4 level0.RW=0 address=0x220cc4411800 access=read by=user",
    "model": {
        **{"mode": "4", "maxphyaddr": 40, "page1gb": True},
        **{"pse36": True, "amd": False, "pse": True},
    },
    "control": {
        **{"wp": True, "nxe": True, "smep": True, "smap": True, "pge": True},
        **{"pke": False, "pks": False, "pkru": 0, "pkrs": 0},
    },
    "words": ["0x2000005", "0x600005", "0x601005", "0x602005"],
    "slots": ["0x600088", "0x601110", "0x602198", "0x604220"],
    "address": "0x220cc4411800",
    "access": {"kind": "read", "user": True, "implicit": False},
    "user": True,
    "ac": False,
    "width": 8,
    "page": 0,
    "backed": True,
    "flush": "page",
    "pdpte": None,
    "register": 0,
    "expected": "#PF(0x0) at level 0: the entry is not present (4.7)",
    "observed": "done",
}
"""What the matrix wrote once."""

OTHERS: tuple[Any, ...] = (None, True, 7, -1, 10**30, 40.5, 8.0, "x", "", [], [1], {}, {"a": 1})
"""A value of every type that JSON has."""


@pytest.fixture(scope="module")
def layout_case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = case().save(tmp_path_factory.mktemp("cases"))
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in an object."""
    if not isinstance(value, dict | list):
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*at, key)
        yield from places(part, (*at, key))


def changed(content: dict[str, Any], place: tuple[Any, ...], other: object) -> dict[str, Any]:
    content = copy.deepcopy(content)
    part: Any = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = other
    return content


def written(directory: Path, content: object) -> Path:
    path = directory / "case.json"
    path.write_text(json.dumps(content))
    return path


def test_what_was_written_is_read(tmp_path: Path, layout_case: dict[str, Any]) -> None:
    assert saved(written(tmp_path, layout_case)) == case()
    of_bytes = case(oracle="table bytes", access=None)  # no access is made there
    assert saved(of_bytes.save(tmp_path)) == of_bytes
    read = saved(written(tmp_path, MATRIX))
    assert isinstance(read, MatrixCase)
    assert saved(read.save(tmp_path)) == read
    assert (read.words[0], read.model.maxphyaddr, read.control.wp) == (0x2000005, 40, True)


def of_its_type(value: object, other: object) -> bool:
    """Whether a value could stand in the place of another by its type."""
    return type(value) is type(other) or (value is None and isinstance(other, str))


@pytest.mark.parametrize("kind", ["layout", "matrix"])
def test_every_value_of_another_type_is_refused(
    tmp_path: Path, layout_case: dict[str, Any], kind: str
) -> None:
    content = MATRIX if kind == "matrix" else layout_case
    tried = 0
    for place in places(content):
        value = content
        for key in place:
            value = value[key]
        for other in OTHERS:
            if not of_its_type(value, other) and (place, other) != (("access",), None):
                tried += 1
                path = written(tmp_path, changed(content, place, other))
                with pytest.raises(CaseError, match=r"holds no case: ") as refused:
                    saved(path)
                assert str(place[0]) in str(refused.value)
                assert "\n" not in str(refused.value)
    assert tried > 100


@pytest.mark.parametrize("ac", [False, True])
def test_a_disagreement_is_saved_with_the_ac_under_which_it_was(ac: bool) -> None:
    asked = case(ac=ac)
    flags = frozenset(["AC"]) if ac else frozenset[str]()
    answers = asked.expected, asked.observed
    found = Disagreement(PROBE, asked.address, asked.access, *answers, flags=flags)
    layout = load(find(asked.layout))
    space = SpaceReport(layout, asked.levels, asked.engine, asked.qemu, None, (), 0.0)
    assert Case.of(space, found) == asked


@pytest.mark.parametrize("oracle", ORACLES)
def test_an_access_goes_with_a_probe_and_with_no_other_question(
    tmp_path: Path, layout_case: dict[str, Any], oracle: str
) -> None:
    content = {**layout_case, "oracle": oracle}
    access = {"kind": "read", "user": True}
    for given in (None, access):
        path = written(tmp_path, {**content, "access": given})
        if (given is None) != (oracle == PROBE):
            read = saved(path)
            assert isinstance(read, Case) and read.oracle == oracle
        else:
            with pytest.raises(CaseError, match=f"an access goes with the oracle {PROBE}, and"):
                saved(path)


@pytest.mark.parametrize(
    "harm",
    [
        {"slots": ["0x600089", "0x601110", "0x602198", "0x604220"]},
        {"slots": ["0x7fffff", "0x601110", "0x602198", "0x604220"]},
        {"slots": ["0x600088"] * 4},
        {"slots": ["0x0", "0x601110", "0x602198", "0x604220"]},
        {"address": "0x220cc4411801"},
        {"address": "0x22_0cc4_4118_0q"},
        {"address": "-8"},
        {"words": ["0x1"]},
        {"words": ["0x1" + "0" * 16, "0x1", "0x1", "0x1"]},
        {"width": 3},
        {"page": 4},
        {"page": -1},
        {"register": 1 << 70, "pdpte": "0x1", "model": {"mode": "pae"}},
        {"flush": "never"},
        {"access": {"kind": "look", "user": True, "implicit": False}},
        {"access": {"kind": "read", "user": True, "implicit": True}},
        {"model": {**MATRIX["model"], "maxphyaddr": 10**30}},
        {"model": {**MATRIX["model"], "maxphyaddr": -1}},
        {"model": {**MATRIX["model"], "maxphyaddr": 53}},
        {"model": {**MATRIX["model"], "mode": "6"}},
        {"model": {**MATRIX["model"], "maxphyadr": 40}},
        {"model": {}},
        {"control": {**MATRIX["control"], "pkru": 1 << 40}},
        {"control": {**MATRIX["control"], "pkru": -1}},
        {"control": {**MATRIX["control"], "wq": True}},
        {"more": 1},
        {"case": "else"},
    ],
    ids=str,
)
def test_a_case_that_no_machine_can_be_asked_is_refused(
    tmp_path: Path, harm: dict[str, object]
) -> None:
    path = written(tmp_path, {**MATRIX, **harm})
    for command in (("replay",), ("dump", "--json", "--case"), ("walk", "0x1000", "--case")):
        code, out, errors = run(*command, path, cwd=tmp_path)
        assert (code, out) == (2, "")
        assert "holds no case: " in errors
        assert errors.count("\n") == 1


def asked(mode: str, **fields: Any) -> MatrixCase:
    """The case of `MATRIX`, or a similar one of another mode, with some fields changed."""
    read = saved_matrix()
    if mode != "4":
        model = replace(read.model, mode=mode)
        legacy: dict[str, Any] = {
            "words": (0x2000005,) * 2,
            "slots": (0x600088, 0x601110),
            "address": 0x8080_8800,
        }
        read = replace(read, model=model, control=Control(nxe=False), **legacy)
    return replace(read, **fields)


@cache
def saved_matrix() -> MatrixCase:
    with TemporaryDirectory() as directory:
        read = saved(written(Path(directory), MATRIX))
    assert isinstance(read, MatrixCase)
    return read


FIRST, LAST = TABLE_ARENA.start, TABLE_ARENA.stop - 8
WORD, KEYS = (1 << 64) - 1, (1 << 32) - 1


@pytest.mark.parametrize(
    ("mode", "last", "beyond"),
    [
        ("4", {"address": WORD - 7}, {"address": 1 << 64}),
        ("32", {"address": KEYS - 7}, {"address": 1 << 32}),
        ("4", {"changed": WORD}, {"changed": 1 << 64}),
        ("32", {"changed": KEYS}, {"changed": 1 << 32}),
        ("4", {"words": (WORD,) * 4}, {"words": (0, 0, 0, 1 << 64)}),
        ("32", {"words": (KEYS,) * 2}, {"words": (1 << 32, 0)}),
        ("4", {"words": (0,) * 4}, {"words": (0, 0, -1, 0)}),
        ("4", {"slots": (LAST, FIRST, 5 << 20, 6 << 20)}, {"slots": (LAST + 8, FIRST, 5, 6)}),
        ("32", {"slots": (LAST + 4, FIRST)}, {"slots": (LAST + 8, FIRST)}),
        ("32", {"slots": (LAST + 4, FIRST)}, {"slots": (LAST, FIRST - 4)}),
        ("4", {"page": 2}, {"page": 3}),
        ("32", {"page": 1}, {"page": 2}),
        ("32", {"model": Model("32", pse=False)}, {"page": 1}),
        ("4", {"width": 1}, {"width": 2}),
        ("4", {"width": 8}, {"width": 16}),
        ("4", {"control": Control(pkru=KEYS)}, {"control": Control(pkru=1 << 32)}),
        ("4", {"control": Control(pkrs=KEYS & ~WINDOW_KEY)}, {"control": Control(pkrs=1 << 32)}),
        ("4", {}, {"control": Control(pkrs=WINDOW_KEY)}),
        ("4", {}, {"control": Control(pkrs=WINDOW_KEY & -WINDOW_KEY)}),
        ("pae", {"pdpte": WORD, "register": 3}, {"pdpte": 1 << 64}),
        ("pae", {"pdpte": 0, "register": 0}, {"pdpte": -1}),
        ("pae", {"pdpte": 1, "register": 3}, {"register": 4}),
        ("pae", {"pdpte": 1, "register": 2}, {"register": 1}),  # that of the window
        ("4", {}, {"pdpte": 1}),
        ("32", {}, {"pdpte": 1}),
    ],
    ids=str,
)
def test_the_last_value_that_can_be_asked_is_taken_and_none_beyond_it(
    mode: str, last: dict[str, Any], beyond: dict[str, Any]
) -> None:
    taken = asked(mode, **last)
    taken.check(taken.model)
    with pytest.raises(ValueError):
        replace(taken, **beyond).check(taken.model)


READ, WRITE = Kind.SHADOW_READ, Kind.SHADOW_WRITE


@pytest.mark.parametrize(
    ("mode", "kind", "by", "others"),
    [
        ("4", READ, "user", [{"control": Control()}, {"control": Control(cet=True, wp=False)}]),
        ("4", READ, "user's RET", [{"access": Access(Kind.READ, True)}, {"wruss": True}]),
        ("4", READ, "supervisor's RET", [{"access": Access(Kind.FETCH, False)}]),
        ("4", WRITE, "supervisor", [{"wruss": True}]),
        ("4", WRITE, "supervisor's CALL", [{"user": True}]),
        ("4", WRITE, "WRUSS", [{"user": False}, {"access": Access(READ, True)}]),
        ("4", Kind.READ, "user", [{"wruss": True}, {"branch": True}]),
        ("32", READ, "user", [{"user": False}, {"branch": True}]),
        ("pae", WRITE, "user", [{"user": False}]),
    ],
)
def test_who_can_reach_a_shadow_stack_and_how(
    mode: str, kind: Kind, by: str, others: list[dict[str, Any]]
) -> None:
    user = not by.startswith("supervisor")
    case = asked(mode, access=Access(kind, user), user=user, wruss=by == "WRUSS", branch="'" in by)
    control, model = replace(case.control, cet=True), replace(case.model, shadow_stacks=True)
    case = replace(case, control=control, model=model)
    case.check(model)
    for other in others:
        with pytest.raises(ValueError):
            replace(case, **other).check(model)
    with pytest.raises(ValueError):
        case.check(replace(model, shadow_stacks=False))


def test_a_key_that_is_missing_or_none_is_named(tmp_path: Path) -> None:
    for key in MATRIX:
        content = {name: value for name, value in MATRIX.items() if name != key}
        with pytest.raises(CaseError, match=rf"missing required field {key}\b"):
            saved(written(tmp_path, content))
    with pytest.raises(CaseError, match="unknown field planted"):
        saved(written(tmp_path, {**MATRIX, "planted": 1}))


def test_a_version_is_written_and_a_file_without_one_is_of_the_first(
    tmp_path: Path, layout_case: dict[str, Any]
) -> None:
    assert layout_case["version"] == 1
    matrix = json.loads(saved(written(tmp_path, MATRIX)).save(tmp_path / "again").read_text())
    assert matrix["version"] == 1
    for content in (layout_case, matrix):
        before = {key: value for key, value in content.items() if key != "version"}
        assert saved(written(tmp_path, before)) == saved(written(tmp_path, content))


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (2, "its version is 2: a later pagetable wrote it, and this one reads version 1"),
        (10**9, "its version is 1000000000: a later pagetable wrote it, and this one reads"),
        (0, "its version is 0: this one reads version 1"),
        (-1, "its version is -1: this one reads version 1"),
        ("1", "version"),
        (None, "version"),
    ],
)
def test_a_version_that_is_not_read_is_a_sentence_whatever_else_is_there(
    tmp_path: Path, version: object, sentence: str
) -> None:
    for content in (MATRIX, {"case": "matrix"}, {"case": "of another day", "new": [1]}):
        path = written(tmp_path, {**content, "version": version})
        for command in (("replay",), ("dump", "--case")):
            code, out, errors = run(*command, path, cwd=tmp_path)
            assert (code, out) == (2, "")
            assert sentence in errors
            assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b"[" * 100_000, b'{"case":' * 50_000, b'{"case": 1e999}', b"nul", b"7"],
    ids=repr,
)
def test_what_is_no_json_is_a_short_sentence(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "case.json"
    path.write_bytes(text)
    with pytest.raises(CaseError, match="holds no case: ") as refused:
        saved(path)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("width", [-1, 0, 31, 53, 10**30])
def test_a_width_that_no_processor_has_is_no_case(tmp_path: Path, width: int) -> None:
    for mode in ("4", "32"):
        model = {**MATRIX["model"], "mode": mode, "maxphyaddr": width}
        with pytest.raises(CaseError, match=r"holds no case: maxphyaddr is -?\d+, not 32 to 52"):
            saved(written(tmp_path, {**MATRIX, "model": model}))


def test_an_engine_that_there_is_not_is_misuse(tmp_path: Path, layout_case: dict[str, Any]) -> None:
    for content in (MATRIX, layout_case):
        code, _, errors = run("replay", written(tmp_path, {**content, "engine": "x"}), cwd=tmp_path)
        assert code == 2
        assert "there is no engine 'x'" in errors


@pytest.mark.hw
def test_what_was_written_once_is_replayed(tmp_path: Path) -> None:
    code, out, errors = run("replay", written(tmp_path, MATRIX), cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "They agree now." in out


OLD_FLUSHES = {"la57": 0x1000, "la57-pse": 0x1010}
"""Names that a change of CR4.LA57 had (bit 12), alone and with CR4.PSE (bit 4): SDM 2.5."""


@pytest.mark.parametrize("flush", OLD_FLUSHES)
@pytest.mark.parametrize("step", ["earlier", "last"])
def test_an_old_name_of_a_change_of_levels_is_read(tmp_path: Path, flush: str, step: str) -> None:
    others = ("engine", "qemu", "values", "model", "expected", "observed", "case")
    first = {key: value for key, value in MATRIX.items() if key not in others}
    old = {"flush": flush}
    content = {**MATRIX, **old} if step == "last" else {**MATRIX, "earlier": [{**first, **old}]}
    found = saved(written(tmp_path, content))
    assert isinstance(found, MatrixCase)
    assert (found.steps[0].flush, found.steps[0].changed) == ("cr4", OLD_FLUSHES[flush])
    again = saved(found.save(tmp_path / "again"))
    assert again == found


@pytest.mark.hw
@pytest.mark.parametrize("flush", OLD_FLUSHES)
def test_a_change_of_levels_that_was_written_once_is_replayed(tmp_path: Path, flush: str) -> None:
    code, out, errors = run("replay", written(tmp_path, {**MATRIX, "flush": flush}), cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "They agree now." in out
