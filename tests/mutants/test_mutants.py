"""Mutations are those that they claim to be, and each ends as its tests say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import imports
from tests.mutants import run as module
from tests.mutants.__main__ import LISTED, equivalent, one_after_the_other, outdated
from tests.mutants.mutate import Mutant, mutants
from tests.mutants.run import KILLED, SURVIVED, TIME, UNSEEN, Runs

REPOSITORY = Path(__file__).parents[2]


def made(source: str, directory: Path) -> list[Mutant]:
    path = directory / "some.py"
    path.write_text(source)
    return mutants(str(path))


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("a = b < 1", {"a = (b <= 1)", "a = b < 0", "a = b < 2"}),
        ("a = b in c", {"a = (b not in c)"}),
        ("a = b & c", {"a = (b | c)", "a = (b)", "a = (c)"}),
        ("a = b << c", {"a = (b >> c)", "a = (b)", "a = (c)"}),
        ("a = b - c", {"a = (b + c)"}),
        ("a = ~b", {"a = (b)"}),
        ("a = not b", {"a = (b)"}),
        ("a = b and c", {"a = (b or c)", "a = (b)", "a = (c)"}),
        ("a |= b", {"a &= b", "pass"}),
        ("a.b = c", {"pass"}),
        ("a(b, c)", {"(a(c, b))", "pass"}),
        ("a = max(b, c)", set()),
        ("a = np.maximum(b, c)", set()),
        ("a = d.maximum(b, c)", {"a = (d.maximum(c, b))"}),
        ("a = b(c, c)", set()),
        ("a = b if c else d", {"a = b if True else d", "a = b if False else d"}),
        ("a = [b for b in c if d]", {"a = [b for b in c if True]", "a = [b for b in c if False]"}),
        ("while a: b()", {"while False: b()", "while a: pass"}),
        ("a = True", {"a = False"}),
        ("a = 0x1000", {"a = 4095", "a = 4097"}),
        ("a = 'text' f'{b + 1}'", set()),
        ("a: int | str = b", set()),
        ("a = Some | str | tuple[str, int] | None", set()),
        ("assert a < b", set()),
        ("zip(a, b, strict=True)", {"(zip(b, a, strict=True))", "pass"}),
    ],
)
def test_every_way_to_change_a_line(was: str, now: set[str], tmp_path: Path) -> None:
    found = made(was, tmp_path)
    assert {(one.function, one.was) for one in found} <= {("", was)}
    assert sorted(one.now for one in found) == sorted(now)


METHOD = """
class C:
    @cached
    def f(self, a=1):
        if (
            a
            > self.b
        ):
            raise E("no", 1)
        return [
            1,
        ]
"""


def test_nothing_is_returned_in_place_of_what_is(tmp_path: Path) -> None:
    for was, now in ("return a", ["return None"]), ("return False", ["return True"]):
        assert [one.now for one in made(f"def f():\n    {was}\n", tmp_path)] == now


def test_a_mutant_names_its_function_and_keeps_every_line_in_its_place(tmp_path: Path) -> None:
    found = made(METHOD, tmp_path)
    assert {(one.function, one.first) for one in found} == {("C.f", 3)}
    assert {one.now for one in found if one.line == 9} == {"pass"}
    (tmp_path / "some.py").write_text("edited_since = 1\n")
    for one in found:
        changed = one.source().decode()
        assert len(changed.splitlines()) == len(METHOD.splitlines())
        compile(changed, "some.py", "exec")
        assert changed != METHOD


TOY = """
from functools import cache

SIZE = 1 << 4
LIMIT = 7
UNUSED = 3

def inside(value):
    return 0 <= value < SIZE

@cache
def cached(value):
    return value | 1

def ends(values):
    while values:
        values.pop()
    return values

def untested(value):
    return value

def in_a_process(value):
    return value + 1

def closure(value):
    def inner():
        return value & 3
    return inner
"""

TESTS = """
import multiprocessing
import pytest
from harness.paging import LIMIT, toy

def test_limit():
    assert LIMIT == 7

@pytest.mark.parametrize(("value", "is_inside"), [(-1, False), (0, True), (15, True), (16, False)])
def test_inside(value, is_inside):
    assert toy.inside(value) is is_inside

def test_cached_first():
    assert toy.cached(2) == 3

def test_cached_again():
    assert toy.cached(2) == 3

def test_ends():
    assert toy.ends([1]) == []

def test_in_a_process():
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=lambda: results.put(toy.in_a_process(2)))
    process.start()
    assert results.get() == 3
    process.join()

def test_closure():
    assert toy.closure(7)() == 3

def test_fails_always():
    assert False

def test_is_skipped():
    pytest.skip()
    toy.untested(1)
"""

OTHER = """
def test_that_runs_nothing_of_the_package():
    assert False
"""

EQUIVALENT = """
[[equivalent]]
path = "harness/paging/toy.py"
function = ""
was = "UNUSED = 3"
now = ["UNUSED = 4", "UNUSED = 2"]
why = "nobody reads it"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for found in imports.imported, imports._directly, imports._origins, module._other_files:
        found.cache_clear()
    for name, text in {
        "harness/__init__.py": "",
        "harness/pytest_plugin.py": "",
        "harness/paging/__init__.py": "from harness.paging.toy import LIMIT",
        "harness/paging/toy.py": TOY,
        "tests/paging/test_toy.py": TESTS,
        "tests/paging/test_other.py": OTHER,
        "tests/mutants/equivalent/paging.toml": EQUIVALENT,
        "pytest.ini": "[pytest]\nmarkers = hw\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


HURRIED = """
import sys
from tests.mutants import __main__, run
run.GRACE = 1
sys.exit(__main__.main(sys.argv[1:]))
"""
"""The tool, with a second where it gives five to what may have no end."""


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HURRIED, *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


def test_each_mutant_ends_as_its_tests_say(project: Path) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*.py")}
    done = run(project, "harness/paging/toy.py", "--seed", "5", "--tests", "tests/paging")
    assert done.stderr == "" and done.returncode == 1, done
    lines = done.stdout.splitlines()
    assert "seed 5" in lines
    assert "left out, since it fails without a mutation: tests/paging/test_toy.py" in done.stdout
    assert "test_other.py" not in done.stdout, "it imports nothing that is mutated"
    living = [
        tuple(text.strip() for text in lines[n : n + 3])
        for n, line in enumerate(lines)
        if ": harness/paging/toy.py:" in line
    ]
    assert sorted(living) == [
        ("no test runs it: harness/paging/toy.py:21: untested", "- return value", "+ return None"),
        ("survived: harness/paging/toy.py:28: closure", "- return value & 3", "+ return (3)"),
    ]
    (total,) = (line.split() for line in lines if line.startswith("all "))
    mutants, killed, out_of_time, equivalent, live, _ = total[1:]
    assert (out_of_time, equivalent, live) == ("1", "2", "2")
    assert int(killed) == int(mutants) - 5
    assert "is below 100%" in done.stdout
    assert {path: path.read_bytes() for path in project.rglob("*.py")} == before


def test_what_lives_is_tried_again_with_other_tests(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = mutants(str(project / "harness/paging/toy.py"))[:4]
    first = zip(some, (KILLED, SURVIVED, TIME, UNSEEN), strict=True)
    asked: list[Mutant] = []

    def then(lived: Sequence[Mutant]) -> Iterator[tuple[Mutant, str]]:
        asked.extend(lived)
        return iter([(lived[1], KILLED), (lived[0], SURVIVED)])

    ended = list(one_after_the_other(first, then))
    assert asked == [some[1], some[3]]
    assert ended == [
        *((some[0], KILLED), (some[2], TIME)),
        *((some[3], KILLED), (some[1], SURVIVED)),
    ]
    assert "2 are tried again" in capsys.readouterr().out
    killed = [(some[0], KILLED)]
    assert list(one_after_the_other(iter(killed), then)) == killed and len(asked) == 2


def test_what_was_recorded_is_kept_until_a_file_changes_unless_a_test_failed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("QEMU", raising=False)
    name = "tests/paging/test_toy.py::b"
    answers = [Runs({}, {}, [name]), *(Runs({name: float(n)}, {}, []) for n in range(6))]
    monkeypatch.setattr(module, "_alone", lambda work: iter([answers.pop(0)]))
    toy, tests = Path("harness/paging/toy.py"), ["tests/paging/test_toy.py"]
    assert module.recorded(tests).failed == [name]
    assert [module.recorded(tests).tests[name] for _ in range(3)] == [0, 0, 0]
    toy.write_text(TOY.replace("UNUSED = 3", "UNUSED = 4"))
    assert module.recorded(tests).tests[name] == 1
    assert module.recorded([*tests, "-x"]).tests[name] == 2
    Path("tests/conftest.py").write_text("")
    assert module.recorded(tests).tests[name] == 3
    for chooses in "QEMU", "QEMU_POWER":
        monkeypatch.setenv(chooses, "another")
    assert module.recorded(tests).tests[name] == 4
    monkeypatch.setenv("QEMU_POWER", "a third")
    assert module.recorded(tests).tests[name] == 5
    monkeypatch.delenv("QEMU")
    monkeypatch.delenv("QEMU_POWER")
    Path("tests/conftest.py").unlink()
    Path("harness/paging/untested.py").write_text("")
    toy.write_text(TOY)
    assert module.recorded(tests).tests[name] == 0


def test_files_are_recorded_apart(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes is recorded again, and no other; each has its own tests and lines, and
    what is imported of the files that it imports."""
    monkeypatch.chdir(project)
    other, toy = "tests/paging/test_other.py", "tests/paging/test_toy.py"
    asked: list[list[str]] = []

    def record(tests: list[str], send: module.Send) -> None:
        asked.append(tests)
        lines = {
            "harness/paging/toy.py": {1: {""}, 2: {f"{toy}::a", f"{other}::b"}},
            "harness/paging/else.py": {3: {""}, 4: {f"{toy}::a"}},
        }
        send(Runs({f"{toy}::a": 1, f"{other}::b": 2}, lines, []))

    def alone(work: Callable[[module.Send], None]) -> Iterator[Any]:
        sent: list[Any] = []
        work(sent.append)
        return iter(sent)

    monkeypatch.setattr(module, "_record", record)
    monkeypatch.setattr(module, "_alone", alone)
    found = module.recorded([toy])
    assert found.tests == {f"{toy}::a": 1}
    assert found.lines == {
        "harness/paging/toy.py": {1: {""}, 2: {f"{toy}::a"}},
        "harness/paging/else.py": {4: {f"{toy}::a"}},
    }
    both = module.recorded(["tests/paging", "-v"]), module.recorded(["-v", toy, other])
    assert both[0].tests == both[1].tests == {f"{toy}::a": 1, f"{other}::b": 2}
    assert both[0].lines["harness/paging/toy.py"][2] == {f"{toy}::a", f"{other}::b"}
    Path(other).write_text("\n" + OTHER)
    module.recorded([toy, other])
    assert asked == [[toy], [other, toy, "-v"], [other]]


def test_only_files_of_tests_that_import_a_file_may_run_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    for name, text in {
        "harness/paging/__init__.py": "from harness.paging.toy import inside",
        "harness/paging/first/rules.py": "from harness.paging import inside",
        "harness/paging/second/rules.py": "import harness.paging.toy",
        "harness/machine/first/__init__.py": "",
        "harness/machine/second/__init__.py": "",
        "harness/registry.py": "from importlib import import_module",
        "tests/paging/first/test_rules.py": "from harness.paging.first import rules",
        "tests/paging/second/test_rules.py": "def test():\n    import harness.paging.second.rules",
        "tests/paging/second/test_all.py": "from harness import registry",
    }.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    first, second = (f"tests/paging/{arch}/test_rules.py" for arch in ("first", "second"))
    every, toy = "tests/paging/second/test_all.py", "tests/paging/test_toy.py"
    for paths, wanted in (
        ({"harness/paging/toy.py"}, [first, every, second, toy]),
        ({"harness/paging/first/rules.py"}, [first]),
        ({"harness/paging/second/rules.py"}, [every, second]),
        (
            {"harness/paging/first/rules.py", "harness/paging/second/rules.py"},
            [first, every, second],
        ),
    ):
        assert module.reaching(paths, ["tests/paging", "-m", "not hw"]) == [*wanted, "-m", "not hw"]
    chosen = f"{toy}::test_inside"
    assert module.reaching({"harness/paging/first/rules.py"}, [chosen, toy, "-x"]) == [chosen, "-x"]


def test_the_cheap_come_first_and_each_half_has_its_share_of_the_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    file = "tests/paging/test_toy.py"
    mutant = mutants("harness/paging/toy.py")[0]
    costs = {"dear": 5, "near": 2, "cheap": 1, "far": 3, "apart": 1.5}
    tests = {f"{file}::{name}": seconds for name, seconds in costs.items()}
    run = {f"{file}::{name}" for name in ("dear", "near", "cheap")}
    lines = {mutant.path: dict.fromkeys(mutant.lines, run)}

    def of(most: float, anew: bool) -> list[str]:
        runs = Runs(tests, lines, [], most)
        return [name.partition("::")[2] for name in runs.of(mutant, anew)]

    assert of(100, anew=True) == ["cheap", "apart", "near", "far", "dear"]
    assert of(13, anew=True) == ["cheap", "apart", "near", "far", "dear"], "4.5 and 8 of 13"
    assert of(12, anew=True) == ["cheap", "apart", "near", "far"]
    assert of(9, anew=True) == ["cheap", "apart", "near", "far"]
    assert of(6, anew=True) == ["cheap", "apart", "near"]
    assert of(8, anew=False) == ["cheap", "near", "dear"]
    assert of(3, anew=False) == ["cheap", "near"]
    assert of(0.5, anew=False) == ["cheap"], "at least one"


def test_what_is_listed_and_is_no_mutant_any_more_is_found(project: Path) -> None:
    path = str(project / "harness/paging/toy.py")
    listed = project / "tests/mutants/equivalent"
    file = listed / "paging.toml"
    text = EQUIVALENT.replace("harness/paging/toy.py", path)
    for now, stale in ("UNUSED = 4", []), ("UNUSED = 9", [(path, "", "UNUSED = 3", "UNUSED = 9")]):
        file.write_text(text.replace("UNUSED = 4", now))
        assert outdated(equivalent(listed), {path: mutants(path)}) == stale
        assert outdated(equivalent(listed), {}) == [], "other files were not looked at"
    gone = text.replace("toy.py", "gone.py")
    file.write_text(gone)
    assert len(outdated(equivalent(listed), {})) == 2


def test_what_is_listed_is_in_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes a line of which a mutant is listed is told so."""
    monkeypatch.chdir(REPOSITORY)
    listed = equivalent(LISTED)
    assert outdated(listed, {path: mutants(path) for path in {key[0] for key in listed}}) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["harness/paging/none.py"],
        ["tests"],
        ["harness/cli"],
        ["harness/paging/toy.py", "--tests", "tests/paging/test_none.py"],
    ],
    ids=lambda arguments: arguments[-1],
)
def test_what_cannot_be_is_refused(arguments: list[str], project: Path) -> None:
    wrong = arguments[-1]
    done = run(project, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and wrong in done.stderr
