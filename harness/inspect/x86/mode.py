"""An x86 CPU of which no more is known than its paging mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness.inspect.snapshot import QuestionError
from harness.inspect.x86.likely import highest_bit, narrower
from harness.paging.entry import Entry
from harness.paging.x86.cpu import Cpu, Cr4, Efer, Mode

OFF = ("no_nxe", "no_pge", "no_keys", "no_pse")
"""What can be off of all that changes how entries read."""

OPTIONS = frozenset((*OFF, "no_pse36", "no_page1gb", "maxphyaddr", "amd", "c_bit", "shared_bit"))
"""What `in_mode` can be given."""


def in_mode(mode: str, given: Mapping[str, Any]) -> Cpu:
    """A CPU in the mode, with all that changes how entries read but what is off.

    given  of OPTIONS: what is off, and fields of `Cpu`

    Raises QuestionError for a state that no machine can be in.
    """
    long = mode in (Mode.LEVEL_4.value, Mode.LEVEL_5.value)
    keys = Cr4.PKE | Cr4.PKS if long else Cr4(0)
    cr4 = {"no_pge": Cr4.PGE, "no_pse": Cr4.PSE, "no_keys": keys}
    on = sum(bit for name, bit in cr4.items() if name not in given)
    cpu = Cpu.in_mode(Mode(mode), 0, cr4=on, efer=0 if "no_nxe" in given else Efer.NXE)
    cpu = replace(cpu, page1gb="no_page1gb" not in given, pse36="no_pse36" not in given)
    rest = {name: given[name] for name in given if not name.startswith("no_")}
    try:
        cpu = replace(cpu, **rest)
        cpu.format  # noqa: B018 - refuses a MAXPHYADDR that it cannot have
    except ValueError as error:
        raise QuestionError(str(error)) from None
    return cpu


def assumed(cpu: Cpu, given: Mapping[str, Any], entries: Iterable[Entry]) -> Iterator[str]:
    """What is assumed where entries are read, a sentence each."""
    if "maxphyaddr" not in given:
        wide = highest_bit(*entries)
        yield f"MAXPHYADDR is {cpu.maxphyaddr} (--maxphyaddr){narrower(wide)}"
