"""What commands print with `--json`: one object on one line, of a form that stays.

`schema` describes every key of every command, and says what is promised of them; this module has
what the objects of several commands have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from harness.inspect import architecture
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Span
from harness.paging.processor import Cpu
from harness.paging.table import Slot
from harness.report import state

VERSION: Final = 2
"""Of the form.  With 2, AP2=0 of arm64 became AP[2]=0, `cpu.tcr` TCR_EL1 as it was given, and
`effective_rights` those that have an effect; of what no expectation names, these were
letters called `rights`."""


def answer(command: str, snapshot: Snapshot, **content: Any) -> dict[str, Any]:
    """The object that a command prints of a snapshot, with its own keys after the common ones."""
    return bare(command, **looked_at(snapshot), **content)


def bare(command: str, **content: Any) -> dict[str, Any]:
    """The object that a command prints."""
    return {"version": VERSION, "command": command, **content}


def fault_object(**content: Any) -> dict[str, Any]:
    """The object that `fault` prints, which has all keys whatever was asked."""
    keys: dict[str, Any] = {"source": None, "cpu": None, "not_given": []}
    keys |= {"assumed": [], "notes": []}
    keys |= {"report": None, "virtual": None, "seen": None, "given": None, "explanations": []}
    keys |= {"outcomes": [], "walk": None, "readings": [], "agreement": None}
    return bare("fault", **{**keys, **content})


def looked_at(snapshot: Snapshot) -> dict[str, Any]:
    """What a snapshot is of, and the CPU state in which its tables are read."""
    return {
        "source": snapshot.title,
        "cpu": _cpu_of(snapshot),
        "not_given": list(architecture.not_given(snapshot)),
        "assumed": list(snapshot.assumed),
        "notes": list(state.notes(snapshot)),
    }


def _cpu_of(snapshot: Snapshot) -> dict[str, Any]:
    """Its CPU state, without what was not given."""
    found, given = cpu_object(snapshot.cpu), snapshot.given
    if given and snapshot.cpu.base in given.unplaced:
        found |= state.of(snapshot.cpu).rootless(found)
    if names := architecture.not_given(snapshot):
        found |= state.of(snapshot.cpu).ungiven(found, names)
    return found


def cpu_object(cpu: Cpu) -> dict[str, Any]:
    """A CPU state."""
    return dict(state.of(cpu).as_object(cpu))


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Objects of one form as one: counts are added, lists are one after the other, flags hold where
    they do in all, and what all have alike is there once."""
    first, *others = parts
    if not others:
        return first
    return {key: _both([one[key] for one in parts]) for key in first}


def _both(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, bool):
        return all(values)
    if isinstance(first, int):
        return sum(values)
    if isinstance(first, dict):
        keys = dict.fromkeys(key for one in values for key in one)
        return {key: sum(one.get(key, 0) for one in values) for key in keys}
    if all(one == first for one in values):
        return first
    return [each for one in values for each in one]


def slot_object(slot: Slot) -> dict[str, Any]:
    """A slot: where it is, its table, by address and level, and its index there."""
    return {
        "address": hex(slot.address),
        "table": hex(slot.table.address),
        "level": slot.level,
        "index": slot.index,
    }


def span_object(span: Span) -> dict[str, Any]:
    """A span: its first and its last address."""
    return {"first": hex(span.first), "last": hex(span.last)}


def rule_name(reason: Enum) -> str:
    """What a rule by which accesses fault is called."""
    return reason.name.lower().replace("_", "-")
