"""What arm64 adds to the rules about spaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from harness.inspect.decode import Reading
from harness.inspect.lint import Breaks, Need, Rule
from harness.inspect.snapshot import Snapshot
from harness.paging.arm64.cpu import Cpu

SECTIONS: Final = {
    "reserved-bits": "address size fault",
    "write-execute": "memory access control",
    "mixed-types": "mismatched memory attributes",
}
"""Where the Arm ARM speaks of a rule."""

CHANGED: Final[Mapping[str, Rule]] = {}

LEFT_OUT: Final = frozenset({"global-user"})
"""A page is global that lacks nG, and Linux marks those of every process with it."""

RULES: Final[tuple[tuple[str, Rule, Breaks], ...]] = ()
NEEDS: Final[tuple[Rule, ...]] = ()
KEEPS: Final = ""


def globals(_: Cpu) -> bool:
    """Whether the bit nG means something: always."""
    return True


def halved(_: Cpu) -> bool:
    """Whether the user reaches nothing of the upper half, whatever entries give."""
    return False


def lower(_: Cpu, __: Reading) -> str:
    """What an entry is in a table of a lower level: its type tells no more."""
    return ""


def needs(_: Snapshot) -> Iterable[Need]:
    """What a processor needs and is not mapped so: nothing that registers here tell."""
    return ()
