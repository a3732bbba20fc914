"""What commands print with `--json`: one object, of a form that stays.

version  of the form: it grows by one when a key changes its meaning or goes away, never when one
         is added
command  which command printed it
source   what was looked at, for people
assumed  what the source does not tell and was taken to be so, a sentence each

Addresses, entries and masks are hexadecimal strings; counts, sizes in bytes and levels numbers.
"""

from __future__ import annotations

from typing import Any, Final

from harness.inspect.snapshot import Snapshot
from harness.paging.address import Span
from harness.paging.table import Slot

VERSION: Final = 1


def answer(command: str, snapshot: Snapshot, **content: Any) -> dict[str, Any]:
    """The object that a command prints of a snapshot, with its own keys after the common ones."""
    assumed = list(snapshot.assumed)
    return bare(command, source=snapshot.title, assumed=assumed, **content)


def bare(command: str, **content: Any) -> dict[str, Any]:
    """The object that a command prints without having looked at a source."""
    return {"version": VERSION, "command": command, **content}


def slot_object(slot: Slot) -> dict[str, Any]:
    """A slot: its table, by address and level, and its index there."""
    return {"table": hex(slot.table.address), "level": slot.level, "index": slot.index}


def span_object(span: Span) -> dict[str, Any]:
    """A span: its first and its last address."""
    return {"first": hex(span.first), "last": hex(span.last)}
