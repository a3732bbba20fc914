"""What accesses come to, and what would let them pass: as lines of text and as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, Final, Protocol

from harness.architectures import module_of
from harness.check.keys import in_units
from harness.inspect import architecture
from harness.inspect.fault import Explanation, Reproduction
from harness.inspect.remedy import EntryChange, Missing, NewEntry, Remedy, Setting
from harness.inspect.translation import Stage, Translation
from harness.inspect.trial import each
from harness.paging.address import Span
from harness.paging.processor import Cpu
from harness.paging.table import Slot
from harness.report import translation
from harness.report.decode import raw_text
from harness.report.objects import rule_name, slot_object, span_object
from harness.report.text import aligned, all_digits
from harness.report.translation import (
    labelled,
    likely_lines,
    linux_lines,
    no_memory,
    root_lacking,
    stage_lines,
)

ALTERNATIVES: Final = 3
"""Remedies that are shown as text; an object has all."""


class Faults(Protocol):
    """What the module `fault` of each architecture says of outcomes and of changes.

    REGISTER          where an entry is that a register holds
    NO_FAULT          what an access comes to that neither passes nor faults, by its class
    outcome_text      what an access comes to, on one line
    comes_to          the same of several, without what differs
    fault_object      what a fault leaves behind as what JSON can hold, null where there is none
    is_hopeless       whether it is the address itself that must be another
    hopeless          why no change helps, a sentence each
    deeds             what a change of an entry does, and to which addresses
    opens             what a change of a register does besides
    before_and_after  the bits in the register, and the register
    seen_lines        what a fault that was seen says, with its address
    seen_object       the same as what JSON can hold, with the place of the instruction
    """

    @property
    def REGISTER(self) -> str: ...  # noqa: N802
    @property
    def NO_FAULT(self) -> Mapping[type, str]: ...  # noqa: N802
    def outcome_text(self, outcome: Any, /) -> str: ...
    def comes_to(self, outcome: Any, /) -> str: ...
    def fault_object(self, fault: Any, /) -> dict[str, Any]: ...
    def is_hopeless(self, outcome: Any, /) -> bool: ...
    def hopeless(self, cpu: Any, one: Explanation, /) -> Iterator[str]: ...
    def deeds(self, cpu: Any, entry: EntryChange, /) -> str: ...
    def opens(self, setting: Setting, /) -> str: ...
    def before_and_after(self, setting: Setting, /) -> str: ...
    def seen_lines(self, seen: Any, address: int | None, /) -> Iterator[str]: ...
    def seen_object(
        self, seen: Any, address: int | None, instruction: int | None, /
    ) -> dict[str, Any]: ...


def _of(cpu: Cpu) -> Faults:
    return _named(cpu.architecture)


def _named(arch: str) -> Faults:
    found: Faults = module_of(arch, "report", "fault")
    return found


def outcome_text(cpu: Cpu, outcome: Any) -> str:
    """What an access comes to, on one line."""
    return _of(cpu).outcome_text(outcome)


def comes_to(explained: Sequence[Explanation]) -> str:
    """What accesses of one cause come to."""
    first = explained[0]
    of = _of(first.cpu)
    if first.unrooted:
        return _comes_to(first)
    return of.comes_to(first.outcome) if explained[1:] else of.outcome_text(first.outcome)


def _passes(one: Explanation) -> bool:
    return isinstance(one.outcome, architecture.of(one.cpu).allowed)


def explanation_lines(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """One access: what it comes to, by which rule and probable cause, what would let it pass, and
    the walk."""
    yield from why_lines(one)
    yield from change_lines(cpu, one)
    yield from walk_lines(one)


def seen_lines(arch: str, seen: Any, address: int | None) -> Iterator[str]:
    """What a fault of an architecture says that was seen."""
    return _named(arch).seen_lines(seen, address)


def seen_text(arch: str, seen: Any) -> str:
    """The same in a few words."""
    return next(_named(arch).seen_lines(seen, None))


def seen_object(
    arch: str, seen: Any, address: int | None, instruction: int | None
) -> dict[str, Any]:
    """The same as what JSON can hold."""
    return _named(arch).seen_object(seen, address, instruction)


def comparison_lines(cpu: Cpu, found: Reproduction) -> Iterator[str]:
    """Whether the tables as they are would give a fault that was seen."""
    given = any(one.translation.given for one in (*found.giving, *found.instead))
    tables = "These entries" if given else "The tables as they are"
    if found.giving:
        yield f"{tables} give this fault."
    elif found.depends:
        yield f"{tables} may give this fault: it depends on {found.depends}."
    elif found.unknown:
        yield "Whether the tables give this fault is not known."
    else:
        yield f"{tables} do not give this fault. It may be that"
    if found.unrooted or found.depends or not found.unknown:  # what a cut table lacks explains all
        yield from (f"  - {sentence}" for sentence in found.explanations)
    for one in found.giving or found.instead:
        yield ""
        yield from explanation_lines(cpu, one)


def why_lines(one: Explanation) -> Iterator[str]:
    """What an access comes to, in a line, why, and what the entries were probably meant to be."""
    yield f"{one.access} at {one.translation.asked:#x}: {_comes_to(one)}"
    if _passes(one) and one.translation.backed is False:
        yield from labelled("memory", [no_memory(one.translation, one.outcome.physical)])
    yield from labelled("rule", _rule(one))
    yield from labelled("machine", _elsewhere(one))
    yield from labelled("because", (_blame(stage) for stage in one.to_blame))
    yield from _pointer_lines(one)
    yield from likely_lines(one.translation)
    yield from labelled("unless", _otherwise(one))


def _pointer_lines(one: Explanation) -> Iterator[str]:
    """What the address probably is, where it was never meant as one."""
    if one.pointer:
        yield from labelled("likely", [f"the address: {one.pointer}"])


def change_lines(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """What an access that passes sets, or what would let one pass."""
    yield from labelled("sets", (f"{flag} in {_place(stage)}" for stage, flag in one.noted))
    if _passes(one):
        return
    if one.unrooted:
        yield from labelled("change", ["none is known without that root"])
    elif one.translation.given and one.translation.unknown:
        yield from labelled("change", ["none is known without that entry"])
    elif one.translation.partly:
        yield from labelled("change", ["none is known without the rest of that table"])
    elif not one.remedies:
        yield from labelled("change", _of(cpu).hopeless(cpu, one))
    for label, remedy in zip(("change", "or", "or"), one.remedies[:ALTERNATIVES], strict=False):
        yield from labelled(label, remedy_lines(cpu, one.translation, remedy))
    more = len(one.remedies) - ALTERNATIVES
    if more > 0:
        yield from labelled("or", [f"{more} more, which --json shows"])


def walk_lines(one: Explanation) -> Iterator[str]:
    """The walk of an access, and what Linux keeps in its entries."""
    yield from labelled("walk", stage_lines(one.translation))
    yield from linux_lines(one.translation)


def _comes_to(one: Explanation) -> str:
    """What an access comes to, as far as the entries are known that were given."""
    if one.unrooted:
        return f"unknown, for {root_lacking(one.unrooted)}"
    if one.translation.unknown:
        slot = one.translation.walk and one.translation.walk.unbacked
        assert slot
        if one.translation.is_cut:
            return f"unknown, for {slot} lies outside memory"
        return f"unknown, for the {slot.table.format.levels[slot.level].name} is not given"
    return outcome_text(one.cpu, one.outcome)


def _elsewhere(one: Explanation) -> Iterator[str]:
    """What machines make of an access whose walk leads outside memory."""
    for there in one.elsewhere:
        told = outcome_text(one.cpu, there.outcome)
        yield f"where such memory reads as {there.read} ({there.who}): {told}"


def _otherwise(one: Explanation) -> Iterator[str]:
    """What an access comes to where what was assumed is not so."""
    for there in one.otherwise:
        told = outcome_text(one.cpu, there.outcome)
        yield f"{there.instead} ({there.assumed} is assumed): {told}"


def accesses_lines(cpu: Cpu, explained: Sequence[Explanation]) -> Iterator[str]:
    """What several accesses to one address come to, a line each; where it is not canonical, also
    which address may be meant."""
    yield f"{explained[0].translation.asked:#x}"
    rows: list[Sequence[str]] = [("access", "outcome", "rule")]
    for one in explained:
        rows.append((str(one.access), _comes_to(one), "; ".join(_rule(one))))
    yield from (f"  {line}" for line in aligned(rows))
    other = {there.instead: there.assumed for one in explained for there in one.otherwise}
    yield from labelled(
        "unless",
        (
            f"{instead} ({assumed} is assumed), by which outcomes differ: --access shows each"
            for instead, assumed in other.items()
        ),
    )
    if all(_of(cpu).is_hopeless(one.outcome) for one in explained):
        yield from labelled("change", _of(cpu).hopeless(cpu, explained[0]))
    yield from dict.fromkeys(line for one in explained for line in _pointer_lines(one))
    yield from likely_lines(explained[0].translation)
    yield from linux_lines(explained[0].translation)


def remedy_lines(cpu: Cpu, found: Translation, remedy: Remedy) -> Iterator[str]:
    """One change in all its parts, and what it opens besides."""
    after, joined = remedy.applied_to(cpu), chain([""], repeat("and "))
    for entry in remedy.entries:
        values = f"{raw_of(entry, entry.old)} -> {raw_of(entry, entry.new)}"
        yield f"{next(joined)}{entry.name}{_at(found, entry.slot)}: {values}"
        yield from (f"  {deed}" for deed in _deeds(after, entry, found.address))
        yield from _vanishing(found, *entry.slots)
        if entry.breaks:
            yield "  make it absent and flush it first: it may not become this at once"
        elif entry.flush:
            yield "  flush it from the TLB: the old entry may still be used"
    for setting in remedy.settings:
        yield f"{next(joined)}{setting.name}: {_of(cpu).before_and_after(setting)}"
        yield f"  {_of(cpu).opens(setting)}"
    if remedy.missing is not None:
        first, *rest = missing_lines(cpu, found, remedy.missing)
        yield from (f"{next(joined)}{first}", *rest)
        if remedy.missing.slot is not None:
            yield from _vanishing(found, remedy.missing.slot)
    if remedy.unread is not None:
        yield (
            f"  what lies there was not read: with {remedy.unread.table} the access may pass or not"
        )
    elif remedy.in_memory is False:
        assert remedy.reaches is not None
        yield f"  {no_memory(found, remedy.reaches)}"
    if remedy.suspect:
        yield f"  {_suspicion(found, remedy)}"


def _suspicion(found: Translation, remedy: Remedy) -> str:
    """That the address which a change leaves in an entry may be wrong."""
    changed = {slot for entry in remedy.entries for slot in entry.slots}
    if any(stage.slot in changed and stage.likely for stage in found.stages):
        return "this only makes the entry valid: where it was meant to lead, see what is likely"
    return "the address in the entry is suspect: this may not be the place that was meant"


def _vanishing(found: Translation, *slots: Slot) -> Iterator[str]:
    """That entries cannot be changed by a store where they are."""
    if any(slot.address in span for slot in slots for span in found.rom):
        yield "  it lies in ROM, where the store vanishes: the table must be put into RAM first"


def as_object(cpu: Cpu, one: Explanation) -> dict[str, Any]:
    """One access as what JSON can hold."""
    return {
        "access": str(one.access),
        **_outcome_object(cpu, None if one.unknown else one.outcome),
        "because": [_place_object(stage) for stage in one.to_blame],
        "sets": [{**_place_object(stage), "name": flag} for stage, flag in one.noted],
        "pointer": one.pointer,
        "otherwise": [
            {
                "assumed": there.assumed,
                "instead": there.instead,
                **_outcome_object(cpu, there.outcome),
            }
            for there in one.otherwise
        ],
        "remedies": [_remedy_object(one.translation, remedy) for remedy in one.remedies],
        "elsewhere": [
            {"reads": there.read, "who": there.who, **_outcome_object(cpu, there.outcome)}
            for there in one.elsewhere
        ],
        "translation": translation.as_object(cpu, one.translation),
    }


def _outcome_object(cpu: Cpu, outcome: Any) -> dict[str, Any]:
    """What an access comes to; None where its root is not given."""
    of, passes = _of(cpu), isinstance(outcome, architecture.of(cpu).allowed)
    word = "allowed" if passes else of.NO_FAULT.get(type(outcome), "fault")
    word = "unknown" if outcome is None else word
    fault = outcome if word == "fault" else None
    return {
        "outcome": word,
        "physical": hex(outcome.physical) if passes else None,
        **of.fault_object(fault),
        "level": fault and fault.level,
        "rule": fault and rule_name(fault.reason),
        "reason": fault and fault.reason.value,
    }


def _rule(one: Explanation) -> list[str]:
    outcome = one.outcome
    if _passes(one) or one.unknown or architecture.of(one.cpu).unknown(outcome):
        return []
    if outcome.level is None:
        return [str(outcome.reason.value)]
    level = one.translation.cpu.format.number(outcome.level)
    return [f"{outcome.reason.value}, at level {level}"]


def _place(stage: Stage) -> str:
    where = " register" if stage.slot is None else f" at {stage.slot.address:#x}"
    return f"the {stage.reading.name}{where if stage.placed else ''}"


def _at(found: Translation, slot: Slot) -> str:
    """Where an entry is, if that is known."""
    unplaced = found.given is not None and slot.table.address in found.given.unplaced
    return "" if unplaced else f" at {slot.address:#x}"


def _placed(found: Translation, slot: Slot | None) -> dict[str, Any] | None:
    """The same as what JSON can hold."""
    return slot_object(slot) if slot and _at(found, slot) else None


def _blame(stage: Stage) -> str:
    return f"{_place(stage)}, level {stage.reading.counted}, holds {raw_text(stage.reading)}"


def _deeds(cpu: Cpu, entry: EntryChange, address: int) -> Iterator[str]:
    """What a change does, and to which addresses.

    Where the walk comes through the entry at several levels, a bit may mean something at one of
    them alone: it is told of the first that has words for it.
    """
    if len(entry.slots) == 1:
        yield _of(cpu).deeds(cpu, entry)
        return
    changed = dict.fromkeys(entry.slots, 0)
    at = {
        slot: replace(entry, slots=(slot,), span=Span.of(address & -slot.size, slot.size))
        for slot in entry.slots
    }
    for bit in each(entry.old ^ entry.new):
        alone = {slot: replace(one, new=entry.old ^ bit) for slot, one in at.items()}
        means = (slot for slot, one in alone.items() if _of(cpu).deeds(cpu, one))
        changed[next(means, entry.slot)] |= bit
    for slot, bits in changed.items():
        if bits:
            yield _of(cpu).deeds(cpu, replace(at[slot], new=entry.old ^ bits))


def served(entry: EntryChange, is_page: bool) -> str:
    """The addresses that an entry serves: a page's, or all of them."""
    size = in_units(entry.span.size)
    return f"this {size} page" if is_page else f"all {size} of {entry.span}"


def deeds_of(said: Iterable[str], what: str) -> str:
    """What a change does, phrases in which {} is `what`; each once."""
    return "; ".join(
        one.format("it" if number else what) for number, one in enumerate(dict.fromkeys(said))
    )


def raw_of(entry: EntryChange, raw: int) -> str:
    """An entry that changes, all of its digits."""
    return all_digits(raw, entry.slot.table.format.entry_bytes)


def missing_lines(
    cpu: Cpu, found: Translation, missing: Missing, page: int | None = None
) -> Iterator[str]:
    """What must be made, entry by entry; `page` is the page's own, where its address is known."""
    index = {one.level: one.value for one in found.indices}
    for number, entry in enumerate(missing.entries):
        target = "the address of a page" if entry.page else "the address of a new table"
        target += _shifted(found.cpu, entry)
        if number:
            place = f"in that table, entry {index[entry.level]} ({entry.name})"
        elif missing.slot is None:
            place = f"{entry.name} {index[entry.level]}, {_of(cpu).REGISTER}"
        else:
            place = f"{entry.name}{_at(found, missing.slot)}, now {missing.old:#x}"
        if entry.page and page is not None:
            yield f"{place}: {page:#x}"
        else:
            yield f"{place}: {entry.bits:#x} | {target}"


def _shifted(cpu: Cpu, entry: NewEntry) -> str:
    """By how much the address is shifted in such an entry, as one writes it in C."""
    levels = cpu.format.levels
    if entry.level >= len(levels):  # a register of PAE paging, which is no table's
        return ""
    level = levels[entry.level]
    shape = level.leaf if entry.page else level.pointer
    widest = max(shape.address, key=lambda part: part.mask.bit_count()) if shape else None
    return f" >> {widest.shift}" if widest and widest.shift else ""


def _place_object(stage: Stage) -> dict[str, Any]:
    return {
        "slot": slot_object(stage.slot) if stage.slot and stage.placed else None,
        "level": stage.reading.level,
        "entry": stage.reading.name,
        "raw": hex(stage.reading.raw),
    }


def _remedy_object(found: Translation, remedy: Remedy) -> dict[str, Any]:
    return {
        "cost": remedy.cost,
        "entries": [
            {
                "slot": _placed(found, one.slot),
                "entry": one.name,
                "old": hex(one.old),
                "new": hex(one.new),
                **span_object(one.span),
                "flush": one.flush,
                "breaks": one.breaks,
            }
            for one in remedy.entries
        ],
        "settings": [
            {
                "name": one.name,
                "register": one.register,
                "old": hex(one.old),
                "new": hex(one.new),
            }
            for one in remedy.settings
        ],
        "missing": remedy.missing and missing_object(found, remedy.missing),
        "suspect": remedy.suspect,
        "in_memory": remedy.in_memory,
        "reaches": None if remedy.reaches is None else hex(remedy.reaches),
        "unread": _placed(found, remedy.unread),
    }


def missing_object(found: Translation, missing: Missing) -> dict[str, Any]:
    """Entries that must be made as what JSON can hold."""
    return {
        "slot": _placed(found, missing.slot),
        "old": hex(missing.old),
        "entries": [
            {
                "level": one.level,
                "entry": one.name,
                "leads_to": "page" if one.page else "table",
                "new": hex(one.bits),
            }
            for one in missing.entries
        ],
    }
