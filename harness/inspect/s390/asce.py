"""An address-space-control element, bit by bit (chapter 3, "Address-Space-Control Element")."""

from __future__ import annotations

from typing import Final

from harness.inspect.decode import Part, Register, Role
from harness.inspect.snapshot import QuestionError
from harness.paging.format import bits
from harness.paging.s390.cpu import ORIGIN, PRIVATE, REAL_SPACE, Asce, Cpu

SECTION: Final = "ASCE"

_FREE: Final = "not looked at by translation"
_PARTS: Final = (
    (ORIGIN, "origin", Role.ADDRESS),
    (bits(11, 10), "reserved", Role.IGNORED),
    (bits(9), "G", Role.IGNORED),
    (PRIVATE, "P", Role.GLOBAL),
    (bits(7), "S", Role.IGNORED),
    (bits(6), "X", Role.IGNORED),
    (REAL_SPACE, "R", Role.KIND),
    (bits(4), "reserved", Role.IGNORED),
    (bits(3, 2), "DT", Role.KIND),
    (bits(1, 0), "TL", Role.KIND),
)
"""Every bit once."""

_IGNORED: Final = {
    "G": f"of subspace groups, {_FREE}",
    "S": f"storage-alteration events, {_FREE}",
    "X": f"space-switch events, {_FREE}",
    "reserved": _FREE,
}


def read(_: Cpu, raw: int) -> Register:
    """What an ASCE says.

    Raises QuestionError for one that is wider than 64 bits, or designates real space.
    """
    try:
        asce = Asce.of(raw)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    last = asce.quarters
    said = {
        "origin": f"the root's table is at {asce.origin:#x}",
        "P": "a private space: nothing is common" if asce.private else "not private",
        "R": "tables translate",
        "DT": f"a {asce.mode.value} table",
        "TL": f"{last} of its 4 quarters {'is' if last == 1 else 'are'} there",
    }
    parts = tuple(
        Part(
            mask,
            name,
            raw & mask if role is Role.ADDRESS else (raw & mask) // (mask & -mask),
            _IGNORED[name] if role is Role.IGNORED else said[name],
            role,
            SECTION,
            _IGNORED[name] if role is Role.IGNORED else "",
        )
        for mask, name, role in _PARTS
    )
    return Register("ASCE", raw, "the root table is", asce.origin, 0, parts)
