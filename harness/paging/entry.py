"""What a slot says, decoded: one of four kinds.  The raw value stays with the step of the walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.paging.address import Physical

if TYPE_CHECKING:
    from harness.paging.table import Table


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing here for the hardware; every bit but those of presence is the software's."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The next table, one level down."""

    table: Table


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page: `size` bytes at physical `address`."""

    address: Physical
    size: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """Present, but with reserved bits set: `bits` holds exactly the offending ones."""

    bits: int


Entry = Absent | Pointer | Leaf | Malformed
