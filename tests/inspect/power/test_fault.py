"""Why accesses fault on POWER, that each remedy helps, and what interrupts that were seen say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.inspect import architecture
from harness.inspect.fault import explain, explain_all
from harness.inspect.overlay import Overlay
from harness.inspect.power.fault import code_of, compare, seen
from harness.inspect.power.remedy import remedies
from harness.inspect.remedy import Remedy
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Virtual
from harness.paging.memory import BigEndianMemory
from harness.paging.power.access import (
    Access,
    Allowed,
    Fault,
    Interrupt,
    Kind,
    Reason,
    Unbacked,
    outcome,
    status_of,
)
from harness.paging.power.cpu import Cpu
from harness.report.fault import accesses_lines, explanation_lines
from tests.cli.commands import run
from tests.inspect.power.handmade import GIVING, PRIV, READ, ROOT, RW, TREE, C, L, R, V, X

ADDRESS = Virtual(0x40_5123)
ACCESSES = [Access(kind, user) for kind in Kind for user in (False, True)]
TABLES = (0x2_3000, 0x2_2000, 0x2_1000, ROOT)
"""From level 0 up."""

SHIFTS = (12, 21, 30, 39)


def memory_of(raws: dict[int, int], size: int = 9) -> BigEndianMemory:
    """Tables with one of the entries on the way of ADDRESS each, by levels; those that are left out
    are as they should be."""
    shifts, bits = ((16, 5) if size == 5 else (12, 9)), (9, 9, 13)
    memory = BigEndianMemory(np.zeros(0x3_0000, np.uint8))
    for level, table in enumerate(TABLES):
        shift, width = shifts if not level else (SHIFTS[level], bits[level - 1])
        good = (
            V | L | 0x800_0000 | GIVING
            if not level
            else V | TABLES[level - 1] | (size if level == 1 else 9)
        )
        index = ADDRESS >> shift & (1 << width) - 1
        memory.store(table + 8 * index, 8, raws.get(level, good))  # type: ignore[arg-type]
    return memory


def cpus() -> Iterator[Cpu]:
    for amr, iamr, sets in ((0, 0, False), (1, 1, True), (2, 0, False), (3, 1, False)):
        yield Cpu(TREE | ROOT, amr=amr << 62, iamr=iamr << 62, sets_marks=sets)


CPU = Cpu(TREE | ROOT, sets_marks=False)


def snapshot(cpu: Cpu, raws: dict[int, int], size: int = 9) -> Snapshot:
    memory = memory_of(raws, size)
    return Snapshot("tables", cpu, memory, (memory.span,))


def drawn(seed: str, count: int) -> Iterator[dict[int, int]]:
    source = random.Random(seed)
    for _ in range(count):
        level = source.choice((0, 0, 0, 1, 2, 3))
        raw = source.getrandbits(9) | 0x800_0000 | source.choice((V | L, V | L, V, 0))
        yield {level: raw}


@pytest.mark.parametrize("size", [5, 9])
@pytest.mark.parametrize("cpu", [*cpus()], ids=lambda cpu: f"{cpu.amr:#x}-{cpu.sets_marks}")
def test_each_remedy_lets_the_access_pass_and_none_of_its_bits_is_too_many(
    cpu: Cpu, size: int
) -> None:
    helped = 0
    for raws in drawn(f"{cpu} {size}", 25):
        where = snapshot(cpu, raws, size)
        for access in ACCESSES:
            before = outcome(cpu, where.memory, ADDRESS, access)
            if isinstance(before, Allowed):
                assert remedies(cpu, where.memory, ADDRESS, access)[0].cost == 0
                continue
            found = remedies(cpu, where.memory, ADDRESS, access)
            assert found, (raws, access, before)
            assert all(explanation_lines(cpu, explain(where, ADDRESS, access)))
            for one in found:
                assert one.missing is not None or passes(cpu, where, access, one)
                for less in lessened(one):
                    assert one.missing is not None or not passes(cpu, where, access, less)
            helped += 1
    assert helped > 50


def passes(cpu: Cpu, where: Snapshot, access: Access, one: Remedy) -> bool:
    words: dict[int, int] = {
        slot.address: change.new for change in one.entries for slot in change.slots
    }
    laid = Overlay(where.memory, words)
    return isinstance(outcome(one.applied_to(cpu), laid, ADDRESS, access), Allowed)


def lessened(one: Remedy) -> Iterator[Remedy]:
    for number, change in enumerate(one.entries):
        for bit in range(64):
            if (change.old ^ change.new) >> bit & 1:
                less = replace(change, new=change.new ^ 1 << bit)
                rest = one.entries[number + 1 :]
                yield replace(one, entries=(*one.entries[:number], less, *rest))


PAGE = V | L | 0x800_0000


@pytest.mark.parametrize(
    ("raw", "access", "new"),
    [
        (PAGE | PRIV | R | READ, Access(Kind.READ, True), PAGE | R | READ),
        (PAGE | READ, Access(Kind.READ, True), PAGE | R | READ),
        (PAGE | R | READ, Access(Kind.WRITE, False), PAGE | R | C | READ | RW),
        (PAGE | R | READ, Access(Kind.FETCH, False), PAGE | R | READ | X),
        (PAGE | R | READ | X | 1 << 5, Access(Kind.FETCH, True), PAGE | R | READ | X),
        (V | 0x800_0000 | R | READ, Access(Kind.READ, True), PAGE | R | READ),
    ],
)
def test_the_first_remedy_is_the_smallest(raw: int, access: Access, new: int) -> None:
    found = remedies(CPU, memory_of({0: raw}), ADDRESS, access)[0]
    assert [(one.old, one.new) for one in found.entries] == [(raw, new)]
    assert not found.settings and not found.unprotects


def test_key_0_is_offered_behind_the_page() -> None:
    keyed = replace(CPU, amr=3 << 62)
    found = remedies(keyed, memory_of({}), ADDRESS, Access(Kind.WRITE, False))
    assert [bool(one.entries) for one in found] == [True, False]
    assert found[1].unprotects and found[1].settings[0].new == 1 << 62
    text = "\n".join(explanation_lines(keyed, explain(snapshot(keyed, {}), ADDRESS, ACCESSES[2])))
    assert "lets privileged code use data of every page of problem state" in text


def test_what_is_missing_is_made_with_the_bits_that_the_access_needs() -> None:
    [found] = remedies(CPU, memory_of({1: 0}), ADDRESS, Access(Kind.WRITE, True))
    assert found.missing is not None
    made = [(one.level, one.bits, one.page) for one in found.missing.entries]
    assert made == [(1, V | 9, False), (0, V | L | R | C | RW, True)]


@pytest.mark.parametrize(
    ("cpu", "address", "reason", "said"),
    [
        (CPU, 1 << 52, Reason.SEGMENT, "the address itself must be another, 0x0 by its quadrant"),
        (replace(CPU, quadrant0=None, quadrant3=TREE | ROOT), 0, Reason.NO_PROCESS, "an entry for"),
        (replace(CPU, quadrant0=TREE ^ 1 | ROOT), 0, Reason.BAD_TREE, "a tree of 52 bits"),
        (replace(CPU, hv=False), 1 << 62, Reason.SEGMENT, "only quadrants 0 and 3 have trees"),
    ],
)
def test_no_change_helps_where_no_entry_is_read(
    cpu: Cpu, address: int, reason: Reason, said: str
) -> None:
    where = Snapshot("tables", cpu, memory_of({}), None)
    for access in ACCESSES:
        found = explain(where, Virtual(address), access)
        assert isinstance(found.outcome, Fault) and found.outcome.reason is reason
        assert found.remedies == () and found.to_blame == ()
        assert said in "\n".join(explanation_lines(cpu, found))
    lines = [*accesses_lines(cpu, explain_all(where, Virtual(address), ACCESSES))]
    assert len(lines) >= len(ACCESSES)


def test_an_address_of_two_stages_is_refused() -> None:
    for address in (1 << 62, 2 << 62):
        with pytest.raises(QuestionError, match="a hypervisor translates in two stages"):
            explain(snapshot(CPU, {}), Virtual(address), ACCESSES[0])


def test_a_table_without_memory_is_a_machine_check() -> None:
    where = snapshot(CPU, {1: V | 0x100_0000 | 9})
    found = explain(where, ADDRESS, ACCESSES[0])
    assert isinstance(found.outcome, Unbacked)
    text = "\n".join(explanation_lines(CPU, found))
    assert "a machine check, for no memory is at 0x1000028" in text
    assert found.remedies and found.remedies[0].missing is not None


# ---- interrupts that were seen ----


def statuses(cpu: Cpu, raws: dict[int, int]) -> Iterator[tuple[Access, Fault]]:
    for access in ACCESSES:
        found = outcome(cpu, memory_of(raws), ADDRESS, access)
        if isinstance(found, Fault):
            yield access, found


def test_each_interrupt_that_tables_give_is_reproduced_by_its_registers() -> None:
    count = 0
    for raws in drawn("seen", 60):
        for access, fault in statuses(CPU, raws):
            name = "srr1" if access.kind is Kind.FETCH else "dsisr"
            msr = 0x9000_0000_0000_D033 if access.user else 0x9000_0000_0000_9033
            status = fault.status | (msr if name == "srr1" else 0)
            told = seen(code_of(name, hex(status)))
            assert (told.interrupt, told.status) == (fault.interrupt, fault.status)
            assert access in told.accesses
            found = compare(snapshot(CPU, raws), told, ADDRESS)
            assert access in [one.access for one in found.giving]
            by_vector = compare(snapshot(CPU, raws), seen(hex(fault.interrupt)), ADDRESS)
            assert access in [one.access for one in by_vector.giving]
            count += 1
    assert count > 100


def test_why_tables_do_not_give_an_interrupt() -> None:
    where = snapshot(CPU, {})
    found = compare(where, seen("dsisr 0x0a000000"), ADDRESS)
    assert not found.giving
    said = "\n".join(found.explanations)
    assert "a privileged write gives it with AMR that denies under key 0 (--amr)" in said
    assert "may keep a translation until tlbie" in said
    marked = compare(
        snapshot(replace(CPU, sets_marks=True), {0: PAGE | READ}), seen("0x40000"), ADDRESS
    )
    assert "a processor that leaves R and C to software" in "\n".join(marked.explanations)
    other = compare(where, seen("0x42000000"), ADDRESS, named=[Access(Kind.READ, True)])
    assert "a problem-state read is allowed there" in other.explanations[0]


@pytest.mark.parametrize("vector", ["0x380", "0x480"])
def test_a_segment_interrupt_is_put_down_to_the_address_alone(vector: str) -> None:
    (said,) = compare(snapshot(CPU, {}), seen(vector), ADDRESS).explanations
    assert said.startswith("it was of another address")


def test_what_srr1_says_of_a_fetch_that_is_denied_names_each_rule_of_it() -> None:
    (said,) = seen("srr1 0x10000000").said
    for rule, words in (
        (Reason.EXECUTE_DENIED, "EAA3=0"),
        (Reason.PRIVILEGED, "EAA0=1 in problem state"),
        (Reason.GUARDED, "guarded storage"),
        (Reason.KEY, "key 0 of IAMR"),
    ):
        assert status_of(Kind.FETCH, rule) == 0x1000_0000
        assert words in said


def test_a_state_that_gives_an_interrupt_is_named_and_no_other() -> None:
    """DSISR with protection (0x08000000) and a store (0x02000000); SRR1 without execution; R clear
    (0x00040000)."""
    keyed = replace(CPU, amr=3 << 62, iamr=1 << 62)
    sets = replace(CPU, sets_marks=True)
    for cpu, raws, status, named in (
        (CPU, {}, "dsisr 0x0a000000", "a privileged write gives it with AMR that denies under key"),
        (CPU, {}, "dsisr 0x08000000", "a privileged read gives it with AMR that denies under key"),
        (CPU, {}, "srr1 0x10000000", "a privileged fetch gives it with IAMR that denies under key"),
        (CPU, {}, "dsisr 0x42000000", None),
        (keyed, {0: PAGE | R | C | READ}, "srr1 0x10000000", None),
        (keyed, {0: PAGE | READ}, "srr1 0x50000000", None),
        (replace(sets, amr=2 << 62), {0: PAGE | READ}, "dsisr 0x48000000", None),
        (sets, {0: PAGE | READ}, "0x40000", "a processor that leaves R and C to software"),
        (replace(CPU, amr=1 << 62), {0: PAGE | RW}, "dsisr 0x0a000000",
         "a privileged write gives it with AMR that denies under key 0"),
        (replace(CPU, amr=3 << 62, sets_marks=True), {0: PAGE | PRIV}, "dsisr 0x00040000", None),
    ):  # fmt: skip
        found = compare(snapshot(cpu, raws), seen(status), ADDRESS)
        said = "\n".join(found.explanations)
        if named:
            assert not found.giving and named in said, (status, raws)
        else:
            assert "gives it with" not in said, (status, raws)


def test_of_a_status_each_bit_that_is_set_is_said_and_no_other() -> None:
    for bit in range(32):
        told = seen(f"dsisr {0x4000_0000 | 1 << bit:#x}")
        said = [int(one.partition(":")[0], 16) for one in told.said if one.startswith("0x")]
        assert said.count(0x4000_0000) == 1
        assert set(said) == {0x4000_0000, 1 << bit}
        assert ("not a store" in told.said) == (bit != 25)
    bits = "dsisr 0x40000001"
    assert seen(bits).said[-1] == "0x00000001: not known here"


def test_what_srr1_holds_of_the_msr_tells_the_state_and_is_no_cause() -> None:
    """Bits 33 to 36 and 42 to 47, 0x783f0000, are of the interrupt; PR is bit 49, 0x4000."""
    for bit in range(64):
        held = 0x4000_0000 | 1 << bit
        told = seen(f"srr1 {held:#x}")
        assert told.held == held and told.status == held & 0x783F_0000
        users = {access.user for access in told.accesses}
        of_msr = not 0x783F_0000 >> bit & 1
        assert users == ({bit == 14} if of_msr else {True, False}), bit
        said = {int(one.partition(":")[0], 16) for one in told.said if one.startswith("0x")}
        assert said == {0x4000_0000} | (set() if of_msr else {1 << bit})


def test_each_register_names_what_its_own_accesses_depend_on() -> None:
    """AMR is of data and IAMR of fetches, whichever bit speaks of protection."""
    for bit in range(17, 31):
        for name, other in (("dsisr", "IAMR"), ("srr1", "AMR")):
            said = " ".join(seen(f"{name} {0x4000_0000 | 1 << bit:#x}").said)
            assert other not in said.replace(":", " ").split(), (name, bit)
    assert "AMR" in " ".join(seen("dsisr 0x08000000").said)
    assert "IAMR" in " ".join(seen("srr1 0x08000000").said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0x500", "vector 0x500 is no fault of translation"),
        ("0xe00", "vector 0xe00 is of the second stage"),
        ("0xe20", "vector 0xe20 is of the second stage"),
        ("dsisr 0", "DSISR 0x0 says nothing of a failed access"),
        ("srr1 0x9033", "SRR1 0x9033 says nothing of a failed access"),
        ("dsisr 0x12345678901234567", "which is no number of 64 bits"),
        ("banana", "banana"),
    ],
)
def test_what_is_no_interrupt_of_translation_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(QuestionError) as raised:
        seen(text)
    assert said in str(raised.value)


def test_the_vector_names_the_interrupt() -> None:
    for interrupt in Interrupt:
        assert seen(hex(interrupt)).interrupt is interrupt
        assert seen(f"{int(interrupt):x}").interrupt is interrupt


def test_the_command_takes_the_registers(tmp_path: Path) -> None:
    given = ("fault", "0x999000", "--layout", "power/rights")
    code, output, errors = run(*given, "--dsisr", "0x42000000", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert output.splitlines()[2].startswith(
        "data storage interrupt (0x300), DSISR 0x42000000, DAR"
    )
    assert "The tables as they are give this fault." in output
    code, output, errors = run(*given, "--dsisr", "0x00040000", cwd=tmp_path)
    assert "DSISR 0x00040000, DAR 0x999000" in output and "0x00040000: R or C" in output
    code, output, errors = run("fault", "0x9000", "--srr1", "0x50009033", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert output.startswith("instruction storage interrupt (0x400), SRR1 0x50009033, SRR0 0x9000")
    assert "privileged fetch" in output and "problem-state" not in output
    code, output, errors = run("fault", "0x1", "--layout", "linux-4", "--dsisr", "1", cwd=tmp_path)
    assert (code, output) == (2, "") and "is of x86, where --dsisr means nothing" in errors
    code, output, errors = run(*given, "--dsisr", "1", "--esr", "2", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert "--esr and --dsisr are two faults that were seen: name one of them" in errors
    three = ("--code", "1", "--dsisr", "1", "--srr1", "2")
    code, output, errors = run(*given, *three, cwd=tmp_path)
    assert (code, output) == (2, "")
    assert "--code, --dsisr and --srr1 are three faults that were seen" in errors


def test_nothing_is_promised_of_the_last_fault_of_a_file(tmp_path: Path) -> None:
    code, output, errors = run("fault", "--layout", "power/rights", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert "does not record DSISR and DAR: name the ADDRESS" in errors


def test_the_architecture_knows_what_its_leaves_give() -> None:
    asked = architecture.of(CPU)
    for eaa in range(16):
        granted = CPU.format.granted(PAGE | eaa, 0)
        for access in ACCESSES:
            found = outcome(
                replace(CPU, sets_marks=True), memory_of({0: PAGE | eaa}), ADDRESS, access
            )
            reason = found.reason if isinstance(found, Fault) else None
            assert asked.denied(CPU, access, granted, None) is reason


@pytest.mark.parametrize(("quadrant", "status"), [(0, 1 << 30), (3, 1 << 19)])
def test_nothing_is_said_of_the_quadrant_whose_tree_is_not_given(
    quadrant: int, status: int, tmp_path: Path
) -> None:
    (tmp_path / "ram").write_bytes(bytes(0x3_0000))
    address = quadrant << 62 | 0x1000
    given = ("--ram", "ram", f"--quadrant{3 - quadrant}", hex(TREE | ROOT))
    lacking = f"the root that serves it is not given (--quadrant{quadrant})"
    asked = ("fault", hex(address), "--dsisr", hex(status), *given)
    code, output, errors = run(*asked, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "Whether the tables give this fault is not known." in output
    assert f"unknown, for {lacking}" in output and "rule" not in output
    watched = ("--dsisr", hex(status | 1 << 22))  # a data watchpoint, which no tree gives
    code, output, _ = run(*asked, *watched, cwd=tmp_path)
    assert "do not give this fault" in output and "of one stage give no such cause" in output
    empty = (f"--quadrant{quadrant}", "0", "--dsisr", hex(1 << 19))
    code, output, _ = run(*asked, *empty, cwd=tmp_path)
    assert "The tables as they are give this fault." in output
    _, output, _ = run("walk", hex(address), *given, cwd=tmp_path)
    assert f"{address:#x}: unknown: {lacking}" in output
    _, output, _ = run("fault", hex(address | 1 << 60), *given, cwd=tmp_path)
    assert "data segment interrupt" in output and "unknown" not in output
