"""Fixtures for pytest: a running guest, a space in its RAM, and the proof that both agree.

    def test_the_stack_has_a_guard_page(space, prove):
        write = space.format.granting("write")
        space.map(Virtual(0x7000_0000_1000), space.frames(4), level=0, bits=write)
        prove(space.cpu)

`guest`  a running guest, one for all tests of a session and engine; a new one where it was lost.
         `guest.ram.buffer` is its RAM as a numpy array of 256 MiB, from physical address
         `guest.ram.base` on, which is 0: what is stored there is what the processor reads.  The
         first 32 MiB are the machine's own, all above are the test's, for tables and frames.  Their
         content is what the last test left
`space`  an empty space in its RAM, with `cpu` and `frames()`; of 4 and of 5 levels.  For code
         that makes tables itself, `space.region(bytes)` gives it RAM of its own: the frame at its
         `address` is for a root, and `alloc` hands out those behind.  A frame that it frees twice,
         or that it was not given, fails the test
`prove`  asks every oracle about the space of a CPU state, and fails the test, with the walk,
         where one of them disagrees
`live`   the guest as it runs in that space while it is changed: `prove(live)` has it do all
         that was done, see `harness.check.x86.live`
`flushes`  starts your own QEMU with your own guest, and fails the test where its kernel forgets a
         flush, see `pagetable flushes`.  It needs none of the others, and runs once

A test that uses them runs on every engine, and at both numbers of levels; with `--pagetable-arch
riscv` in Sv39, Sv48 and Sv57, with RAM from 2 GiB on; with `--pagetable-arch arm64` at three and
four levels of 4K in the lower half, with RAM from 1 GiB on.  What the host cannot run is skipped,
and the reasons stand at the end of the output; an engine that `--pagetable-engine` names must run,
though, and so must an emulator that `--pagetable-qemu`, `--pagetable-bochs` or the environment's
QEMU or BOCHS names.  The reports of JUnit tell engines and versions in their head.

Everything of the package is imported when a fixture is used: pytest loads this module for every
project that is tested beside it.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from _pytest.junitxml import xml_key

from harness.architectures import NAMES, USUAL, has

if TYPE_CHECKING:
    from harness.check.compare import Comparison
    from harness.check.fixtures import Fixtures, Guest
    from harness.check.live import Live
    from harness.check.space import GuestSpace
    from harness.inspect.expect import Expectations, Wanted
    from harness.machine.machine import Engine
    from harness.machine.plugin import Watched
    from harness.paging.address import Span
    from harness.paging.memory import BufferMemory, Words
    from harness.paging.processor import Cpu

    class Prove(Protocol):
        """What the fixture `prove` is."""

        def __call__(
            self,
            what: Cpu | Live,
            *,
            allow: Sequence[str] = (),
            expect: Wanted | None = None,
            strict: bool = False,
        ) -> tuple[Comparison, ...]: ...

    class Flushes(Protocol):
        """What the fixture `flushes` is."""

        def __call__(
            self,
            command: Sequence[str],
            *,
            limit: float | None = None,
            fail_on: str = "late",
            deadline: int = ...,
            symbols: Path | None = None,
        ) -> Watched: ...


RAM_BYTES = 256 << 20

HEAD = "pagetable"
"""Where a worker of pytest-xdist keeps what goes into the head of the JUnit report."""

NOT_RUN: pytest.StashKey[set[str]] = pytest.StashKey()
"""Which engines run in versions that this project was not yet run on, a sentence each."""

NEW_VERSIONS = "not_run_on"
"""The property of the head that holds them."""

SPACE: pytest.StashKey[GuestSpace] = pytest.StashKey()
"""The space of a test."""

SKIPPED = "pagetable: "
"""What the lines of this module begin with, and the reasons of its skips."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options by which a machine is chosen."""
    group = parser.getgroup("pagetable", "guests that prove page tables")
    group.addoption(
        "--pagetable-arch",
        metavar="NAME",
        default=USUAL,
        help=f"the architecture of the guests: x86, riscv or arm64; {USUAL} unless given. The"
        " environment names the QEMU of others as QEMU_RISCV does",
    )
    group.addoption(
        "--pagetable-engine",
        action="append",
        metavar="NAME",
        help="run guests on this engine: tcg, kvm or bochs. May be repeated; tcg and kvm, as far"
        " as this host can run them, unless given",
    )
    group.addoption(
        "--pagetable-qemu",
        metavar="PATH",
        help="the QEMU to run, a name or a path, which must then run; by default the environment's"
        " QEMU, or qemu-system-x86_64",
    )
    group.addoption(
        "--pagetable-bochs",
        metavar="PATH",
        help="the Bochs to run, a name or a path, which must then run; by default the environment's"
        " BOCHS, or bochs",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuses an engine that there is not, and a Bochs that no test would run, before any test is
    collected."""
    config.stash[NOT_RUN] = set()
    arch = config.getoption("--pagetable-arch")
    known = [name for name in NAMES if has(name, "check", "fixtures")]
    if arch not in known:
        those = " (pagetable validate and matrix have them)" if arch in NAMES else ""
        raise pytest.UsageError(
            f"there are no guests of {arch!r} in this plugin{those}: choose {', '.join(known)}"
        )
    chosen: list[str] = config.getoption("--pagetable-engine") or []
    for name in chosen:
        if name not in _every_engine(config):
            engines = " or ".join(_every_engine(config))
            raise pytest.UsageError(f"there is no engine {name!r}: choose {engines}")
    bochs = config.getoption("--pagetable-bochs")
    if bochs not in (None, os.environ.get("BOCHS")) and "bochs" not in chosen:
        raise pytest.UsageError(
            f"no test runs {bochs}, which --pagetable-bochs names: add --pagetable-engine bochs"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs tests on every engine, and at every number of levels."""
    if "paging_engine" in metafunc.fixturenames:
        default = _fixtures(metafunc.config).DEFAULT
        engines = metafunc.config.getoption("--pagetable-engine") or default
        metafunc.parametrize("paging_engine", engines, indirect=True, scope="session")
    if "paging_levels" in metafunc.fixturenames:
        levels = _fixtures(metafunc.config).LEVELS
        metafunc.parametrize("paging_levels", levels, indirect=True, ids=levels.values())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Leaves the lines of this package out where a test of a guest asked for what cannot be: the
    sentence is for the author of the test, whose own lines are shown, and all with --full-trace."""
    if call.excinfo is None or item.config.getoption("fulltrace"):
        return
    if "guest" not in getattr(item, "fixturenames", ()):
        return
    if type(call.excinfo.value).__module__.partition(".")[0] == __package__:
        package, at, last = Path(__file__).parent, call.excinfo.tb.tb_next, call.excinfo.tb
        while at is not None:
            if package not in Path(at.tb_frame.f_code.co_filename).parents:
                last = at
            at = at.tb_next
        last.tb_next = None


def _fixtures(config: pytest.Config) -> Fixtures:
    """What the architecture that was chosen has for fixtures."""
    from harness.check.fixtures import fixtures_of

    return fixtures_of(config.getoption("--pagetable-arch"))


def _engine(name: str, config: pytest.Config) -> Engine:
    from harness.machine.registry import engine_named

    return engine_named(name, config.getoption("--pagetable-arch"))


def _every_engine(config: pytest.Config) -> list[str]:
    from harness.machine.registry import engines_of

    return list(engines_of(config.getoption("--pagetable-arch")))


@pytest.fixture(scope="session")
def _record(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Puts a property into the head of the JUnit report, of the controller's under xdist."""
    worker: dict[str, Any] | None = getattr(request.config, "workeroutput", None)
    if worker is None:
        record: Callable[[str, object], None] = request.getfixturevalue("record_testsuite_property")
        return record
    head: dict[str, object] = worker.setdefault(HEAD, {})
    return head.__setitem__


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over what a worker of pytest-xdist has for the head of the JUnit report."""
    report = node.config.stash.get(xml_key, None)
    known = dict(report.global_properties) if report else {}
    for name, value in getattr(node, "workeroutput", {}).get(HEAD, {}).items():
        if name == NEW_VERSIONS:
            node.config.stash[NOT_RUN].update(value.split("\n"))
        if report and name not in known:
            report.add_global_property(name, value)


@pytest.fixture(scope="session")
def _guests(
    _record: Callable[[str, object], None],
) -> Iterator[dict[str, Guest]]:
    """The guests of this session by engine, as far as one was started."""
    from harness.report.files import versions

    for name, value in versions().items():
        _record(name, value)
    guests: dict[str, Guest] = {}
    yield guests
    for guest in guests.values():
        guest.close()


@pytest.fixture(scope="session")
def paging_engine(
    request: pytest.FixtureRequest,
    _guests: dict[str, Guest],
    _record: Callable[[str, object], None],
) -> str:
    """The name of an engine that this host can run."""
    from harness.machine.machine import dotted

    name, fixtures = str(request.param), _fixtures(request.config)
    reason = _why_absent(name, request.config)
    if reason is not None:
        _record(f"engine {name}", f"absent: {reason}")
        if _must_run(name, request.config):
            pytest.fail(f"{name} was asked for, and cannot run here: {reason}", pytrace=False)
        pytest.skip(f"{SKIPPED}{name} cannot run here: {reason}")
    guest = _running(_guests, name, request.config)
    who, version = fixtures.executor(guest)
    versions = f"{guest.engine.maker} {dotted(guest.version)}, executed by {who} {dotted(version)}"
    _record(f"engine {name}", versions)
    new = request.config.stash[NOT_RUN]
    new.update(fixtures.new_versions(guest))
    if new:
        _record(NEW_VERSIONS, "\n".join(sorted(new)))
    return name


def _why_absent(name: str, config: pytest.Config) -> str | None:
    """Why an engine cannot run here, as a sentence; None if it can."""
    from harness.machine.errors import Misuse
    from harness.machine.registry import why_absent

    engine = _engine(name, config)
    program = _program(name, config) or engine.program
    try:
        engine.installed(program)
    except Misuse as error:
        return str(error)
    return why_absent(name, config.getoption("--pagetable-arch"), program)


@pytest.fixture
def guest(paging_engine: str, _guests: dict[str, Guest], pytestconfig: pytest.Config) -> Guest:
    """A running guest, whose RAM and processor other tests have used before.

    `ram.buffer` holds its RAM, a writable numpy array of bytes from physical address `ram.base` on,
    and `ram.size` how many there are.  `harness.machine.ram` draws which part is whose: the first
    32 MiB, `image.arena`, are the machine's own, and all above is the test's.  `space` makes its
    tables from there on, in the first 32 MiB of it, and takes frames from above these.
    """
    return _running(_guests, paging_engine, pytestconfig)


@pytest.fixture
def paging_levels(request: pytest.FixtureRequest, guest: Guest) -> int:
    """A number of levels that the guest's processor has."""
    levels: int = request.param
    if (reason := _fixtures(request.config).lacking(guest, levels)) is not None:
        pytest.skip(f"{SKIPPED}{reason}")
    return levels


@pytest.fixture
def space(request: pytest.FixtureRequest, guest: Guest, paging_levels: int) -> Iterator[GuestSpace]:
    """An empty space in the guest's RAM, with `cpu` and `frames()`."""
    made = request.node.stash[SPACE] = _fixtures(request.config).new_space(guest, paging_levels)
    yield made
    _check_regions(made)


@pytest.fixture
def live(guest: Guest, space: GuestSpace, pytestconfig: pytest.Config) -> Live:
    """The guest as it runs in the space, which is to be changed now."""
    return _fixtures(pytestconfig).new_live(guest, space)


def _check_regions(space: GuestSpace) -> None:
    """Fails the test where its code gave back a frame that was not out."""
    from harness.paging.space import SpaceError

    __tracebackhide__ = True
    try:
        space.check_regions()
    except SpaceError as error:
        pytest.fail(str(error))


@pytest.fixture
def prove(request: pytest.FixtureRequest, guest: Guest) -> Prove:
    """Call it with a CPU state whose CR3, or satp, leads to tables in the guest's RAM.

    Every oracle is asked about the space; the test fails where one disagrees with the library,
    where the space maps nothing, as with a wrong root, where a root in a region leads to tables
    outside it or in frames that were given back, and where it holds what no access can pass:
    entries with reserved bits set, and tables outside memory, unless `allow` has "malformed" or
    "unbacked".  Returns the comparisons.  What the space maps is overwritten, and its entries may
    be accessed and dirty afterwards.

    `expect` says what was meant: what addresses grant, and where they lead, in the words of
    `harness.inspect.expect`, or the path of a file of them; with `strict` nothing else may be
    mapped.  The test fails, as `pagetable fault` explains it, where the tables say something else.
    The machine is asked about the first and the last address of each expectation too.

    Or call it with `live`: the guest does what was done there, and is asked as it goes.  Where a
    flush may be missing and the machine showed nothing stale, that is a warning.  `expect` is then
    about the tables as they are in the end.

    A known quirk of the engine that does not show is a warning: the machine follows the rules.
    """
    from harness.check.fixtures import registers
    from harness.check.live import NOT_SHOWN, Live
    from harness.check.region import uncleared
    from harness.machine.errors import MachineError
    from harness.paging import bulk
    from harness.paging.memory import BufferMemory
    from harness.paging.space import SpaceError
    from harness.report.impassable import IMPASSABLE, impassable_lines
    from harness.report.text import counted, disagreeing, disagreement_lines

    memory, fixtures = BufferMemory(guest.ram.buffer, guest.ram.base), _fixtures(request.config)
    arch = request.config.getoption("--pagetable-arch")

    def prove(
        what: Cpu | Live,
        *,
        allow: Sequence[str] = (),
        expect: Wanted | None = None,
        strict: bool = False,
    ) -> tuple[Comparison, ...]:
        __tracebackhide__ = True
        if unknown := sorted(set(allow) - set(IMPASSABLE)):
            raise ValueError(f"there is no {unknown[0]!r} to allow, but {' and '.join(IMPASSABLE)}")
        if strict and expect is None:
            raise ValueError("strict says that nothing else is mapped: than what, says expect")
        meant = None if expect is None else _expectations(expect, strict, arch)
        if (space := request.node.stash.get(SPACE, None)) is not None:
            _check_regions(space)
        lines: list[str] = []
        comparisons: tuple[Comparison, ...]
        cpu, window = (what.cpu, what.window) if isinstance(what, Live) else (what, None)
        aside = () if window is None else (window,)

        def unmet() -> list[str]:
            return [] if meant is None else _unmet(cpu, memory, meant, *aside)

        fixtures.check_root(guest, cpu)
        own = what.own_tables if isinstance(what, Live) else ()
        sentence = space.astray(cpu, own) if space is not None else None
        if (sentence := sentence or uncleared(memory, cpu.roots)) is not None:
            pytest.fail("\n".join((sentence, "", *unmet())).rstrip())
        try:
            if isinstance(what, Live):
                comparisons = (what.run(),)
                lines += unmet()
            else:
                lines += unmet()  # before the machine notes in the entries what it accessed
                asked = None if meant is None else _places(cpu, meant)
                comparisons = fixtures.compared(guest, memory, cpu, asked)
        except (MachineError, SpaceError) as error:
            lines.insert(0, f"with {' and '.join(registers(cpu).values())}: {error}")
            comparisons = ()
        disagreed = sum(one.disagreed for one in comparisons)
        if disagreed:
            found = [d for one in comparisons for d in one.disagreements]
            said = [line for one in found for line in disagreement_lines(one)]
            if more := disagreed - sum(one.count for one in found):
                said.append(f"and {more:,} more, which are not shown")
            compared = sum(one.compared for one in comparisons)
            head = f"{disagreeing(disagreed, compared, 'answer')} on {guest.engine.name}"
            lines = [head, *said, *([""] if lines else []), *lines]
        if lines:
            pytest.fail("\n".join(lines))
        for news in sorted({one for comparison in comparisons for one in comparison.news}):
            warnings.warn(f"pagetable: on {guest.engine.name}, {news}", stacklevel=2)
        for reason, count in comparisons[0].not_comparable.items():
            if reason.startswith(NOT_SHOWN):
                warnings.warn(
                    f"pagetable: on {guest.engine.name}, {reason} ({counted(count, 'access')})",
                    stacklevel=2,
                )
        if isinstance(what, Live):
            return comparisons
        if not bulk.leaves(memory, cpu.roots, limit=0).total:
            leading = registers(cpu)
            pytest.fail(
                "nothing is mapped, so nothing was proved: all tables that"
                f" {' and '.join(leading.values())} {'lead' if len(leading) > 1 else 'leads'} to"
                f" are empty, as where {' or '.join(leading)} is wrong or entries were not stored"
                " in the guest's RAM"
            )
        if lines := list(impassable_lines(cpu, memory, allow, "allow=[{!r}]")):
            pytest.fail("\n".join(lines))
        return comparisons

    return prove


@pytest.fixture
def flushes() -> Flushes:
    """Call it with the command that starts QEMU with your guest, a list of words.

    The guest runs under TCG with a plugin that follows changes of the page tables, flushes and
    accesses, until QEMU ends or for `limit` seconds; the test fails with the report of `pagetable
    flushes` where a flush is missing, and where nothing was watched.  `fail_on="stale"` counts what
    a later flush may excuse too; `deadline` is for kernels that never go to user mode, in blocks of
    instructions; `symbols` is a file with the names of the kernel's functions.  What QEMU prints is
    the test's output.  Returns what was seen: QEMU's exit code, and the counts.
    """
    from harness.check.flushes import FailOn, architecture_of
    from harness.check.flushes import flushes as judged
    from harness.inspect.symbols import symbols as read_symbols
    from harness.machine.errors import MachineError
    from harness.machine.plugin import DEADLINE, Ending, watched
    from harness.report.flushes import lines

    def watch(
        command: Sequence[str],
        *,
        limit: float | None = None,
        fail_on: str = "late",
        deadline: int = DEADLINE,
        symbols: Path | None = None,
    ) -> Watched:
        __tracebackhide__ = True
        if fail_on not in [one.value for one in FailOn]:
            pytest.fail(f"there is no {fail_on!r} to fail on: choose late or stale", pytrace=False)
        if deadline < 1:
            pytest.fail(f"a deadline of {deadline} blocks is none: take 1 or more", pytrace=False)
        on = FailOn(fail_on)
        try:
            arch = architecture_of(command)
            names = None if symbols is None else read_symbols(symbols)
            seen = watched(command, limit=limit, deadline=deadline, arch=arch)
        except MachineError as error:
            pytest.fail(str(error), pytrace=False)
        if seen.ending is Ending.INTERRUPT:
            raise KeyboardInterrupt
        found = judged(arch, seen)
        if found.failed or found.unwatched or found.failing(on):
            pytest.fail("\n".join(lines(found, on, names)), pytrace=False)
        return seen

    return watch


def _expectations(expect: Wanted, strict: bool, arch: str) -> Expectations:
    """What tables are meant to say."""
    from harness.inspect.expect import expectations

    return expectations(expect, strict, arch)


def _places(cpu: Cpu, meant: Expectations) -> Words:
    """The addresses of which something is expected, for the machine to be asked about too."""
    from harness.inspect.expect import places

    return places(cpu, meant)


def _unmet(cpu: Cpu, memory: BufferMemory, meant: Expectations, *aside: Span) -> list[str]:
    """In what the tables are not as was meant, in lines; none where they are."""
    from harness.inspect.expect import unmet
    from harness.inspect.snapshot import Snapshot
    from harness.report.expect import unmet_lines

    snapshot = Snapshot("", cpu, memory, (memory.span,))
    return list(unmet_lines(snapshot, unmet(snapshot, meant, aside)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what this host could not run, and how many tests that cost; and what it ran in a version
    that this project was not yet run on."""
    for sentence in sorted(str(one) for one in terminalreporter.config.stash[NOT_RUN]):
        terminalreporter.write_line(f"{SKIPPED}{sentence}")
    reasons = Counter(
        reason.removeprefix("Skipped: ").removeprefix(SKIPPED)
        for report in terminalreporter.getreports("skipped")
        for reason in [str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")]
        if SKIPPED in reason
    )
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{SKIPPED}{count} skipped: {reason}")


def _must_run(name: str, config: pytest.Config) -> bool:
    """Whether an engine that cannot run fails its tests: it was asked for, or the emulator that was
    named is not there or does not work, as far as it is the emulator's doing."""
    if config.getoption("--pagetable-engine"):
        return True
    engine, named = _engine(name, config), _program(name, config)
    return named is not None and (engine.device is None or not shutil.which(named))


def _program(engine: str, config: pytest.Config) -> str | None:
    """The emulator that was named for an engine; None for its usual one."""
    used = _engine(engine, config)
    option = config.getoption(f"--pagetable-{used.maker.lower()}")
    named = option or os.environ.get(used.environment)
    return str(named) if named else None


def _running(guests: dict[str, Guest], engine: str, config: pytest.Config) -> Guest:
    """The session's guest on an engine; a new one in place of one that was lost."""
    from harness.machine.errors import MachineError

    __tracebackhide__ = True

    guest = guests.get(engine)
    if guest is not None:
        if guest.is_well():
            return guest
        guest.close()
    try:
        program = _program(engine, config)
        guests[engine] = _fixtures(config).new_guest(engine, RAM_BYTES, program)
    except MachineError as error:
        pytest.fail(str(error), pytrace=False)
    return guests[engine]
