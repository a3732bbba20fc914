"""The fault that a processor raised last, as its registers and its memory tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.architectures import has, module_of
from harness.inspect import architecture
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Virtual


@dataclass(frozen=True)
class Raised:
    """A fault, as far as it is known.

    address      that faulted
    instruction  where the instruction is that made the access; None where that is not known
    code         what the processor reported besides; None where that is lost
    accesses     those that may have raised it, as far as its code does not tell
    said         from where all this is, a sentence
    """

    address: Virtual
    instruction: int | None
    code: int | None
    accesses: tuple[Any, ...]
    said: str


def raised(snapshot: Snapshot, vcpu: int) -> Raised:
    """The fault that processor number `vcpu` of a snapshot raised last: `raised` of the module
    `last` of its architecture.

    Raises QuestionError where the source does not tell.
    """
    arch = snapshot.cpu.architecture
    if not has(arch, "inspect", "last"):
        called = architecture.of(snapshot.cpu).called
        raise QuestionError(f"of {called} the last fault is not looked for: name the ADDRESS")
    found: Callable[[Snapshot, int], Raised] = module_of(arch, "inspect", "last").raised
    return found(snapshot, vcpu)
