"""Translations of addresses as lines of text and as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.check.keys import in_units
from harness.inspect import architecture
from harness.inspect.architecture import never_withheld
from harness.inspect.decode import Role, named
from harness.inspect.translation import Differing, Index, Stage, Translation
from harness.paging.bulk import End
from harness.paging.entry import Absent
from harness.paging.format import Format
from harness.paging.processor import Cpu
from harness.paging.walk import Walk
from harness.report import decode
from harness.report.decode import flags, raw_text, says
from harness.report.objects import rule_name, slot_object
from harness.report.text import HEAD, aligned, all_digits, rights, words

_ENDS = {
    End.LEAF: "page",
    End.ABSENT: "absent",
    End.MALFORMED: "malformed",
    End.UNBACKED: "unbacked",
    End.NO_ROOT: "no-root",
}
"""What ends of walks are called in objects."""


def translation_lines(cpu: Cpu, found: Translation) -> Iterator[str]:
    """What becomes of an address: the answer, how the address splits, every step, and what the
    page is like."""
    yield f"{found.asked:#x}: {_answer(found)}"
    if found.address != found.asked:
        masking = architecture.of(cpu).masking
        yield f"  masked    data accesses use {found.address:#x} ({masking}), fetches do not"
    form = "canonical" if found.canonical else "not canonical"
    yield f"  form      {form}: {found.why}"
    yield from labelled("address", _split_lines(found.indices))
    yield from labelled("walk", stage_lines(found))
    yield from labelled("ignored", _unchecked_lines(found))
    yield from labelled("page", _page_lines(cpu, found))
    yield from likely_lines(found)
    yield from linux_lines(found)


def likely_lines(found: Translation) -> Iterator[str]:
    """What entries on the way that make no sense probably are."""
    for stage in found.stages:
        said = list(stage.likely)
        if said:
            said[0] = f"the {stage.reading.name}: {said[0]}"
        yield from labelled("likely", said)


def linux_lines(found: Translation) -> Iterator[str]:
    """What Linux keeps in the entries on the way, where that was asked."""
    kept = [(stage.reading.name, stage.linux.said) for stage in found.stages if stage.linux]
    yield from labelled("to Linux", (f"{name}: {said}" for name, said in kept))


def as_object(cpu: Cpu, found: Translation) -> dict[str, Any]:
    """A translation as what JSON can hold."""
    format, effective = found.cpu.format, found.effective | never_withheld(cpu)
    unbacked = found.walk.unbacked if found.walk and not found.given else None
    return {
        "virtual": hex(found.asked),
        "translated": hex(found.address),
        "canonical": found.canonical,
        "why": found.why,
        "split": [_index_object(index) for index in found.indices],
        "steps": [
            {
                "slot": slot_object(stage.slot) if stage.slot and stage.placed else None,
                "rights": rights(format, stage.granted),
                "taken": words(format.rights_of(stage.taken)),
                **decode.as_object(stage.reading, stage.linux, stage.likely),
            }
            for stage in found.stages
        ],
        "unbacked": unbacked and slot_object(unbacked),
        "end": "not-given" if _unknown(found) else _ENDS[found.end],
        "rule": found.reason and rule_name(found.reason),
        "reason": found.reason and found.reason.value,
        "physical": None if found.physical is None else hex(found.physical),
        "size": found.leaf and found.leaf.size,
        "in_memory": found.backed,
        "rights": rights(format, found.granted) if found.leaf else None,
        "effective_rights": rights(format, effective) if found.leaf else None,
        "memory_type": found.memory_type and found.memory_type.name,
    }


def agreement_lines(title: str, found: Sequence[Differing], tables: Translation) -> Iterator[str]:
    """Whether tables hold the entries of a report."""
    if tables.walk and tables.walk.unbacked and not tables.walk.steps:
        table = tables.walk.unbacked.table
        yield (
            f"{title} has no memory at {table.address:#x}, where the root's table would be: is it"
            " of this crash?"
        )
        return
    if not any(one.other is None or one.bits for one in found):
        yield f"{title} holds the same entries."
        return
    yield f"{title} holds other entries now:"
    rows: list[Sequence[str]] = [("level", "entry", "in the text", "in the tables", "differing")]
    for one in found:
        reading, other = one.reading, "not reached"
        if one.other is not None:
            other = all_digits(one.other, reading.entry_bytes)
        named = [part.name for part in reversed(reading.parts) if part.mask & one.bits]
        told = " ".join(dict.fromkeys(named)) if one.other is not None else ""
        rows.append((str(reading.counted), reading.name, raw_text(reading), other, told))
    yield from (f"  {line}" for line in aligned(rows))


def agreement_object(title: str, found: Sequence[Differing]) -> dict[str, Any]:
    """The same as what JSON can hold."""
    return {
        "source": title,
        "same": not any(one.other is None or one.bits for one in found),
        "entries": [
            {
                "level": one.reading.level,
                "entry": one.reading.name,
                "raw": hex(one.reading.raw),
                "tables": None if one.other is None else hex(one.other),
            }
            for one in found
        ],
    }


def _answer(found: Translation) -> str:
    leaf, physical = found.leaf, found.physical
    if leaf is not None and physical is not None:
        return f"{physical:#x}, in a {in_units(leaf.size)} page"
    if found.unrooted:
        return f"unknown: {root_lacking(found.unrooted)}"
    if found.walk and _unknown(found):
        return f"unknown: the {_missing(found.walk)} is not given"
    if found.walk and (slot := found.walk.unbacked):
        why = f"{slot if found.partly else slot.table} lies outside memory"
    else:
        assert found.reason is not None
        why = found.reason.value
    level = found.walk and found.cpu.format.number(found.walk.level)
    return f"no translation{'' if level is None else f' at level {level}'}: {why}"


def root_lacking(register: str) -> str:
    """That a root is not given to which a register leads."""
    return f"the root that serves it is not given (--{register})"


def _unknown(found: Translation) -> bool:
    """Whether the walk ends where no entry was given."""
    return found.given is not None and found.end is End.UNBACKED


def _missing(walk: Walk) -> str:
    """What the entry is called that a walk needs and that is not given."""
    slot = walk.unbacked
    assert slot is not None
    return slot.table.format.levels[slot.level].name


def _split_lines(indices: Sequence[Index]) -> list[str]:
    return aligned(
        [
            [one.name for one in indices],
            [f"{one.high}:{one.low}" for one in indices],
            [str(one.value) if one.level is not None else f"{one.value:#x}" for one in indices],
        ]
    )


def stage_lines(found: Translation) -> list[str]:
    """Every entry on the way, with the rights that are left after it; none where there is none."""
    rows = stage_rows(found)
    return aligned(rows) if len(rows) > 1 else []


def stage_rows(found: Translation) -> list[Sequence[str]]:
    """The same as cells, below those of HEAD."""
    format = found.cpu.format
    rows: list[Sequence[str]] = [HEAD]
    for stage in found.stages:
        reading = stage.reading
        slot = "register" if stage.slot is None else f"{stage.slot.address:#x}"
        if not stage.placed:
            slot = "not known"
        rows.append(
            (
                *(str(reading.counted), reading.name, slot),
                *(raw_text(reading), says(reading), flags(reading)),
                _rights(format, stage),
            )
        )
    unbacked = found.walk.unbacked if found.walk else None
    if unbacked is not None:
        level, name = str(format.number(unbacked.level)), format.levels[unbacked.level].name
        why = "not given" if found.given else "no memory there"
        rows.append((level, name, f"{unbacked.address:#x}", "", why, "", ""))
    return rows


def _rights(format: Format, stage: Stage) -> str:
    if isinstance(stage.reading.entry, Absent):
        return ""
    taken = " ".join(words(format.rights_of(stage.taken)))
    return " ".join(rights(format, stage.granted)) + (f" (withholds {taken})" if taken else "")


def _unchecked_lines(found: Translation) -> Iterator[str]:
    """What entries hold where the manual wants zeros, and no processor looks."""
    for stage in found.stages:
        odd = [part for part in named(stage.reading, Role.UNCHECKED) if part.value]
        if odd:
            held = sum(part.value << part.low for part in odd)
            yield f"{held:#x} in the {stage.reading.name}: {odd[0].reason}"


def _page_lines(cpu: Cpu, found: Translation) -> Iterator[str]:
    """What else there is to know of the page, if there is one."""
    kept, leaf = found.memory_type, found.leaf
    if leaf is None:
        return
    if kept is not None:
        yield f"memory type {kept.name}: {kept.said}"
    for part in named(found.stages[-1].reading, Role.KEY):
        yield f"protection {part.meaning}"
    if ineffective := found.cpu.format.rights_of(found.granted & ~found.effective):
        has = "have" if ineffective[1:] else "has"
        yield f"{' and '.join(words(ineffective))} {has} no effect: {found.why_ineffective}"
    if kept_rights := found.cpu.format.rights_of(never_withheld(cpu) & ~found.granted):
        yield f"the supervisor can {' and '.join(kept_rights)} all the same: CR0.WP=0"
    if found.backed is False:
        yield no_memory(found, found.physical or 0)


def no_memory(found: Translation, physical: int) -> str:
    """That there is no memory at a physical address, and whose it is as far as one can say."""
    if found.partial:
        return f"{physical:#x} is not in the file: a device's, nobody's, or memory left out of it"
    return f"there is no memory at {physical:#x}: it is a device's, or nobody's"


def _index_object(index: Index) -> dict[str, Any]:
    return {
        "level": index.level,
        "name": index.name,
        "bits": f"{index.high}:{index.low}",
        "value": index.value,
    }


def labelled(label: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines, the first after a label and the others below it."""
    for number, line in enumerate(lines):
        yield f"  {'' if number else label:8}  {line}".rstrip()
