"""What accesses come to, what would let them pass, and faults that were seen: as lines of text and
as objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from harness.check.keys import in_units
from harness.inspect import decode
from harness.inspect.decode import Role
from harness.inspect.fault import Explanation, Reproduction, SeenFault
from harness.inspect.translation import Stage, Translation
from harness.inspect.x86.likely import destination
from harness.inspect.x86.remedy import EntryChange, Missing, Remedy, Setting
from harness.paging.entry import Leaf
from harness.paging.table import Slot
from harness.paging.x86 import formats
from harness.paging.x86.access import (
    Access,
    Allowed,
    Error,
    Fault,
    Outcome,
    Reason,
    Unbacked,
)
from harness.paging.x86.cpu import Cpu, Cr4, canonical_halves
from harness.report import translation
from harness.report.decode import bits_object, bits_text, raw_text
from harness.report.objects import rule_name, slot_object, span_object
from harness.report.text import aligned, all_digits
from harness.report.translation import (
    labelled,
    likely_lines,
    linux_lines,
    no_memory,
    stage_lines,
)

ALTERNATIVES: Final = 3
"""Remedies that are shown as text; an object has all."""


def explanation_lines(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """One access: what it comes to, by which rule and probable cause, what would let it pass, and
    the walk."""
    yield from why_lines(one)
    yield from change_lines(cpu, one)
    yield from walk_lines(cpu, one)


def why_lines(one: Explanation) -> Iterator[str]:
    """What an access comes to, in a line, why, and what the entries were probably meant to be."""
    yield f"{one.access} at {one.translation.asked:#x}: {_comes_to(one)}"
    if isinstance(one.outcome, Allowed) and one.translation.backed is False:
        yield from labelled("memory", [no_memory(one.translation, one.outcome.physical)])
    yield from labelled("rule", _rule(one.outcome))
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
    if isinstance(one.outcome, Allowed):
        return
    if not one.remedies:
        yield from labelled("change", _hopeless(cpu, one))
    for label, remedy in zip(("change", "or", "or"), one.remedies[:ALTERNATIVES], strict=False):
        yield from labelled(label, remedy_lines(cpu, one.translation, remedy))
    more = len(one.remedies) - ALTERNATIVES
    if more > 0:
        yield from labelled("or", [f"{more} more, which --json shows"])


def walk_lines(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """The walk of an access, and what Linux keeps in its entries."""
    yield from labelled("walk", stage_lines(cpu.format, one.translation))
    yield from linux_lines(one.translation)


def outcome_text(outcome: Outcome) -> str:
    """What an access comes to, on one line."""
    if isinstance(outcome, Allowed):
        return f"allowed, reaches {outcome.physical:#x}"
    if isinstance(outcome, Fault):
        code = f"error code {outcome.error:#x}"
        spelled = error_text(outcome.error)
        cr2 = "CR2 stays" if outcome.cr2 is None else f"CR2 {outcome.cr2:#x}"
        return f"#{outcome.vector.name}, {code}{f' ({spelled})' if spelled else ''}, {cr2}"
    table = outcome.slot.table
    return (
        f"unknown, for the level-{outcome.slot.level} table at {table.address:#x} lies outside"
        " memory"
    )


def _comes_to(one: Explanation) -> str:
    """What an access comes to, as far as the entries are known that were given."""
    if one.translation.given and isinstance(one.outcome, Unbacked):
        slot = one.outcome.slot
        return f"unknown, for the {slot.table.format.levels[slot.level].name} is not given"
    return outcome_text(one.outcome)


def _elsewhere(one: Explanation) -> Iterator[str]:
    """What machines make of an access whose walk leads outside memory."""
    for there in one.elsewhere:
        told = outcome_text(there.outcome)
        yield f"where such memory reads as {there.read} ({there.who}): {told}"


def _otherwise(one: Explanation) -> Iterator[str]:
    """What an access comes to where what was assumed is not so."""
    for there in one.otherwise:
        yield f"{there.instead} ({there.assumed} is assumed): {outcome_text(there.outcome)}"


def error_text(code: int) -> str:
    """The names of the bits set in an error code."""
    return " ".join(str(flag.name) for flag in Error if code & flag)


def accesses_lines(cpu: Cpu, explained: Sequence[Explanation]) -> Iterator[str]:
    """What several accesses to one address come to, a line each; where it is not canonical, also
    which address may be meant."""
    yield f"{explained[0].translation.asked:#x}"
    rows: list[Sequence[str]] = [("access", "outcome", "rule")]
    for one in explained:
        rows.append((str(one.access), _comes_to(one), "; ".join(_rule(one.outcome))))
    yield from (f"  {line}" for line in aligned(rows))
    other = {there.instead: there.assumed for one in explained for there in one.otherwise}
    yield from labelled(
        "unless",
        (
            f"{instead} ({assumed} is assumed), by which outcomes differ: --access shows each"
            for instead, assumed in other.items()
        ),
    )
    if all(_is_not_canonical(one.outcome) for one in explained):
        yield from labelled("change", _hopeless(cpu, explained[0]))
    yield from dict.fromkeys(line for one in explained for line in _pointer_lines(one))
    yield from likely_lines(explained[0].translation)
    yield from linux_lines(explained[0].translation)


def remedy_lines(cpu: Cpu, found: Translation, remedy: Remedy) -> Iterator[str]:
    """One change in all its parts, and what it opens besides."""
    after = remedy.applied_to(cpu)
    for entry in remedy.entries:
        values = f"{_raw(entry, entry.old)} -> {_raw(entry, entry.new)}"
        yield f"{entry.name}{_at(found, entry.slot)}: {values}"
        yield f"  {_deeds(after, entry)}"
        yield from _vanishing(found, *entry.slots)
        if entry.flush:
            yield "  flush it from the TLB: the old entry may still be used"
    for setting in remedy.settings:
        yield f"{setting.name}: {_before_and_after(setting)}"
        yield f"  {_opens(setting)}"
    if remedy.missing is not None:
        yield from missing_lines(found, remedy.missing)
        if remedy.missing.slot is not None:
            yield from _vanishing(found, remedy.missing.slot)
    if remedy.unread is not None:
        table = remedy.unread.table
        yield (
            f"  what lies there was not read: with a level-{table.level} table at"
            f" {table.address:#x} the access may pass or not"
        )
    elif remedy.in_memory is False:
        assert remedy.reaches is not None
        yield f"  {no_memory(found, remedy.reaches)}"
    if remedy.suspect:
        yield "  the address in the entry is suspect: this may not be the place that was meant"


def _vanishing(found: Translation, *slots: Slot) -> Iterator[str]:
    """That entries cannot be changed by a store where they are."""
    if any(slot.address in span for slot in slots for span in found.rom):
        yield "  it lies in ROM, where the store vanishes: the table must be put into RAM first"


def seen_lines(seen: SeenFault, cr2: int | None) -> Iterator[str]:
    """What an error code says, bit by bit."""
    where = "" if cr2 is None else f", CR2 {cr2:#x}"
    names = error_text(seen.code) or ("see below" if seen.code else "no bit set")
    yield f"#PF, error code {seen.code:#x} ({names}){where}"
    rows = [(bits_text(bit), bit.name, str(bit.value), bit.meaning) for bit in seen.bits]
    yield from (f"  {line}" for line in aligned([("bit", "name", "value", "meaning"), *rows]))
    said = list(dict.fromkeys(_without_implicit(access) for access in seen.accesses))
    yield from labelled("access", [" or ".join(said)])
    yield from labelled("never", seen.impossible)
    if seen.quirk is not None:
        yield from labelled(
            "quirk",
            (
                f"{seen.quirk.name}, of {seen.quirk.engine.upper()} in QEMU",
                seen.quirk.departs,
                seen.quirk.evidence,
            ),
        )
    yield from labelled("note", seen.hints)


def comparison_lines(cpu: Cpu, found: Reproduction) -> Iterator[str]:
    """Whether the tables as they are would give a fault that was seen."""
    given = any(one.translation.given for one in (*found.giving, *found.instead))
    tables = "These entries" if given else "The tables as they are"
    if found.giving:
        yield f"{tables} give this fault."
    else:
        yield f"{tables} do not give this fault. It may be that"
    yield from (f"  - {sentence}" for sentence in found.explanations)
    for one in found.giving or found.instead:
        yield ""
        yield from explanation_lines(cpu, one)


def as_object(cpu: Cpu, one: Explanation) -> dict[str, Any]:
    """One access as what JSON can hold."""
    return {
        "access": str(one.access),
        **_outcome_object(one.outcome),
        "because": [_place_object(stage) for stage in one.to_blame],
        "sets": [{**_place_object(stage), "name": flag} for stage, flag in one.noted],
        "pointer": one.pointer,
        "otherwise": [
            {"assumed": there.assumed, "instead": there.instead, **_outcome_object(there.outcome)}
            for there in one.otherwise
        ],
        "remedies": [_remedy_object(one.translation, remedy) for remedy in one.remedies],
        "elsewhere": [
            {"reads": there.read, "who": there.who, **_outcome_object(there.outcome)}
            for there in one.elsewhere
        ],
        "translation": translation.as_object(cpu, one.translation),
    }


def seen_object(seen: SeenFault, cr2: int | None, rip: int | None) -> dict[str, Any]:
    """A fault that was seen as what JSON can hold."""
    return {
        "error": hex(seen.code),
        "cr2": None if cr2 is None else hex(cr2),
        "rip": None if rip is None else hex(rip),
        "parts": [bits_object(bit) for bit in seen.bits],
        "raised_by": [str(access) for access in seen.accesses],
        "impossible": list(seen.impossible),
        "quirk": seen.quirk and seen.quirk.name,
        "hints": list(seen.hints),
    }


def _rule(outcome: Outcome) -> list[str]:
    if not isinstance(outcome, Fault):
        return []
    level = "" if outcome.level is None else f", at level {outcome.level}"
    return [f"{outcome.reason.value}{level}"]


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
    return f"{_place(stage)}, level {stage.reading.level}, holds {raw_text(stage.reading)}"


def _is_not_canonical(outcome: Outcome) -> bool:
    return isinstance(outcome, Fault) and outcome.reason is Reason.NOT_CANONICAL


def _hopeless(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """Why no change helps."""
    if isinstance(one.outcome, Unbacked) and one.translation.given:
        yield "none that is known without that entry"
        return
    if isinstance(one.outcome, Unbacked):
        yield "none of the tables: CR3 must lead to a root's table in memory"
        return
    if not _is_not_canonical(one.outcome):
        yield "none that leaves tables and pages where they are"
        return
    if one.pointer:
        yield "none of the tables: the address is wrong, and what holds it must be mended"
        return
    top = formats.address_bits(cpu.levels) - 1
    address = one.translation.address
    low = address & formats.bits(top, 0)
    meant = low | formats.bits(63, top) if address >> top & 1 else low
    yield f"none of the tables: the address itself must be another, {meant:#x} by its lower bits"
    if any(address in half for half in canonical_halves(5)):
        yield "it is canonical with five levels (CR4.LA57=1, set before paging is switched on)"


def _raw(entry: EntryChange, raw: int) -> str:
    return all_digits(raw, entry.slot.table.format.entry_bytes)


_SET: Final = {
    "W": "sets W: opens {} to writes",
    "U": "sets U: opens {} to the user",
    "D": "sets D: makes {} a shadow stack",
}
_CLEARED: Final = {
    "W": "clears W: closes {} to ordinary writes",
    "U": "clears U: keeps {} for the supervisor, closed to the user",
    "XD": "clears XD: opens {} to fetches",
}
"""What changing a bit does to the addresses that the entry serves."""


def _deeds(cpu: Cpu, entry: EntryChange) -> str:
    """What a change does, and to which addresses."""
    changed, level = entry.old ^ entry.new, entry.slot.level
    size, made = in_units(entry.span.size), entry.slot.table.format.decode(entry.new, level)
    what = f"this {size} page"
    if not isinstance(made, Leaf):
        what = f"all {size} of {entry.span}, as far as lower entries allow,"
    said: list[str] = []
    for slot in entry.slots:
        for part in decode.read(cpu, entry.old, slot.level).parts:
            if not part.mask & changed or part.role is Role.IGNORED:
                continue
            if part.role is Role.KEY:
                said.append(f"gives {{}} key {formats.key_of(entry.new)}")
            elif part.mask == formats.PS:
                said.append(f"clears PS: the entry leads to {destination(made)}")
            elif part.wrong and changed & formats.ADDRESS:
                wrong = changed & ~formats.PS
                said.append(f"clears reserved {wrong:#x}: the entry leads to {destination(made)}")
            elif part.wrong:
                said.append(f"clears reserved {part.mask & changed:#x}: makes {{}} reachable")
            elif deed := (_SET if entry.new & part.mask else _CLEARED).get(part.name):
                given = part.name == "U" and entry.new & part.mask
                said.append(f"{deed}{_taken(cpu)}" if given else deed)
    said = list(dict.fromkeys(said))
    return "; ".join(one.format("it" if number else what) for number, one in enumerate(said))


def _taken(cpu: Cpu) -> str:
    """What giving a page to the user takes from the supervisor (SDM volume 3A, 4.6.1)."""
    lost = {"fetches (SMEP)": Cr4.SMEP, "data accesses with EFLAGS.AC=0 (SMAP)": Cr4.SMAP}
    named = " and ".join(what for what, bit in lost.items() if cpu.cr4 & bit)
    return f", and closes it to the supervisor's {named}" if named else ""


_OPENS: Final = {
    "CR0.WP": "lets the supervisor write to every read-only page",
    "CR4.SMEP": "lets the supervisor execute every user page that may be executed",
    "CR4.SMAP": "lets the supervisor access every user page",
    "CR4.LASS": "opens each half of the addresses to what the other's code may do by the tables",
    "EFLAGS.AC": "lets explicit supervisor accesses reach every user page, until it is cleared",
    "EFER.NXE": "gives XD its meaning in every entry",
    "CR4.PSE": "gives PS its meaning in every PDE: 4M pages",
}
"""What changing a control bit does besides."""


def _opens(setting: Setting) -> str:
    if setting.name in _OPENS:
        return _OPENS[setting.name]
    pages = "user" if setting.register == "pkru" else "supervisor"
    return f"opens every {pages} page of the key"


def _before_and_after(setting: Setting) -> str:
    """The bits in a register, and the register."""
    changed = setting.old ^ setting.new
    bit = f"{int(bool(setting.old & changed))} -> {int(bool(setting.new & changed))}"
    return bit if setting.register == "ac" else f"{bit} ({setting.old:#x} -> {setting.new:#x})"


def missing_lines(found: Translation, missing: Missing, page: int | None = None) -> Iterator[str]:
    """What must be made, entry by entry; `page` is the page's own, where its address is known."""
    index = {one.level: one.value for one in found.indices}
    for number, entry in enumerate(missing.entries):
        target = "the address of a page" if entry.page else "the address of a new table"
        if number:
            place = f"in that table, entry {index[entry.level]} ({entry.name})"
        elif missing.slot is None:
            place = f"{entry.name} {index[entry.level]}, in memory at CR3, which is loaded again"
        else:
            place = f"{entry.name}{_at(found, missing.slot)}, now {missing.old:#x}"
        if entry.page and page is not None:
            yield f"{place}: {page:#x}"
        else:
            yield f"{place}: {entry.bits:#x} | {target}"


def _without_implicit(access: Access) -> str:
    return str(access).removeprefix("implicit ")


def _outcome_object(outcome: Outcome) -> dict[str, Any]:
    fault = outcome if isinstance(outcome, Fault) else None
    return {
        "outcome": _OUTCOMES[type(outcome)],
        "physical": hex(outcome.physical) if isinstance(outcome, Allowed) else None,
        "vector": fault and fault.vector.name,
        "error": fault and hex(fault.error),
        "error_bits": fault and error_text(fault.error).split(),
        "cr2": None if fault is None or fault.cr2 is None else hex(fault.cr2),
        "level": fault and fault.level,
        "rule": fault and rule_name(fault.reason),
        "reason": fault and fault.reason.value,
    }


_OUTCOMES: Final = {Allowed: "allowed", Fault: "fault", Unbacked: "unknown"}


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
