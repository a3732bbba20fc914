"""What is asked about spaces, and made of the answers, with a guest that follows the rules as they
are written a second time, or departs from them as some engine does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.compare import EXAMPLES, PROBE, Comparison
from harness.check.layouts import Layout, find, load, parse
from harness.check.marks import mark
from harness.check.product import evenly
from harness.check.tables import TableImage
from harness.check.validation import DEADLINE
from harness.check.x86 import cases, probes, validate, verdicts
from harness.check.x86.cases import AC, KINDS, Cases, of_places, of_space, together
from harness.check.x86.quirks import fault_quirks
from harness.check.x86.validate import build_in, compare_one, compare_space
from harness.check.x86.window import new_root, open_window
from harness.machine.errors import Misuse
from harness.machine.machine import Processor
from harness.machine.ram import ARENA, DEVICES, MIB
from harness.machine.x86.engines import executor
from harness.machine.x86.registry import engine_named
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.memory import BufferMemory, Mask
from harness.paging.processor import root_for
from harness.paging.space import Space, SpaceError, TableAllocator
from harness.paging.walk import walk
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from tests.check import tampered
from tests.check.x86 import by_rules
from tests.check.x86.by_rules import BOCHS, DEPARTS, OLD_TCG, TCG, ByRules, Engine, info_of
from tests.check.x86.plants import of_another_cpu
from tests.check.x86.test_by_rules import QUIRKS
from tests.paging import rules
from tests.paging.rules import GP, PF, SS, Answer

Results = npt.NDArray[np.void]

ODD: Final = """
title = "Pages of all rights, and of no memory; entries with reserved bits; tables as pages"
levels = [4, 5]
ram = "64M"
[cpu]
smep = true
smap = true
[[map]]
virtual = 0x40_0000
size = "4K"
count = 2
[[map]]
virtual = 0x40_4000
size = "4K"
rights = "xu"
[[map]]
virtual = 0x40_6000
size = "4K"
rights = "w"
[[map]]
virtual = 0x40_8000
size = "4K"
rights = "x"
[[map]]
virtual = 0x80_0000
size = "2M"
rights = "wx"
[[entry]]
virtual = 0x40_a000
level = 0
value = 0x8_0000_03ff_f007
[[entry]]
virtual = 0x40_c000
level = 0
value = 0x10_0000_0007
[[entry]]
virtual = 0xa0_0000
level = 1
value = 0x3e0_2087
[[entry]]
virtual = 0x8000_0000
level = 2
value = 0x2087
[[share]]
virtual = 0xffff_f680_0000_0000
root = true
levels = [4]
[[share]]
virtual = 0xffed_0000_0000_0000
root = true
levels = [5]
"""

REFUSED: Final = {(0x40_E000, 0): DEVICES.start | 7, (0x60_0000, 1): 1 << 36 | 7}
"""By address and level, entries that no layout may have: of a page of devices, and of a table where
no memory is."""


@pytest.fixture(autouse=True)
def _few_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses that nothing suggests are as good as each other."""
    monkeypatch.setattr(cases, "STRAY", 4)


class Noting(ByRules):
    """A guest that keeps what it was asked and what it answered, and may answer otherwise.

    otherwise  what it makes of its answers
    """

    otherwise: Callable[[Results], Results] | None = None

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.asked, self.said = list[Results](), list[Results]()

    def run(self, state: Any, jobs: Results) -> Results:
        self.asked.append(jobs.copy())
        return super().run(state, jobs)

    def tampered(self, results: Results) -> Results:
        if self.otherwise is not None:
            results = self.otherwise(results)
        self.said.append(results.copy())
        return results


def opposite(results: Results) -> Results:
    """What came of no access."""
    results["completed"] ^= 1
    results["data"] ^= np.uint64(0xF0)
    return results


class Here(NamedTuple):
    """A space in a guest's memory."""

    guest: Any
    memory: BufferMemory
    cpu: Cpu


def of_layout(
    levels: int,
    engine: Engine = BOCHS,
    departs: Any = None,
    layout: Layout | None = None,
) -> Here:
    """A layout in the memory of a guest that departs as the engine does unless given."""
    layout = layout or parse(ODD, "odd.toml")
    usual = DEPARTS[engine] if departs is None else departs
    guest: Any = Noting(*engine, usual, ram_bytes=layout.ram)
    memory, cpu = build_in(guest, layout, levels)
    if layout.name == "odd":
        for (address, level), raw in REFUSED.items():
            paths = bulk.paths(memory, cpu.roots[0], np.array([address], np.uint64))
            memory.store(Physical(int(paths.slot[level, 0])), 8, raw)
    return Here(guest, memory, cpu)


FREE: Final = ARENA.stop + 2 * MIB
PAGE: Final = 0x40_0000


def of_mode(mode: str, engine: Engine = BOCHS, departs: Any = ()) -> Here:
    """Pages in 32-bit or PAE paging, one of them the root's or that in which the PDPTEs are."""
    guest: Any = Noting(*engine, departs)
    memory = BufferMemory(guest.ram.buffer)
    allocator = TableAllocator(memory, Span(ARENA.stop, FREE - 1))
    cpu = Cpu.in_mode(Mode(mode), 0, cr4=Cr4.PGE | Cr4.PSE | Cr4.SMEP | Cr4.SMAP)
    cpu = new_root(memory, cpu, allocator)
    space = Space(memory, cpu.roots, allocator)
    usable = [name for name in ("write", "user", "execute") if name in space.format.rights]
    for number in range(1 << len(usable)):
        rights = [name for n, name in enumerate(usable) if number >> n & 1]
        frame = np.array([FREE + 2 * number * 0x1000], np.uint64)
        space.map(Virtual(PAGE + 2 * number * 0x1000), frame, 0, space.format.granting(*rights))
    top = np.array([cpu.cr3 & ~0xFFF], np.uint64)
    space.map(Virtual(PAGE + 0x10_0000), top, 0, space.format.granting(*usable))
    size = space.format.levels[1].size
    space.map(Virtual(8 * size), np.array([48 * MIB], np.uint64), 1, space.format.granting(*usable))
    return Here(guest, memory, cpu)


MODES: Final[dict[str, Callable[..., Here]]] = {
    "32": lambda *given: of_mode("32", *given),
    "pae": lambda *given: of_mode("pae", *given),
    "4": lambda *given: of_layout(4, *given),
    "5": lambda *given: of_layout(5, *given),
}


@dataclass(frozen=True)
class Asked:
    """Accesses to a space, what memory held before them, and what came of them."""

    here: Here
    cases: Cases
    before: npt.NDArray[np.uint8]
    found: Comparison

    def answer(self, address: int, kind: Kind, user: bool, ac: bool) -> Answer | None:
        """What an access comes to by the rules."""
        guest, _, cpu = self.here
        machine = replace(guest.machine(cpu, ac), pdptes=cpu.pdptes)
        memory: Any = self.before
        return rules.access(machine, memory, address, kind.name.lower(), user)


def asked(one: Here, count: int = 400, known: Any = None, places: tuple[int, ...] = ()) -> Asked:
    """What comes of some accesses to a space, and to places; `known` are the quirks, if not the
    engine's."""
    quirks = fault_quirks(*executor(one.guest)) if known is None else known
    with validate._window(one.guest, one.memory, one.cpu) as window:
        written = TableImage.of(one.memory, one.cpu.roots).address
        if one.cpu.mode is Mode.PAE:
            written = np.append(written, np.uint64(one.cpu.cr3 & ~0xFFF))
        leaves = bulk.leaves(one.memory, one.cpu.roots)
        leaves = leaves.take(~window.holds(leaves.virtual))
        every = of_space(one.cpu, one.memory, leaves, window.spans)
        named = of_places(one.cpu, one.memory, np.array(places, np.uint64), window.spans)
        some = together([every.take(evenly(len(every), count)), named])
        before = one.memory.octets.copy()
        found = probes.ask_guest(one.guest, window, one.cpu, one.memory, written, some, quirks)
    return Asked(one, some, before, found)


def reasons(one: Asked) -> Counter[str]:
    """Why what of the cases cannot be asked, by the rules."""
    found, cpu = Counter[str](), one.here.cpu
    tables = {int(at) for at in TableImage.of(BufferMemory(one.before), cpu.roots).address}
    tables |= {cpu.cr3 & ~0xFFF}
    for address, kind, user, ac in accesses(one.cases):
        answer = one.answer(address, kind, user, ac)
        if answer is None:
            found["an entry of the path has no memory behind it"] += 1
        elif answer.physical is not None:
            word = answer.physical & ~7
            if word in ARENA:
                found["the page holds the harness's own memory"] += 1
            elif word >= len(one.before):
                found["the page has no memory behind it"] += 1
            elif kind is Kind.FETCH and word & ~0xFFF in tables:
                found["a table is not code"] += 1
    return found


def accesses(cases: Cases) -> Iterator[tuple[int, Kind, bool, bool]]:
    for lane in range(len(cases)):
        yield (
            int(cases.address[lane]),
            Kind(int(cases.kind[lane])),
            bool(cases.user[lane]),
            bool(cases.ac[lane]),
        )


@pytest.mark.parametrize("engine", DEPARTS, ids=str)
@pytest.mark.parametrize("mode", ["4", "5"])
def test_a_space_agrees_with_a_guest_that_does_as_an_engine_does(mode: str, engine: Engine) -> None:
    one = asked(MODES[mode](engine), places=(PAGE | 1 << 60, PAGE | 1 << 48))
    assert not one.found.disagreed and not one.found.news, one.found.disagreements[:2]
    left_out = dict(one.found.not_comparable)
    if engine == OLD_TCG:  # of each place: a read, a write and a fetch by the user
        count = left_out.pop("the engine takes the address for another, where there is a page")
        assert count == 3 * (2 if mode == "4" else 1)
    why = reasons(one)
    assert left_out == why and len(why) == (3 if mode == "4" else 4)
    names = {QUIRKS[name].name for name in DEPARTS[engine] & QUIRKS.keys()}
    assert set(one.found.quirks) <= names and bool(one.found.quirks) == (engine[0] == "tcg")


@pytest.mark.parametrize("mode", ["32", "pae"])
@pytest.mark.parametrize("upper", [(), (by_rules.UPPER,)], ids=["plain", "A-above-faults"])
def test_so_does_one_of_a_legacy_mode(mode: str, upper: tuple[str, ...]) -> None:
    one = asked(MODES[mode](BOCHS, upper))
    assert not one.found.disagreed and not one.found.news, one.found.disagreements[:2]
    assert one.found.not_comparable == reasons(one)
    assert one.found.not_comparable["a table is not code"] > 0
    assert one.found.compared == len(one.cases) - one.found.not_comparable.total() > 100


@pytest.mark.parametrize("mode", MODES)
def test_each_case_meets_the_entries_as_they_were_built(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever those before it left in them."""
    monkeypatch.setattr(probes, "BATCH", 64)
    one = asked(MODES[mode](BOCHS, ()))
    guest, size = one.here.guest, one.here.cpu.format.entry_bytes
    assert len(guest.asked) > 3 and not one.found.disagreed
    tables, marked = TableImage.of(BufferMemory(one.before), one.here.cpu.roots).holds, 0
    for jobs in guest.asked:
        for job in jobs:
            for number in range(job["watched"]):
                at, word = int(job["where"][number]), int(job["word"][number])
                was = int.from_bytes(one.before[at : at + size].tobytes(), "little")
                table = at & ~0xFFF == one.here.cpu.cr3 & ~0xFFF or tables(
                    np.array([at], np.uint64)
                )
                if not table:  # but in a frame, which is marked anew
                    assert number == job["watched"] - 1 == job["patched"] - 1
                    assert word == int(mark(np.array([at], np.uint64))[0]) & (1 << 8 * size) - 1
                    marked += 1
                else:
                    assert word == was
    assert one.found.compared == sum(map(len, guest.asked)) and marked > 10


def lanes_of(patch: pytest.MonkeyPatch, one: Here, known: Any = ()) -> tuple[Asked, Any, Any]:
    """What came of accesses to a space, what was expected, and what judges other answers."""
    kept, judge = list[Any](), probes.judge

    def keeping(*given: Any) -> None:
        kept.append(given)
        judge(*given)

    with patch.context() as noting:
        noting.setattr(probes, "judge", keeping)
        found = asked(one, 300, known)
    [(_, cpu, guest, expected, jobs, results, quirks)] = kept
    true = probes._judged

    def again(results: Results) -> Mask:
        agree = list[Mask]()

        def noted(*given: Any) -> Any:
            judged = true(*given)
            agree.append(judged.agree.copy())
            return judged

        with patch.context() as noting:
            noting.setattr(probes, "_judged", noted)
            judge(Comparison(PROBE), cpu, guest, expected, jobs, results, quirks)
        return agree[0]

    return found, expected, tampered.Verdicts((), results.copy(), again(results), again)


@pytest.mark.parametrize("mode", MODES)
def test_every_field_of_a_result_is_looked_at(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "FAULT_QUIRKS", ())
    found, expected, one = lanes_of(monkeypatch, MODES[mode](BOCHS, ()))
    made, levels, n = expected.allowed, len(expected.paths.used), len(expected.cases)
    assert one.agree.all() and n > 120
    every, steps = np.ones(n, np.bool_), expected.paths.used.sum(axis=0)
    read, write, fetch = (expected.cases.kind == kind for kind in KINDS)
    top = 8 * found.here.cpu.format.entry_bytes - 1
    seen: dict[str, Any] = {
        "vector": (~made | fetch, (0, 7)),  # of data that is reached, it is why it is completed
        "completed": (every, (0,)),
        "error": (every, (0, 1, 2, 3, 4, 5, 15)),
        "cr2": (every, (0, 12, 31)),
        "data": (made & (read | fetch), (0, 31)),
        "rip": (made & fetch, (0, 31)),
    }
    for column in range(levels + 1):
        data = made & ~fetch & (steps == column)
        seen[f"after {column}"] = (steps > column) | data & write, (0, 12, top)
    lanes = tampered.looked_at(one, seen)
    assert min(lanes[name] for name in ("data", "rip", f"after {levels}")) > 2
    # A and D, but for A above the entry at which a fault is found, and of what the stub uses too.
    ended, own = expected.outcomes.walks.level, expected.in_table & write
    for level in range(levels):
        used = expected.paths.used[level]
        places = np.where(used, expected.paths.used[level:].sum(axis=0) - 1, 0)
        free = used & ~made & (ended < level)
        same = (expected.paths.slot == expected.paths.slot[level]) & expected.paths.used
        unclear = same.sum(axis=0) > 1
        overwritten = own & (expected.paths.slot[level] == expected.data)
        for bit, lanes_ in (
            (5, used & ~free & ~expected.window[level] & ~unclear & ~overwritten),
            (6, used & ~unclear & ~overwritten),
        ):
            wrong = one.results.copy()
            wrong["after"][np.arange(n), places] ^= np.uint64(1 << bit)
            assert not (one.judge(wrong) & lanes_).any(), (level, bit)
        other = one.results.copy()
        other["after"][np.arange(n), places] |= free * np.uint64(1 << 5)
        assert one.judge(other).all()


def text(answer: Answer) -> str:
    names = {PF: "#PF", GP: "#GP", SS: "#SS"}
    if answer.vector is None:
        return f"reaches {answer.physical:#x}"
    return f"{names[answer.vector]}({answer.error:#x})"


@pytest.mark.parametrize("mode", MODES)
def test_what_rules_and_machines_say_is_put_into_words(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = MODES[mode](BOCHS, ())
    one.guest.otherwise = opposite
    few = asked(one, 60)
    assert few.found.disagreed == few.found.compared > EXAMPLES == len(few.found.disagreements)
    assert not few.found.quirks and not few.found.news
    monkeypatch.setattr(probes, "EXAMPLES", 1 << 16)
    one.guest.asked.clear(), one.guest.said.clear()
    every = asked(one)
    [jobs], [results] = one.guest.asked, one.guest.said
    assert len(every.found.disagreements) == len(jobs)
    for found, job, result in zip(every.found.disagreements, jobs, results, strict=True):
        assert (found.oracle, found.address) == (PROBE, int(job["address"]))
        assert isinstance(found.access, Access)
        kind, user, ac = found.access.kind, found.access.user, found.flags == AC
        assert (user, ac) == (bool(job["user"]), bool(job["ac"]))
        answer = every.answer(found.address, kind, user, ac)
        assert answer is not None and found.expected.startswith(text(answer))
        saw, words = found.observed.split("; entries from the root down: ")
        if result["completed"]:
            assert saw.startswith("done, and the word is ")
        else:
            assert saw.endswith(f", CR2 {int(result['cr2']):#x}")
        steps = 0 if words == "none" else words.count(" -> ")
        for number, step in enumerate(words.split(", ")[:steps]):
            old, new = (int(each, 16) for each in step.split(" -> "))
            assert (old, new) == (int(job["word"][number]), int(result["after"][number]))
        if kind is Kind.WRITE and result["completed"]:
            assert int(saw.split()[5].rstrip(","), 16) == int(result["after"][steps])
        elif result["completed"]:
            assert int(saw.split()[5].rstrip(","), 16) == int(result["data"])
        assert ("the mark of" in saw) == (answer.vector is None and bool(result["completed"]))


@pytest.mark.parametrize("wrong", [False, True], ids=["sound", "wrong"])
def test_a_reference_that_is_wrong_as_the_engine_is_disagrees(
    wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it reads bit 8 of AMD's PML4E as TCG does: of what is denied too."""
    layout = parse(ODD, "odd.toml")
    guest: Any = Noting(*TCG, DEPARTS[TCG], info_of(Processor(amd=True)), layout.ram)
    memory, cpu = build_in(guest, layout, 4)
    assert cpu.amd
    memory.octets[cpu.cr3 + 1] |= 1
    if wrong:
        of_another_cpu(amd=False)(monkeypatch)
    one = asked(Here(guest, memory, cpu))
    below = int((one.cases.address < np.uint64(1 << 39)).sum())
    assert one.found.disagreed == (below if wrong else 0) and below > 5
    assert bool(one.found.quirks[QUIRKS[by_rules.BIT_8].name]) is not wrong


# ---- one space, every oracle ----


def test_a_space_is_compared_and_a_question_about_it_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = of_layout(4, BOCHS, ())
    built = TableImage.of(one.memory, one.cpu.roots)
    [probed] = compare_space(one.guest, one.memory, one.cpu)
    assert probed.compared > 500 and not probed.disagreed and not probed.news
    places = np.array([0x40_0018, 0x40_2000], np.uint64)
    [more] = compare_space(one.guest, one.memory, one.cpu, places=places)
    asked_there = of_places(one.cpu, one.memory, places, ())
    assert more.compared == probed.compared + len(asked_there)
    left = TableImage.of(one.memory, one.cpu.roots)
    assert (left.address == built.address).all(), "the window is taken out again"
    assert not ((left.words ^ built.words) & ~np.uint64(0x60)).any()
    question = (0x40_0000, Access(Kind.READ, user=False))
    for ac in (False, True):  # SMAP keeps the supervisor from a user page, but with AC
        found = compare_one(one.guest, one.memory, one.cpu, PROBE, *question, ac)
        assert (found.compared, found.disagreed) == (1, 0)
        assert bool(one.guest.last.vector) is not ac
    one.guest.otherwise = opposite
    found = compare_one(one.guest, one.memory, one.cpu, PROBE, *question, True)
    [wrong] = found.disagreements
    assert (wrong.address, wrong.access, wrong.flags) == (*question, AC)
    root = root_for(one.cpu, Virtual(question[0]))
    assert root is not None and wrong.walk is not None
    assert wrong.walk.physical == walk(one.memory, root, Virtual(question[0])).physical
    [whole] = compare_space(one.guest, one.memory, one.cpu)
    assert all(each.walk is not None for each in whole.disagreements)


def test_a_page_that_holds_pdptes_is_not_marked() -> None:
    """TCG reads them at every walk, and no page need map what was loaded."""
    one = of_mode("pae", BOCHS, ())
    pdptes = one.memory.octets[one.cpu.cr3 :][:32].copy()
    [found] = compare_space(one.guest, one.memory, one.cpu)
    assert found.compared > 100 and not found.disagreed, found.disagreements
    assert found.not_comparable["a table is not code"] > 0
    assert (pdptes == one.memory.octets[one.cpu.cr3 :][:32]).all()


def test_places_in_the_window_are_counted_and_not_asked() -> None:
    one = of_layout(4, BOCHS, ())
    with validate._window(one.guest, one.memory, one.cpu) as window:
        inside = np.array([window.span.first + 0x1000, window.span.last - 7], np.uint64)
    [found] = compare_space(one.guest, one.memory, one.cpu, places=inside)
    [plain] = compare_space(one.guest, one.memory, one.cpu)
    assert found.not_comparable - plain.not_comparable == {"the stub runs there": len(inside)}
    assert found.compared == plain.compared


def test_a_root_that_is_not_the_caller_s_is_refused() -> None:
    one = of_layout(4, BOCHS, ())
    for cr3 in (ARENA.start, one.guest.ram.size, 1 << 63):
        with pytest.raises(Misuse, match="CR3"):
            compare_space(one.guest, one.memory, replace(one.cpu, cr3=cr3))


def test_the_window_has_all_tables_of_the_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    one, given = of_layout(4, BOCHS, ()), list[TableAllocator]()
    opened = open_window

    def noted(memory: Any, cpu: Any, image: Any, allocator: TableAllocator) -> Any:
        given.append(allocator)
        return opened(memory, cpu, image, TableAllocator(memory, Span.of(56 * MIB, MIB)))

    monkeypatch.setattr(validate, "open_window", noted)
    with validate._window(one.guest, one.memory, one.cpu):
        arena, tables = one.guest.image.table_arena, list[int]()
        with pytest.raises(SpaceError):
            while True:
                tables.append(given[0].allocate(one.cpu.format, 0).address)
    assert set(tables) == {*arena[::0x1000]}


def test_pvm_is_given_a_sample_and_places_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    """It interprets: so few that the rest is counted."""
    one = of_layout(4, BOCHS, ())
    [every] = compare_space(one.guest, one.memory, one.cpu)
    monkeypatch.setattr(validate, "executor", lambda guest: ("kvm_pvm", (6, 18, 44)))
    monkeypatch.setattr(validate, "PROBES_IN_SOFTWARE", 50)
    left_out = "not asked: kvm_pvm executes a sample"
    places = np.array([0x40_0018], np.uint64)
    count = len(of_places(one.cpu, one.memory, places, ()))
    [few] = compare_space(one.guest, one.memory, one.cpu)
    whole = every.compared + every.not_comparable.total()
    assert few.not_comparable[left_out] == whole - 50
    assert few.compared + few.not_comparable.total() == whole
    [more] = compare_space(one.guest, one.memory, one.cpu, places=places)
    assert more.compared == few.compared + count


class Debugger:
    """One that was asked for questions."""

    given: tuple[Any, ...] = ()

    def __init__(self, *given: Any, only: int | None = None) -> None:
        Debugger.given = (*given, only)

    def questions(self, written: TableImage, thorough: bool = False) -> dict[str, Any]:
        Debugger.given += (len(written.address), thorough)
        return {name: lambda name=name: Comparison(name, 1) for name in ("a", "b")}


def test_a_monitor_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = of_layout(4, BOCHS, ())
    states = list[Any]()

    @contextmanager
    def parked(state: Any) -> Iterator[str]:
        states.append(state)
        yield "the monitor"

    one.guest.has_monitor, one.guest.parked = True, parked
    monkeypatch.setattr(validate, "Debugger", Debugger)
    count = len(TableImage.of(one.memory, one.cpu.roots).address)
    for thorough in (False, True):
        found = compare_space(one.guest, one.memory, one.cpu, thorough=thorough)
        assert [each.oracle for each in found] == [PROBE, "a", "b"]
        monitor, cpu, memory, span, only, tables, asked_so = Debugger.given
        assert (monitor, cpu, memory, only, asked_so) == (
            *("the monitor", one.cpu, one.memory, None),
            thorough,
        )
        # The window's way in is there by then.
        assert count <= tables <= count + 4
        assert span.size == one.guest.ram.size and states[-1].window == span.first
    found_b = compare_one(one.guest, one.memory, one.cpu, "b", 0x1000, None, False)
    assert (found_b.oracle, Debugger.given[4]) == ("b", 0x1000)
    with pytest.raises(KeyError):
        compare_one(one.guest, one.memory, one.cpu, "c", 0x1000, None, False)


def test_a_layout_is_validated_in_a_guest_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended, clock = list[Any](), list[Any](), iter([10.0, 13.5, 20.0, 21.0])

    @contextmanager
    def new(engine: str, **named: Any) -> Iterator[Any]:
        started.append((engine, named))
        guest = ByRules(engine, (9, 9), (), info_of(Processor(), "la57"), named["ram_bytes"])
        yield guest
        ended.append(guest)

    monkeypatch.setattr(validate, "Guest", new)
    monkeypatch.setattr(validate, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    layout = load(find("smallest"))
    report = validate.validate(layout, 4, "bochs", program="there")
    assert started == [
        (
            "bochs",
            {
                "ram_bytes": layout.ram,
                "cpu": None,
                "program": "there",
                "deadline": DEADLINE,
            },
        )
    ]
    assert len(ended) == 1
    assert (report.layout, report.levels, report.engine, report.qemu) == (layout, 4, "bochs", "9.9")
    assert report.skipped is None and report.seconds == 3.5
    assert [each.oracle for each in report.comparisons] == [PROBE] and report.compared > 50
    assert len(report.not_run_on) == 1
    skipped = validate.validate(layout, 5, "bochs")
    assert skipped.skipped == "the engine's processor has no five-level paging (LA57)"
    assert skipped.comparisons == ()


WIDE: Final = (
    'title = "wide"\nlevels = [4]\nram = "64M"\n[cpu]\n{}\n[[map]]\nvirtual = 0x1000\nsize = "4K"\n'
)


def test_the_processor_is_what_a_layout_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    version = [(3, 0)]
    started = list[str]()

    def present(engine: str, program: str | None) -> Any:
        started.append(engine)
        return SimpleNamespace(executor=(engine, version[0]))

    monkeypatch.setattr(validate, "present", present)

    def wanted(cpu: str, engine: str) -> str | None:
        return validate._processor(parse(WIDE.format(cpu), "wide.toml"), engine, None)

    can_be = {name: engine_named(name).processor for name in ("tcg", "kvm", "bochs")}
    assert wanted("", "tcg") is None
    assert wanted("maxphyaddr = 46", "tcg") == can_be["tcg"](Processor(46))
    assert "46" in str(wanted("maxphyaddr = 46", "tcg"))
    assert wanted("maxphyaddr = 46", "kvm") is None
    assert wanted("lass = true", "tcg") is None
    assert not started, "none is started in vain"
    assert wanted("lass = true", "bochs") == can_be["bochs"](Processor(lass=True)) is not None
    version[0] = (2, 7)
    assert wanted("lass = true", "bochs") is None
