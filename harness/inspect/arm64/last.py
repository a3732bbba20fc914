"""The abort that a processor raised last: ESR_EL1, FAR_EL1 and ELR_EL1.

An abort writes all three, and another exception but an interrupt the first and the last ("Exception
Syndrome Register (EL1)", "Fault Address Register (EL1)"), so that they tell an abort until the next
system call.
"""

from __future__ import annotations

from harness.inspect.arm64.fault import FNV, seen
from harness.inspect.last import Raised
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Virtual


def raised(snapshot: Snapshot, vcpu: int) -> Raised:
    """The abort that processor number `vcpu` of a snapshot raised last.

    Raises QuestionError where the source has none of these registers, and where they tell another
    exception.
    """
    own = snapshot.registers
    if not own.keys() >= {"esr", "far", "elr"}:
        raise QuestionError(
            f"no address is given, and {snapshot.title} does not record ESR_EL1 and FAR_EL1: name"
            " the ADDRESS; of an abort that was seen that is FAR_EL1, and --esr says which abort"
        )
    esr, far, elr = own["esr"], own["far"], own["elr"]
    try:
        abort = seen(hex(esr))
    except QuestionError as reason:
        raise QuestionError(
            f"the last exception of processor {vcpu} is no abort, and what was raised before it is"
            f" lost ({reason}): name the ADDRESS"
        ) from None
    if abort.syndrome & FNV:
        raise QuestionError(
            f"of the last abort of processor {vcpu}, ESR_EL1 {esr:#x}, FAR_EL1 holds no address"
            " (FnV=1): name the ADDRESS"
        )
    said = (
        f"From processor {vcpu}: ESR_EL1 {esr:#x}, FAR_EL1 {far:#x} and ELR_EL1 {elr:#x}, the last"
        " exception that EL1 took."
    )
    return Raised(Virtual(far), elr, esr, (), said)
