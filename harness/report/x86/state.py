"""The state of an x86 CPU, in words and as what JSON can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.inspect.decode import Role
from harness.inspect.x86 import cr3
from harness.paging.x86.cpu import Cpu, Mode


def root(_: int) -> str:
    """The register that leads to the root."""
    return "CR3"


_REGISTERS: Final = ("cr0", "cr3", "cr4", "efer", "pkru", "pkrs")
_REST: Final = ("ac", "maxphyaddr", "page1gb", "pse36", "lam", "amd", "c_bit", "shared_bit")
"""Fields of a CPU state that are bits, and those that are not."""


def notes(cpu: Cpu) -> Iterator[str]:
    """What there is to know of a state before anything that is said of its tables, a sentence
    each."""
    if not cpu.wp:
        yield (
            "CR0.WP=0, so the supervisor writes to every page that it can reach, whatever the"
            " entries withhold (SDM volume 3A, 4.6.1)."
        )
    if cpu.lass:
        yield (
            "CR4.LASS=1, so the user reaches nothing of the upper half of the addresses, and the"
            " supervisor executes nothing of the lower, whatever the entries grant (SDM volume 3A,"
            " linear-address-space separation)."
        )


def root_text(cpu: Cpu) -> str:
    """CR3, and where it has other bits than an address, where it leads and what these are."""
    rest = list(_rest(cpu))
    if not rest:
        return f"CR3 {cpu.cr3:#x}"
    what = "PDPTEs" if cpu.mode is Mode.PAE else "root"
    return f"CR3 {cpu.cr3:#x} ({what} at {cpu.base:#x}; {', '.join(rest)})"


def _rest(cpu: Cpu) -> Iterator[str]:
    """What the bits of CR3 are that are no part of the address."""
    given = [part for part in reversed(cr3.read(cpu).parts) if part.value]
    for part in given:
        if part.name == "PCID":
            yield f"PCID {part.value:#x}"
        elif part.name not in ("address", "reserved") and part.role is not Role.IGNORED:
            which = f"the {part.name} bit" if part.role is Role.MARK else part.name
            yield f"{part.value << part.low:#x} is {which}"
    rest = {
        "reserved": (part for part in given if part.name == "reserved"),
        "ignored": (part for part in given if part.role is Role.IGNORED),
    }
    for name, parts in rest.items():
        if left := sum(part.value << part.low for part in parts):
            yield f"{left:#x} is {name}"


def rows(cpu: Cpu) -> Iterator[tuple[str, str]]:
    """The registers of a state, and what they hold."""
    yield "CR0", f"{cpu.cr0:#x}"
    yield "CR3", root_text(cpu).removeprefix("CR3 ")
    yield "CR4", f"{cpu.cr4:#x}"
    yield "EFER", f"{cpu.efer:#x}"
    yield "MAXPHYADDR", str(cpu.maxphyaddr)


def as_object(cpu: Cpu) -> dict[str, Any]:
    """A CPU state."""
    return {
        "mode": cpu.mode.value,
        **{name: hex(getattr(cpu, name)) for name in _REGISTERS},
        "root": hex(cpu.base),
        **{name: getattr(cpu, name) for name in _REST},
        "pdptes": [hex(raw) for raw in cpu.pdptes] if cpu.mode is Mode.PAE else None,
    }


def rootless(_: Mapping[str, Any]) -> dict[str, Any]:
    """What of that is another where it is not known where the root is."""
    return {"cr3": None, "root": None}
