"""Walks and disagreements as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import TYPE_CHECKING

from harness.architectures import USUAL
from harness.check.keys import LETTERS, in_units
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.format import Format, Level
from harness.paging.walk import Step, Walk
from harness.report.visible import visible

# What is named in annotations alone is imported for them alone: much comes with it, and the first
# line of a command is to come at once.
if TYPE_CHECKING:
    from harness.check.compare import Answer, Comparison, Disagreement
    from harness.check.quirk import Quirk
    from harness.check.replay import Case
    from harness.report.run import Finding

HEAD = ("level", "entry", "slot", "raw", "meaning", "bits", "rights so far")


def emulator(engine: str, version: str) -> str:
    """The emulator that ran an engine, with its version where it came up far enough to have one; of
    an engine that is unknown, QEMU."""
    from harness.machine.registry import engines_of

    engines = engines_of(USUAL)
    maker = engines[engine].maker if engine in engines else "QEMU"
    return f"{maker} {version}".rstrip()


def ran_on(engine: str, version: str) -> str:
    """An engine and the emulator that ran it."""
    return f"{engine}, {emulator(engine, version)}"


def finding_lines(finding: Finding) -> Iterator[str]:
    """A disagreement of a validation: what was asked, both answers, the walk, and the case."""
    space = finding.space
    mode = space.layout.mode(space.levels)
    where = f"{space.layout.name}, {mode}, {ran_on(space.engine, space.qemu)}"
    question, *answers = disagreement_lines(finding.disagreement)
    yield f"{where}, {question}"
    yield from answers
    yield from answer_lines(finding.answers)
    if finding.case is not None:
        yield f"  replay    pagetable replay {finding.case}"


def disagreement_lines(found: Disagreement) -> Iterator[str]:
    """What was asked, what the disagreement may come from, both answers, and the whole walk."""
    yield question(found)
    if found.hint:
        yield f"  hint      {found.hint}"
    yield f"  expected  {found.expected}"
    yield f"  observed  {found.observed}"
    if found.walk is not None:
        for label, line in zip_longest(["walk"], walk_lines(found.walk), fillvalue=""):
            yield f"  {label:8}  {line}"


def question(found: Disagreement) -> str:
    """What was asked, and of which oracle."""
    access = f"{found.access} at " if found.access else ""
    flags = " with " + " and ".join(sorted(found.flags)) + " set" if found.flags else ""
    return f"{found.oracle}: {access}{found.address:#x}{flags}"


def walk_lines(walk: Walk) -> list[str]:
    """Every step of a walk: slot, raw value, meaning, and rights as they accumulate."""
    return aligned(walk_rows(walk))


def walk_rows(walk: Walk) -> list[Sequence[str]]:
    """The same as cells, below those of HEAD."""
    format = walk.root.table.format
    granted = format.rights_mask
    rows: list[Sequence[str]] = [HEAD]
    for step in walk.steps:
        granted &= format.granted(step.raw, step.slot.level)
        rows.append(_step(format, step, granted))
    for slot, why in (walk.unbacked, "no memory there"), (walk.outside, "not in the table"):
        if slot is not None:
            name = format.levels[slot.level].name
            number = str(format.number(slot.level))
            rows.append((number, name, f"{slot.address:#x}", "", why, "", ""))
    return rows


def _step(format: Format, step: Step, granted: int) -> tuple[str, ...]:
    here = format.levels[step.slot.level]
    return (
        str(format.number(step.slot.level)),
        here.name,
        f"{step.slot.address:#x}",
        all_digits(step.raw, format.entry_bytes),
        meaning(format, step),
        "" if isinstance(step.entry, Absent) else " ".join(set_bits(here, step.raw)),
        " ".join(rights(format, granted)) if step.raw != here.empty else "",
    )


def all_digits(raw: int, entry_bytes: int) -> str:
    """An entry of this width in hexadecimal digits, zeros in front too."""
    return f"{raw:#0{2 + 2 * entry_bytes}x}"


def meaning(format: Format, step: Step) -> str:
    """What an entry says."""
    entry = step.entry
    if isinstance(entry, Absent):
        odd = format.levels[step.slot.level].reserved
        why = (one.reason for one in odd if one.pattern.matches(step.raw))
        return ": ".join(("not present", *why))
    if isinstance(entry, Malformed):
        return "reserved: " + ", ".join(map(str, format.malformed(step.raw, step.slot.level)))
    if isinstance(entry, Leaf):
        return f"{in_units(entry.size)} page at {entry.address:#x}"
    assert isinstance(entry, Pointer)
    return f"table at {entry.table.address:#x}"


TABLES = {
    "PML5E": "PML5",
    "PML4E": "PML4",
    "PDPTE": "PDPT",
    "PDE": "page directory",
    "PTE": "page table",
}
"""What tables are called, by the names of their entries."""


def table_name(level: Level) -> str:
    """What a table of this level is called."""
    return TABLES.get(level.name, f"{level.name} table")


def digit_runs(format: Format, level: Level, raw: int) -> list[tuple[str, bool]]:
    """The digits of an entry that is present, in pieces: what belongs to its address, and what
    does not."""
    mask = sum(field.mask for field in level.shape(raw).address)
    digits = f"{raw:0{2 * format.entry_bytes}x}"
    inside = [bool(mask >> 4 * place & 0xF) for place in reversed(range(len(digits)))]
    pairs = groupby(zip(digits, inside, strict=True), key=itemgetter(1))
    return [("".join(digit for digit, _ in run), is_address) for is_address, run in pairs]


def set_bits(level: Level, raw: int) -> Iterator[str]:
    """The names of the bits that are set and no part of the address; of a field, its value too."""
    shape = level.shape(raw)
    for name, mask in shape.bits.items():
        value = (raw & mask) // (mask & -mask)
        if value and not mask & shape.address_mask:
            yield bits_name(name, mask, value)


def bits_name(name: str, mask: int, value: int) -> str:
    """What bits that are set are called; of a field, its value too."""
    return name if mask.bit_count() == 1 else f"{name}={value}"


def marked_bits(format: Format, step: Step) -> Iterator[tuple[str, bool]]:
    """The bits of a present entry that people look for, by name, and whether they are set: rights,
    accessed and dirty, and of the others those that are set."""
    here = format.levels[step.slot.level]
    looked_for = format.rights_mask | format.accessed | here.presence
    looked_for |= format.dirty if isinstance(step.entry, Leaf) else 0
    names = set(set_bits(here, step.raw))
    for name, mask in here.shape(step.raw).bits.items():
        said = next((one for one in names if one.partition("=")[0] == name), None)
        if said is not None or mask & looked_for:
            yield said or name, said is not None


def rights(format: Format, granted: int) -> list[str]:
    """Rights by their names; where it is not one of the format's, so that nothing withholds it,
    every page can be read, or executed."""
    read = [] if "read" in format.rights else ["read"]
    withheld = any(name.endswith("execute") for name in format.rights)
    execute = [] if withheld else ["execute"]
    return [*read, *words(format.rights_of(granted)), *execute]


def words(names: Iterable[str]) -> list[str]:
    """The names of rights as one word each, as conditions on pages have them."""
    return [name.replace(" ", "-") for name in names]


def letters(format: Format, granted: int, kept: int = 0) -> str:
    """Rights as four letters: user, read, write, execute, and a fifth where the supervisor has a
    right of its own to execute; `-` for one that is not given, and a capital for one that entries
    withhold and the supervisor keeps."""
    found = {
        (letter := LETTERS[name]): letter
        if granted & bit
        else letter.upper()
        if kept & bit
        else "-"
        for name, bit in format.rights.items()
    }
    # A format without a right to execute, or to read, cannot take it away.
    usual = {"u": "-", "r": "r", "w": "-", "x": "x", "k": ""}
    return "".join(found.get(letter, otherwise) for letter, otherwise in usual.items())


def counted(count: int, what: str) -> str:
    """A number of things: "1 entry", "2 entries", "2 addresses"."""
    plural = (
        f"{what[:-1]}ies"
        if what.endswith("ry")
        else f"{what}{'es' if what.endswith(('s', 'sh')) else 's'}"
    )
    return f"{count:,} {what if count == 1 else plural}"


def agreeing(count: int, what: str, *, all_of_them: bool = True) -> str:
    """That these agree: "All 5 answers agree", "1 answer agrees"."""
    if not count:
        return f"No {what} was compared"
    if count == 1:
        return f"1 {what} agrees"
    return f"{'All ' if all_of_them else ''}{counted(count, what)} agree"


def disagreeing(wrong: int, count: int, what: str) -> str:
    """That some of these disagree: "2 of 5 answers disagree", "1 of 5 answers disagrees"."""
    return f"{wrong:,} of {counted(count, what)} {'disagrees' if wrong == 1 else 'disagree'}"


def limited(count: int, what: str, limit: int) -> Iterator[str]:
    """That not all of these are shown, where there are more than the limit."""
    if count > limit:
        yield f"Only the first {limit:,} of {count:,} {what} are shown (--limit)."


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def assumed_lines(assumed: Sequence[str]) -> Iterator[str]:
    """What was taken to be so, where something was."""
    if assumed:
        yield ""
        yield f"Assumed: {'; '.join(assumed)}."


def quirk_lines(counts: Mapping[str, int], known: Mapping[str, Quirk]) -> Iterator[str]:
    """Each known departure that showed: how often, what it is, and how that is known.

    known  by name
    """
    from harness.machine.machine import dotted

    for name, count in counts.items():
        quirk = known[name]
        yield f"{name}: {counted(count, 'time')}"
        yield f"  rule      {quirk.rule}"
        yield f"  departs   {quirk.departs}"
        yield f"  evidence  {quirk.evidence}"
        yield f"  runs of   {', '.join(map(dotted, quirk.runs))}"


def every_engine_lines(
    titles: Iterable[str], answers: Iterable[tuple[Answer, ...]]
) -> Iterator[str]:
    """What every engine says of questions, each with its title; nothing where none was asked."""
    heading: tuple[str, ...] = ("", "What every engine says", "")
    for title, some in zip(titles, answers, strict=False):
        if some:
            yield from heading
            heading = ("",)
            yield visible(title)
            yield from answer_lines(some)


def answer_lines(answers: Iterable[Answer]) -> Iterator[str]:
    """What every engine said of a case, a line each."""
    some = tuple(answers)
    width = max((len(one.executor) for one in some), default=0)
    for one in some:
        yield visible(f"  on {one.executor:{width}}  {one.said}")


def replay_lines(case: Case, comparison: Comparison, known: Mapping[str, Quirk]) -> Iterator[str]:
    """What a case asked, the answers that were saved, and those of now."""
    yield from case_lines(case)
    yield ""
    for found in comparison.disagreements:
        yield "They disagree now:"
        yield from list(disagreement_lines(found))[1:]
    if not comparison.disagreed:
        yield "They agree now."
    yield from quirk_lines(comparison.quirks, known)


def case_lines(case: Case) -> Iterator[str]:
    """What a case asked, and the answers that were saved."""
    yield visible(case.title)
    yield visible(f"  saved with {emulator(case.engine, case.qemu)}")
    yield visible(f"  expected  {case.expected}")
    yield visible(f"  observed  {case.observed}")
