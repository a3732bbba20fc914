"""The interrupt that a processor took last: DSISR and DAR of a data storage interrupt.

Instruction storage and other interrupts leave both as they were, and write SRR0 and SRR1, which a
later interrupt or its return overwrites: these tell nothing for certain, and are not looked at.
"""

from __future__ import annotations

from harness.inspect.last import Raised
from harness.inspect.power.fault import code_of, seen
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Virtual


def raised(snapshot: Snapshot, vcpu: int) -> Raised:
    """The data storage interrupt that processor number `vcpu` of a snapshot took last.

    Raises QuestionError where the source has none of these registers, and where they tell none.
    """
    own = snapshot.registers
    if not own.keys() >= {"dsisr", "dar"}:
        raise QuestionError(
            f"no address is given, and {snapshot.title} does not record DSISR and DAR: name the"
            " ADDRESS, or of an interrupt that was seen add --dsisr or --srr1"
        )
    dsisr, dar = own["dsisr"], own["dar"]
    try:
        fault = seen(code_of("dsisr", hex(dsisr)))
    except QuestionError as reason:
        raise QuestionError(
            f"processor {vcpu} shows no data storage interrupt ({reason}): name the ADDRESS"
        ) from None
    said = (
        f"From processor {vcpu}: DSISR {dsisr:#x} and DAR {dar:#x}, the last data storage interrupt"
        " that it took; instruction storage interrupts leave no such trace."
    )
    return Raised(Virtual(dar), None, dsisr, fault.accesses, said)
