"""What tables of RISC-V are meant to say: the rights that a hart has, SUM and MXR, types, 64K."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.inspect.expect import Unmet, accesses_of, expectations, parse, unmet
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Physical, Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.riscv.access import Access, Allowed, Kind, outcome
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode, Mstatus
from harness.paging.riscv.formats import A, D, G, N, R, U, V, W, X
from harness.paging.space import Space, TableAllocator
from harness.report.expect import unmet_lines

PAGE = 1 << 12
AT, FRAME = 0x40_0000, 0x8800_0000
LETTERS = {"r": Kind.READ, "w": Kind.WRITE, "x": Kind.FETCH}
PBMT_NC, PBMT_IO = 1 << 61, 2 << 61


class Made:
    """A space whose tables begin at the root, at 0."""

    def __init__(self, mode: Mode = Mode.SV39, **state: Any) -> None:
        self.memory = BufferMemory(np.zeros(1 << 20, np.uint8))
        allocator = TableAllocator(self.memory, self.memory.span)
        wide = mode is not Mode.SV32
        cpu = Cpu.in_mode(mode, 0, svnapot=wide, pbmte=wide, adue=True, **state)
        allocator.allocate(cpu.format, cpu.levels - 1)
        self.cpu, self.space = cpu, Space(self.memory, cpu.roots, allocator)

    def put(self, raw: int, at: int = AT, to: int = FRAME) -> None:
        """A page at level 0 whose entry holds what is given, and where it leads."""
        self.space.map(Virtual(at), np.array([to], np.uint64), 0, R).done()
        slot = self.space.slot(Virtual(at), 0)
        self.space.write(slot, to >> 2 | V | raw)

    def unmet(self, wanted: Any, strict: bool = False, **state: Any) -> list[Unmet]:
        cpu = replace(self.cpu, **state) if state else self.cpu
        snapshot = Snapshot("made", cpu, self.memory, (self.memory.span,))
        return list(unmet(snapshot, expectations(wanted, strict, "riscv")))

    def lines(self, wanted: Any, **state: Any) -> list[str]:
        cpu = replace(self.cpu, **state) if state else self.cpu
        snapshot = Snapshot("made", cpu, self.memory, (self.memory.span,))
        return list(unmet_lines(snapshot, self.unmet(wanted, **state)))


STATES: Mapping[str, Mapping[str, Any]] = {
    "usual": {},
    "SUM": {"mstatus": Mstatus.SUM},
    "MXR": {"mstatus": Mstatus.MXR},
    "SUM, MXR": {"mstatus": Mstatus.SUM | Mstatus.MXR},
    "Svade": {"menvcfg": Envcfg.PBMTE},
}


def passes(made: Made, access: Access, state: Mapping[str, Any]) -> bool:
    cpu = replace(made.cpu, **state)
    return isinstance(outcome(cpu, made.memory, Virtual(AT), access), Allowed)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("user", [0, U])
@pytest.mark.parametrize("rights", [R, R | W, X, R | X, R | W | X])
@pytest.mark.parametrize("marks", [0, A, A | D])
def test_who_can_do_what_is_what_the_rules_say(
    rights: int, user: int, marks: int, state: str
) -> None:
    made, kept = Made(), STATES[state]
    made.put(rights | user | marks)
    allowed = {one: passes(made, one, kept) for one in accesses_of("riscv")}  # type: ignore[arg-type]
    said = {
        who: "".join(
            letter for letter, kind in LETTERS.items() if allowed[Access(kind, who == "user")]
        )
        for who in ("user", "supervisor")
    }
    assert made.unmet({AT: said}, **kept) == []
    who = random.Random(rights | user | marks).choice(("user", "supervisor"))
    letter = random.Random(rights).choice("rwx")
    other = said[who].replace(letter, "") if letter in said[who] else said[who] + letter
    said[who] = "".join(one for one in "rwx" if one in other)
    (found,) = made.unmet({AT: said}, **kept)
    assert found.access == Access(LETTERS[letter], who == "user")


@pytest.mark.parametrize("state", [one for one in STATES if one != "Svade"])
@pytest.mark.parametrize(
    "letters", ["ur--", "urw-", "u--x", "ur-x", "urwx", "-r--", "-rw-", "---x"]
)
def test_rights_are_those_of_the_entry_whatever_sum_and_mxr_add(letters: str, state: str) -> None:
    bits = {"u": U, "r": R, "w": W, "x": X}
    made = Made()
    made.put(sum(bits[one] for one in letters if one in bits))
    assert made.unmet({AT: letters}, strict=True, **STATES[state]) == []
    for other in (
        ("u" if letters[0] == "-" else "-") + letters[1:],
        letters[:3] + "x-"[letters[3] == "x"],
    ):
        if set(other) - {"-", "u"}:
            assert made.unmet({AT: other}, **STATES[state]), other


def test_a_page_of_the_user_is_closed_to_the_supervisor_by_sum() -> None:
    made = Made()
    made.put(R | W | U)
    assert made.unmet({AT: "urw-"}, mstatus=Mstatus.SUM) == made.unmet({AT: "urw-"}) == []
    made.put(R | W, 0x50_0000)
    assert made.unmet({0x50_0000: "urw-"})[0].wanted == "allowed"
    wrong = [one for one in made.unmet({0x50_0000: "urw-"}) if one.wanted.startswith("denied")]
    assert [one.wanted for one in wrong] == ["denied by mstatus.SUM=0"]


def test_what_would_deny_an_access_is_an_entry_that_a_hart_reads() -> None:
    """Without R, W is reserved: no bit alone closes such a page to the supervisor's reads."""
    made = Made()
    made.put(R | X)
    (found,) = made.unmet({AT: {"supervisor": "x"}})
    assert found.change == FRAME >> 2 | V | X and "to reads" in found.does
    made.put(R | W, 0x50_0000)
    (found,) = made.unmet({0x50_0000: {"supervisor": "w"}})
    assert found.change is None
    made.put(R | W | U, 0x60_0000)
    (found,) = made.unmet({0x60_0000: {"user": "r"}})
    assert found.change == FRAME >> 2 | V | R | U
    (found,) = made.unmet({0x60_0000: {"user": ""}})
    assert found.change == FRAME >> 2 | V | R | W and "for the supervisor" in found.does


def test_memory_types_are_those_of_pbmt() -> None:
    made = Made()
    made.put(R | PBMT_NC)
    assert made.unmet({AT: {"type": "NC"}}) == []
    (found,) = made.unmet({AT: {"type": "IO"}})
    assert found.change == FRAME >> 2 | V | R | PBMT_IO and "type IO" in found.does
    (found,) = made.unmet({AT: {"type": "PMA"}})
    assert found.change == FRAME >> 2 | V | R
    with pytest.raises(QuestionError, match="no memory type: there are PMA, NC, IO"):
        made.unmet({AT: {"type": "WB"}})
    with pytest.raises(QuestionError, match="RISC-V has no PAT"):
        parse("pat = 6\nstrict = true", "x.toml", "riscv")
    small = Made(Mode.SV32)
    small.put(R)
    (found,) = small.unmet({AT: {"type": "IO"}})
    assert found.change is None


def test_a_page_of_64k_is_one_where_its_slots_say_so() -> None:
    made = Made()
    for number in range(16):
        made.put(R, AT + number * PAGE)
        slot = made.space.slot(Virtual(AT + number * PAGE), 0)
        made.space.write(slot, N | (FRAME | 0x8000) >> 2 | V | R)
    whole = Span.of(AT, 64 << 10)
    assert made.unmet({whole: {"page": "64K", "physical": FRAME}}, strict=True) == []
    (found,) = made.unmet({whole: {"page": "4K"}})
    assert found.wanted == "a 4K page"
    with pytest.raises(QuestionError, match="pages of Sv39 have 4K, 64K, 2M, 1G"):
        made.unmet({AT: {"page": "4M"}})


def test_what_is_missing_is_made_with_what_the_hart_does_not_set() -> None:
    made = Made()
    meant = {AT: ("urw-", FRAME)}
    (found,) = made.unmet(meant)
    assert found.missing is not None and found.change == FRAME >> 2 | V | R | W | U
    (found,) = made.unmet(meant, menvcfg=Envcfg.PBMTE)
    assert found.change == FRAME >> 2 | V | R | W | U | A | D
    (found,) = made.unmet({AT: ("ur--", FRAME)}, menvcfg=Envcfg.PBMTE)
    assert found.change == FRAME >> 2 | V | R | U | A
    (found,) = made.unmet({AT: {"user": "x", "type": "NC", "physical": FRAME}})
    assert found.change == FRAME >> 2 | V | X | U | PBMT_NC
    (found,) = made.unmet(
        {Span.of(AT, 64 << 10): {"rights": "-r--", "page": "64K", "physical": FRAME}}
    )
    assert found.change == (FRAME | 0x8000) >> 2 | V | R | N
    inside = {"rights": "-r--", "page": "64K", "physical": FRAME + 3 * PAGE}
    (found,) = made.unmet({AT + 3 * PAGE: inside})
    assert found.change == (FRAME | 0x8000) >> 2 | V | R | N
    (found,) = made.unmet({AT: {"user": "w"}})
    assert found.missing is None, "no entry allows a write and denies a read"
    lines = made.lines(meant)
    assert any(re.search(r"\(PTE\): 0x22000017$", line) for line in lines), lines


def test_svade_is_why_a_page_that_was_never_used_faults() -> None:
    made = Made()
    made.put(R | W | U)
    assert made.unmet({AT: "urw-"}) == []
    lines = made.lines({AT: "urw-"}, menvcfg=Envcfg.PBMTE)
    assert any("A=0, which the hart does not set (Svade; step 9)" in line for line in lines)


def test_addresses_are_those_of_the_mode() -> None:
    for mode, inside, outside in (
        (Mode.SV32, 0xFFFF_F000, 1 << 32),
        (Mode.SV39, (1 << 38) - PAGE, 1 << 38),
        (Mode.SV48, (1 << 47) - PAGE, 1 << 47),
        (Mode.SV57, (1 << 56) - PAGE, 1 << 56),
    ):
        made = Made(mode)
        assert made.unmet({inside: None}, strict=True) == []
        with pytest.raises(QuestionError, match="are no addresses here: those are 0x0"):
            made.unmet({outside: None})


def test_letters_and_levels_are_riscv_s() -> None:
    for text, why in (
        ("rights = '----'", "every page has some"),
        ("rights = 'urxw'", "write u, r, w and x in this order"),
        ("rights = 'r'\nlevels = [1]", "levels has 1: tables have one of 2, 3, 4, 5"),
        ("bits = ['PCD']", None),
    ):
        text = f"[[expect]]\nvirtual = {AT}\n{text}\n"
        if why is None:
            made = Made()
            snapshot = Snapshot("", made.cpu, made.memory, (made.memory.span,))
            with pytest.raises(QuestionError, match="bits has 'PCD'; a page of Sv39 has G"):
                unmet(snapshot, parse(text, "x.toml", "riscv"))
            continue
        with pytest.raises(QuestionError, match=why):
            parse(text, "x.toml", "riscv")
    (expect,) = parse("[[expect]]\nvirtual=0\nrights='ux'", "x.toml", "riscv").expects
    assert str(expect) == "u--x"


def test_a_table_outside_memory_is_not_taken_for_nothing() -> None:
    made = Made()
    made.put(R)
    top = made.space.slot(Virtual(AT), 2)
    made.space.write(top, 0x9000_0000 >> 2 | V)
    assert made.memory.load(Physical(0x9000_0000), 8) is None
    (found,) = made.unmet({AT: None})
    assert found.wanted == "nothing mapped"


@pytest.mark.parametrize("own", [0, G])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_page_has_g_by_any_entry_on_the_way(own: int, above: int) -> None:
    """As `dump` shows it; level 0 stands for no pointer that has it."""
    made = Made()
    made.put(R | own)
    made.put(R | own, at=AT + PAGE)
    if above:
        slot = made.space.slot(Virtual(AT), above)
        made.space.write(slot, made.space.read(slot) | G)
    lasts = bool(own or above)
    assert [bool(made.unmet({AT: {"bits": bits}})) for bits in (["G"], [])] == [not lasts, lasts]
    if not lasts:
        (one,) = made.unmet({AT: {"bits": ["G"]}})
        assert one.does == "sets G"
        return
    (one,) = made.unmet({AT: {"bits": []}})
    if above:  # no change of the page's entry takes it away
        assert (one.change, one.does) == (None, "")
        assert one.wanted == "the bits (none) (G of any entry on the way counts)"
    else:
        assert (one.wanted, one.does) == ("the bits (none)", "clears G")
    text = "\n".join(made.lines({AT: {"bits": []}}))
    assert "expected  the bits (none)" in text
