"""The fault that a hart raised last: scause, stval and sepc, or M-mode's mcause, mtval and mepc.

Every trap writes them ("Supervisor Trap Value (stval) Register"), so that they tell a fault until
the next interrupt or system call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.inspect.last import Raised
from harness.inspect.riscv.fault import RAISING
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Virtual
from harness.paging.riscv.access import Access, Cause, Kind
from harness.paging.riscv.cpu import Mstatus, Privilege

SHOWN: Final = ("scause", "stval", "sepc", "mcause", "mtval", "mepc")
"""The registers that a trap writes, as `Snapshot.registers` has them, by their own names."""

_SPP: Final = 1 << 8


def raised(snapshot: Snapshot, vcpu: int) -> Raised:
    """The fault that hart number `vcpu` of a snapshot raised last: S-mode's handler has it, or else
    M-mode's.

    Raises QuestionError where the source has none of these registers, and where they tell another
    trap.
    """
    own = snapshot.registers
    if not own.keys() >= {*SHOWN[:3]}:
        raise QuestionError(
            f"no address is given, and {snapshot.title} does not record scause and stval: name the"
            " ADDRESS; of a fault that was seen that is stval, and --code says which fault"
        )
    for mode in "sm":
        code = own.get(f"{mode}cause")
        if code in set(Cause):
            return _fault(snapshot, vcpu, mode, Cause(code))
    told = " and ".join(other_trap(snapshot.cpu.xlen, own))
    raise QuestionError(
        f"the last trap of processor {vcpu} is no fault of translation, and what was raised before"
        f" it is lost ({told}): name the ADDRESS"
    )


def _fault(snapshot: Snapshot, vcpu: int, mode: str, cause: Cause) -> Raised:
    own, kinds = snapshot.registers, RAISING[cause]
    tval, pc = own[f"{mode}tval"], own[f"{mode}epc"]
    by, users = by_whom(snapshot.cpu.mstatus, mode, kinds)
    if not users:
        raise QuestionError(
            f"the last fault of processor {vcpu}, mcause {cause.value} at {tval:#x}, is of M-mode,"
            " whose accesses are not translated"
        )
    if users == (True,):  # returning from a handler leaves SPP and MPP so
        by, users = f"{by}, unless the handler has returned since", (True, False)
    said = (
        f"From processor {vcpu}: {mode}cause {cause.value}, {mode}tval {tval:#x} and {mode}epc"
        f" {pc:#x}, the last trap that {mode.upper()}-mode took; it came {by}."
    )
    # An AMO is judged as a write is, and need not be told besides.
    judged = (kind for kind in kinds if kind is not Kind.AMO)
    accesses = tuple(Access(kind, user) for kind in judged for user in users)
    return Raised(Virtual(tval), pc, cause.value, accesses, said)


def by_whom(mstatus: int, mode: str, kinds: Sequence[Kind]) -> tuple[str, tuple[bool, ...]]:
    """By whom a fault was raised, for people, and whether that may have been the user; none of
    these where it was not translated.

    mode  that took the trap, s or m
    """
    if mode == "s":
        user = not mstatus & _SPP
        return f"from {'U' if user else 'S'}-mode, by mstatus.SPP={int(not user)}", (user,)
    previous = (mstatus & Mstatus.MPP) // (Mstatus.MPP & -Mstatus.MPP)
    if previous in (Privilege.U, Privilege.S):
        user = previous == Privilege.U
        return f"from {'U' if user else 'S'}-mode, by mstatus.MPP={previous}", (user,)
    if mstatus & Mstatus.MPRV and Kind.FETCH not in kinds:
        said = "from M-mode, which accessed memory as another does: mstatus.MPP=3 and MPRV=1"
        return said, (True, False)
    return "", ()


def other_trap(xlen: int, own: Mapping[str, int]) -> Iterator[str]:
    """What the registers tell in place of a fault of translation."""
    for name in ("scause", "mcause"):
        if name in own:
            interrupt, code = divmod(own[name], 1 << xlen - 1)
            yield f"{name} is {'that of interrupt ' if interrupt else ''}{code}"
