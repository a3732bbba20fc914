"""The guests in which arm64's tables are proved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from harness.check.arm64.layouts import features_of
from harness.check.validation import DEADLINE
from harness.inspect.prove import Part, Prover, room
from harness.inspect.snapshot import Snapshot
from harness.machine.arm64.guest import Guest
from harness.machine.arm64.processor import RAM_BASE
from harness.machine.arm64.qemu import BUILD, TCG
from harness.machine.errors import Misuse
from harness.machine.registry import engine_named
from harness.machine.stub import StubImage
from harness.paging.arm64.cpu import OUTPUT_BITS, Cpu


def new_guest(snapshot: Snapshot, parts: Sequence[Part], engine: str, program: str | None) -> Guest:
    """A guest with memory where the tables are, and the processor with the most features."""
    engine_named(engine, snapshot.cpu.architecture)
    base, size = room(snapshot.cpu, parts, TCG.largest_ram, RAM_BASE)
    image = StubImage.load(BUILD).moved(base)
    return Guest(ram_bytes=size, program=program, image=image, deadline=DEADLINE)


def own(cpu: Cpu, guest: Guest) -> tuple[Cpu, list[str]]:
    """The state that the guest takes in place of the snapshot's: what TCR_EL1 turns on and the
    source's processor lacks is off, and PSTATE.PAN and UAO are tried each way."""
    features = features_of(guest.info)
    halves = [half for half in (cpu.low, cpu.high) if half is not None]
    bits = min(OUTPUT_BITS[cpu.tcr >> 32 & 7], cpu.features.output_bits, features.output_bits)
    try:
        own = Cpu.of(
            cpu.low,
            cpu.high,
            output_bits=bits,
            ds=any(cpu.is_wide(half.granule) for half in halves if half.granule != "64K"),
            ha=cpu.sets_access_flag,
            hd=cpu.keeps_dirty_state,
            wxn=cpu.wxn,
            epan=cpu.epan,
            aligns=cpu.aligns,
            mair=cpu.mair,
            features=features,
        )
    except ValueError as error:
        raise Misuse(
            f"{guest.engine.maker}'s processor cannot have these tables: {error}"
        ) from None
    notes = [
        f"The guest's processor {what}, unlike that of the source: entries were compared as it"
        " reads them."
        for what in _differences(cpu, own)
    ]
    return own, notes


def _differences(cpu: Cpu, own: Cpu) -> Iterator[str]:
    """What the guest's processor does otherwise than the source's."""
    for name, theirs, ours in (("lower", cpu.low, own.low), ("upper", cpu.high, own.high)):
        if theirs is None:
            continue
        assert ours is not None  # the same halves are on
        width = own.output_bits(ours)
        if width != cpu.output_bits(theirs):
            yield f"has {width} bits of physical addresses in the {name} half"
        if (wide := own.is_wide(ours.granule)) != cpu.is_wide(theirs.granule):
            yield f"reads {52 if wide else 48} bits in {ours.granule} entries"
        for flag, said in _FLAGS.items():
            if getattr(theirs, flag) != getattr(ours, flag):
                yield f"lacks {said} ({name} half)"
    for name, lacks in (
        ("sets_access_flag", "does not set AF"),
        ("keeps_dirty_state", "keeps no dirty state"),
        ("epan", "lacks EPAN"),
    ):
        if getattr(own, name) != getattr(cpu, name):
            yield lacks


_FLAGS: Final = {"hpd": "HPD", "tbid": "TBID", "e0pd": "E0PD"}
"""What the guest's processor may lack of a half, by the fields of `Half`."""

PROVER: Final = Prover("virt", new_guest, own)
