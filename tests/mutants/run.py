"""What the tests say of mutants, each tried in a process of its own that is forked for it.

Only those files of tests matter that import a mutated one.  A first process runs them and notes
which lines each test runs, and how long it takes; that is kept of each file until it changes, or
one that it imports.  A second collects them and forks for every mutant: the child has the changed
code in place of the old and runs the tests that run those lines, until one fails.  What is run
while modules are imported cannot be exchanged so: where that is not enough to kill it, such a
mutant is imported by a child of a process that has imported nothing of the package.  No file is
written.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib.util
import os
import pickle
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from itertools import accumulate
from math import inf
from multiprocessing import Pipe, util
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import coverage
import pytest

from tests.mutants.imports import imported
from tests.mutants.mutate import Mutant

SURVIVED, KILLED, TIME, UNSEEN = "survived", "killed", "out of time", "no test runs it"
_FIXED = "cannot be exchanged"

GRACE = 5
"""Seconds of its own time that a child has beside five times what its tests usually take, and that
each of them has."""

IDLE = 120
"""Seconds after which a child that uses no time of its own hangs."""

KEPT = Path("build/mutants")
"""Where what the tests run is kept."""

READ = ("harness", "tests", "guest", "images")
"""Where files are that decide it, beside those that are imported."""

ENGINES = ("QEMU", "BOCHS")
"""How the variables begin that choose what guests run on."""

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""

Send = Callable[[Any], None]
Plugin = object


@dataclass
class Runs:
    """What the tests run, but for those that fail or are skipped.

    tests   seconds that each takes, by name
    lines   the names of those that run a line, by file and line; "" for what is imported
    failed  those that fail without any mutation
    most    seconds that the tests of one mutant may take; the costly ones are left out
    """

    tests: dict[str, float]
    lines: dict[str, dict[int, set[str]]]
    failed: list[str]
    most: float = inf
    deadly: Counter[str] = field(default_factory=Counter)

    def of(self, mutant: Mutant, anew: bool = False) -> list[str]:
        """The tests that run a mutant's lines, or, where its file is imported anew, all of files
        that import it, since they may use what it defines.  Those come first that killed most so
        far, then the cheap ones; where not all can be run, those that run lines of the file have
        half of the time, the others half, and each what the other half leaves."""
        here = self.lines.get(mutant.path, {})
        lines = here if anew else mutant.lines
        run = set[str]().union(*(here.get(line, ()) for line in lines)) & self.tests.keys()
        names = {name for name in self.tests if mutant.path in _imported_by(name)} if anew else run
        ours, theirs = self._upto(run), self._upto(names - run)
        first = [
            name
            for upto, others in ((ours, theirs), (theirs, ours))
            for name in upto
            if upto[name] <= max(self.most / 2, self.most - max(others.values(), default=0))
        ]
        upto = ours | theirs
        return sorted(first or [*upto][:1], key=lambda name: (-self.deadly[name], upto[name]))

    def _upto(self, names: Iterable[str]) -> dict[str, float]:
        """Seconds until each is done, the cheap ones first."""
        cheap = sorted(names, key=lambda name: (self.tests[name], name))
        return dict(zip(cheap, accumulate(self.tests[name] for name in cheap), strict=True))

    @functools.cached_property
    def limits(self) -> dict[str, float]:
        """Seconds that each test has: with what it may have to make for all tests of its file."""
        costliest: dict[str, float] = {}
        for name, seconds in self.tests.items():
            file = name.partition("::")[0]
            costliest[file] = max(seconds, costliest.get(file, 0))
        return {
            name: GRACE + 5 * seconds + 2 * costliest[name.partition("::")[0]]
            for name, seconds in self.tests.items()
        }

    def of_file(self, file: str) -> Runs:
        """What the tests of one file run, and what is imported of what that file imports."""
        mine = {name for name in self.tests if name.partition("::")[0] == file}
        files = imported(file)
        lines: dict[str, dict[int, set[str]]] = {}
        for path, here in self.lines.items():
            kept = mine | {""} if path in files else mine
            ran = {line: names & kept for line, names in here.items() if names & kept}
            if ran:
                lines[path] = ran
        failed = [name for name in self.failed if name.partition("::")[0] == file]
        return Runs({name: self.tests[name] for name in mine}, lines, failed)

    @classmethod
    def together(cls, parts: Sequence[Runs]) -> Runs:
        """What several files' tests run."""
        found = cls({}, defaultdict(lambda: defaultdict(set)), [])
        for part in parts:
            found.tests |= part.tests
            found.failed += part.failed
            for path, here in part.lines.items():
                for line, names in here.items():
                    found.lines[path][line] |= names
        return found

    def imported(self, mutant: Mutant) -> bool:
        """Whether the mutant's lines are run while modules are imported."""
        here = self.lines.get(mutant.path, {})
        return not mutant.function or any("" in here.get(line, ()) for line in mutant.lines)


def _imported_by(test: str) -> frozenset[str]:
    return imported(test.partition("::")[0])


def run(
    mutants: Sequence[Mutant], tests: Sequence[str], jobs: int, most: float, say: Send
) -> Generator[tuple[Mutant, str], None, None]:
    """How each of the mutants ends, as it is known.

    tests  what pytest is to collect, options among it
    most   seconds that the tests of one may take
    """
    tests = reaching({mutant.path for mutant in mutants}, tests)
    runs = recorded(tests)
    runs.most = most
    for name in runs.failed:
        say(f"left out, since it fails without a mutation: {name}")
    say(f"{len(runs.tests)} tests take {sum(runs.tests.values()):.0f} s")
    anew: list[Mutant] = []
    rest: list[Mutant] = []
    for mutant in mutants:
        if mutant.function and runs.of(mutant):
            rest.append(mutant)
        elif runs.imported(mutant) and runs.of(mutant, anew=True):
            anew.append(mutant)
        else:
            yield mutant, UNSEEN
    for mutant, ending in _alone(lambda send: _serve(rest, runs, tests, jobs, send)):
        if ending == _FIXED or (ending == SURVIVED and runs.imported(mutant)):
            anew.append(mutant)
        else:
            yield mutant, ending
    yield from _each(anew, runs, jobs, lambda mutant: _imported_anew(mutant, runs, tests))


def reaching(paths: Collection[str], tests: Sequence[str]) -> list[str]:
    """The files of tests that import one of these files, and so may run lines of them; what names
    single tests, and options, as they are.

    Where all are one architecture's, the tests of others' are left out.
    """
    named = {path.parent.name for path in Path("harness/machine").glob("*/__init__.py")}
    own = {arch for arch in named if all(arch in Path(path).parts for path in paths)}
    others = named - own if own else set()
    files, rest = _files_and_options(tests)
    return [
        one
        for one in files
        if "::" in one
        or (others.isdisjoint(Path(one).parts) and not imported(one).isdisjoint(paths))
    ] + rest


def recorded(tests: Sequence[str]) -> Runs:
    """What the tests run.  Of each file it is kept until one changes that decides it, unless one of
    its tests fails, which may be chance."""
    files, options = _files_and_options(tests)
    kept = {one: KEPT / _content(one, options) for one in files}
    stale = [one for one, path in kept.items() if not path.exists()]
    found = [pickle.loads(path.read_bytes()) for one, path in kept.items() if one not in stale]
    if stale:
        [new] = _alone(lambda send: _record([*stale, *options], send))
        KEPT.mkdir(parents=True, exist_ok=True)
        for one in stale:
            part = new.of_file(one.partition("::")[0])
            found.append(part)
            if not part.failed:
                kept[one].write_bytes(pickle.dumps(part))
    return Runs.together(found)


def _files_and_options(tests: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files of tests, with names of tests where such are given, and options of pytest."""
    files: list[str] = []
    options: list[str] = []
    for one in tests:
        path = Path(one.partition("::")[0])
        if path.is_dir():
            files += [str(file) for file in sorted(path.rglob("test_*.py"))]
        else:
            (files if path.exists() else options).append(one)
    return files, options


def _content(test: str, options: Sequence[str]) -> str:
    """A name for all that decides what the tests of a file run."""
    engines = {name: value for name, value in os.environ.items() if name.startswith(ENGINES)}
    hashed = hashlib.sha256(repr((sys.version, test, options, sorted(engines.items()))).encode())
    path = Path(test.partition("::")[0])
    python = {*imported(str(path)), *map(str, _conftests(path))}
    for one in sorted({*python, *_other_files()}):
        hashed.update(f"{one}\0{Path(one).stat().st_size}\0".encode())
        hashed.update(Path(one).read_bytes())
    return hashed.hexdigest()


def _conftests(path: Path) -> Iterator[Path]:
    for folder in path.parents:
        if (file := folder / "conftest.py").is_file():
            yield file


@functools.cache
def _other_files() -> frozenset[str]:
    """What is no Python: programs of guests, layouts, and the like, but not what is only read, or
    what lists mutants."""
    files = [path for name in READ for path in Path(name).rglob("*") if path.is_file()]
    return frozenset(
        str(path)
        for path in files
        if path.suffix not in {".py", ".md"} and {"__pycache__", "mutants"}.isdisjoint(path.parts)
    )


def _record(tests: Sequence[str], send: Send) -> None:
    recorder = _Recorder()
    recorder.coverage.start()
    code = _pytest(tests, recorder)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ends with {code!s}, and nothing is mutated")
    send(recorder.runs())


def _serve(
    mutants: Sequence[Mutant], runs: Runs, tests: Sequence[str], jobs: int, send: Send
) -> None:
    """Sends each mutant with how it ends."""

    class Server:
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session: pytest.Session) -> bool:
            functions = _functions()

            def child(mutant: Mutant) -> str:
                exchanged = _exchange(mutant, functions)
                _clear(_caches())
                return _until_one_fails(session, runs, runs.of(mutant)) if exchanged else _FIXED

            for answer in _each(mutants, runs, jobs, child):
                send(answer)
            return True

    _pytest(tests, Server())


def _imported_anew(mutant: Mutant, runs: Runs, tests: Sequence[str]) -> str:
    """What comes of a mutant in a process that has imported nothing yet."""
    endings = [KILLED]  # unless the tests are run at all

    class Importer:
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session: pytest.Session) -> bool:
            if not session.testsfailed:
                endings.append(_until_one_fails(session, runs, runs.of(mutant, anew=True)))
            return True

    sys.meta_path.insert(0, _Finder(mutant))
    with contextlib.suppress(Exception):  # the module cannot be imported
        _pytest(tests, Importer())
    return endings[-1]


class _Finder(MetaPathFinder):
    """Has a mutant's file imported as it is changed, whoever imports it first: the package that it
    is in, too."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        parts = Path(mutant.path).with_suffix("").parts
        self._name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        file = os.path.abspath(self._mutant.path)
        loader = _Loader(fullname, file)
        loader.mutant = self._mutant
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


class _Loader(SourceFileLoader):
    mutant: Mutant

    def get_code(self, fullname: str) -> CodeType:
        return _compiled(self.mutant)


def _until_one_fails(session: pytest.Session, runs: Runs, names: Sequence[str]) -> str:
    """SURVIVED, or KILLED and by which test.  To take a test away kills, too; one that has no end
    ends this process."""
    items = {item.nodeid: item for item in session.items}
    chosen = [items[name] for name in names if name in items]
    for item, after in zip(chosen, [*chosen[1:], None], strict=True):
        signal.setitimer(signal.ITIMER_PROF, runs.limits[item.nodeid])
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.testsfailed:
            return f"{KILLED} {item.nodeid}"
    return SURVIVED if len(chosen) == len(names) else KILLED


def _each(
    mutants: Sequence[Mutant], runs: Runs, jobs: int, child: Callable[[Mutant], str]
) -> Iterator[tuple[Mutant, str]]:
    """Forks for every mutant, `jobs` at a time."""
    waiting = list(reversed(mutants))
    running: dict[Any, tuple[Mutant, int]] = {}
    busy: dict[int, tuple[str, float]] = {}  # the time of its own of a child, and since when so
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                names = runs.of(mutant, anew=runs.imported(mutant))
                own = int(GRACE + 5 * sum(runs.tests[name] for name in names))
                pid, answers = _fork(lambda send, m=mutant: send(child(m)), nowhere, own)  # type: ignore[misc]
                running[answers] = mutant, pid
            ready = wait(list(running), 1)
            hang = [
                one for one, (_, pid) in running.items() if one not in ready and _hangs(pid, busy)
            ]
            for answers in (*ready, *hang):
                mutant, pid = running.pop(answers)
                answer = _received(answers) if answers in ready else None
                answers.close()
                status = _end(pid)
                busy.pop(pid, None)
                if isinstance(answer, _Trouble):
                    raise RuntimeError(f"{mutant}\n{answer.trace}")
                if answer is None:  # it crashed, or had no more time
                    answer = TIME if os.WTERMSIG(status) in _NO_TIME else KILLED
                ending, _, test = answer.partition(f"{KILLED} ")
                runs.deadly[test] += 1
                yield mutant, ending or KILLED
    finally:
        os.close(nowhere)
        for _, pid in running.values():
            _end(pid)


def _hangs(pid: int, busy: dict[int, tuple[str, float]]) -> bool:
    """Whether a child has used no time of its own for too long, however loaded the machine is."""
    own = " ".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
    if busy.get(pid, ("", 0))[0] != own:
        busy[pid] = own, time.monotonic()
    return time.monotonic() - busy[pid][1] > IDLE


_NO_TIME = (signal.SIGPROF, signal.SIGXCPU, signal.SIGKILL)


def _alone(work: Callable[[Send], None]) -> Iterator[Any]:
    """Everything that `work`, given to a process of its own, sends; RuntimeError where it fails,
    with all that it printed."""
    with tempfile.TemporaryFile("w+") as printed:
        pid, answers = _fork(work, printed.fileno())
        try:
            while (answer := _received(answers)) is not None:
                if isinstance(answer, _Trouble):
                    printed.seek(0)
                    raise RuntimeError(printed.read() + answer.trace)
                yield answer
        finally:
            _end(pid)


@dataclass
class _Trouble:
    """What a child sends that could not do its work."""

    trace: str


def _fork(
    work: Callable[[Send], None], output: int, seconds: int | None = None
) -> tuple[int, Connection]:
    """A process that works, with at most so many seconds of its own time."""
    receive, send = Pipe(duplex=False)
    pid = os.fork()
    if pid:
        send.close()
        return pid, receive
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        for standard, file in (0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output):
            os.dup2(file, standard)
        work(send.send)
    except BaseException:
        send.send(_Trouble(traceback.format_exc()))
    finally:
        send.close()
        os._exit(0)


def _received(answers: Connection) -> Any:
    """The next thing that a child sends; None where it has ended."""
    try:
        return answers.recv()
    except EOFError:
        return None


def _end(pid: int) -> int:
    """Ends a child with all that it started; how it ended."""
    for kill in os.killpg, os.kill:  # it may not lead its group yet
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _pytest(tests: Sequence[str], plugin: Plugin) -> int:
    # Assertions are left as they are: to rewrite them, pytest would import the package itself.
    options = ["-p", "no:xdist", "--capture=no", "--assert=plain", "-q"]
    return pytest.main([*options, *tests], plugins=[plugin, _Repeatable()])


class _Repeatable:
    """Has Hypothesis take the same examples every time, and none for the sake of a short one."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        for writer in "lfplugin", "nfplugin":  # of pytest's cache
            config.pluginmanager.unregister(name=writer)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings  # pytest wants to import it first

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile(
            "mutants", deadline=None, derandomize=True, database=None, phases=phases
        )
        settings.load_profile("mutants")


class _Recorder:
    """Notes what each test runs.  What a fixture runs counts for all tests of the file."""

    def __init__(self) -> None:
        here = [f"{os.getcwd()}/harness/*"]
        self.coverage = coverage.Coverage(None, config_file=False, include=here, messages=False)
        self.forked = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - for as long as it runs
        util.register_after_fork(self, lambda one: util.Finalize(None, one.note, exitpriority=1))
        self.seconds: dict[str, float] = {}
        self.reports: defaultdict[str, set[str]] = defaultdict(set)
        self.modules, self.caches = 0, _caches()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if len(sys.modules) != self.modules:
            self.modules, self.caches = len(sys.modules), _caches()
        _clear(self.caches)
        self.coverage.switch_context(item.nodeid.partition("::")[0])
        begin = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - begin
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        self.coverage.switch_context(item.nodeid)
        result = yield
        self.coverage.switch_context(item.nodeid.partition("::")[0])
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports[report.nodeid].add(report.outcome)

    def note(self) -> None:
        """Writes down what this process has run, at its end if a test has forked it."""
        self.coverage.stop()
        data = self.coverage.get_data()
        lines = {path: data.contexts_by_lineno(path) for path in data.measured_files()}
        os.write(self.forked.fileno(), pickle.dumps(lines))

    def runs(self) -> Runs:
        """All of it."""
        self.note()
        self.forked.seek(0)
        lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        with contextlib.suppress(EOFError):
            while True:
                for path, contexts in pickle.load(self.forked).items():
                    for line, names in contexts.items():
                        lines[os.path.relpath(path)][line].update(names)
        passed = {name for name, outcomes in self.reports.items() if outcomes == {"passed"}}
        of_file: dict[str, set[str]] = defaultdict(set)
        for name in passed:
            of_file[name.partition("::")[0]].add(name)
        run = {
            path: {
                line: names.union(*(of_file.get(name, ()) for name in names))
                for line, names in here.items()
            }
            for path, here in lines.items()
        }
        failed = [name for name, outcomes in self.reports.items() if "failed" in outcomes]
        return Runs({name: self.seconds[name] for name in passed}, run, failed)


def _compiled(mutant: Mutant) -> CodeType:
    return compile(mutant.source(), os.path.abspath(mutant.path), "exec", dont_inherit=True)


_Functions = dict[tuple[str, str, int], list[FunctionType]]


def _functions() -> _Functions:
    """Every function of the package that there is, by its file, name and line."""
    gc.unfreeze()
    found: _Functions = defaultdict(list)
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and "/harness/" in one.__code__.co_filename:
            found[_named(one.__code__)].append(one)
    gc.freeze()
    return found


def _named(code: CodeType) -> tuple[str, str, int]:
    return os.path.abspath(code.co_filename), code.co_qualname, code.co_firstlineno


def _exchange(mutant: Mutant, functions: _Functions) -> bool:
    """Gives the functions that the mutant is in its code; False if that cannot be done."""
    done = False
    for code in _codes(_compiled(mutant)):
        if f"{code.co_qualname}.".startswith(f"{mutant.function}."):
            for function in functions.get(_named(code), ()):
                if len(code.co_freevars) != len(function.__code__.co_freevars):
                    return False
                function.__code__ = code
                done |= code.co_firstlineno == mutant.first
    return done


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _caches() -> list[functools._lru_cache_wrapper[object]]:
    """The caches of the package and its tests, which a mutation must not find filled; but not
    those of formats, which are alike only if they are the same."""
    modules = [one for name, one in sys.modules.items() if name.startswith(("harness", "tests"))]
    classes = [one for module in modules for one in vars(module).values() if isinstance(one, type)]
    return [
        one
        for space in (*modules, *classes)
        for one in vars(space).values()
        if isinstance(one, functools._lru_cache_wrapper)
        and one.__annotations__.get("return") != "Format"
    ]


def _clear(caches: Sequence[functools._lru_cache_wrapper[object]]) -> None:
    for cache in caches:
        cache.cache_clear()
