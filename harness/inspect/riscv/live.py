"""What a running QEMU tells of a hart.

Asked is nothing that has QEMU translate an address: QEMU 7.2 sets A in the guest's own tables by
that (`gva2gpa`, `x`, memory through the gdb stub).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.check.held import HeldMemory
from harness.inspect.architecture import Seen
from harness.inspect.held import hold_tables
from harness.inspect.riscv.last import SHOWN
from harness.inspect.snapshot import Snapshot, SourceError
from harness.machine.errors import ProtocolError
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from harness.machine.riscv.registers import registers_in
from harness.paging.riscv.cpu import Cpu, Envcfg

Monitor = ForeignMonitor | StubMonitor

Model = Callable[[str], object | None]
"""A property of QEMU's model of the hart by its name, None where it does not know it."""


def seen(monitor: Monitor, given: Mapping[str, int], memory: HeldMemory) -> Seen:
    """The hart as it is now, with the registers that are given in place of its own; all tables that
    satp leads to are held.

    Raises SourceError where it translates nothing or in two stages, MachineError where QEMU does
    not answer.
    """
    shown = registers_in(monitor.state())
    fields, assumed = hart(shown, monitor.cpu_property, given, monitor.target)
    try:
        cpu = Cpu(**{**fields, **given})  # type: ignore[arg-type]
    except ValueError as error:
        raise SourceError(str(error)) from None
    hold_tables(memory, cpu.roots)
    return Seen(cpu, assumed, registers={name: shown[name] for name in SHOWN if name in shown})


def hold_beside(snapshot: Snapshot, memory: HeldMemory, stack: bool) -> None:
    """Nothing: a hart pushes nothing at a fault, and the tables are held."""


def hart(
    shown: Mapping[str, int], model: Model, given: Mapping[str, int], target: str
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The fields of `Cpu` as QEMU tells them, and what is assumed where it does not.

    shown  the registers that it shows
    model  a property of its model of the hart, None where it does not know it
    given  fields that do not matter, since they are given
    target what it calls the hart

    Raises SourceError for a hart that runs a guest of its own, ProtocolError where satp is missing.
    """
    if missing := [name for name in ("satp", "mstatus") if name not in shown]:
        raise ProtocolError(f"info registers does not show {' and '.join(missing)}", "")
    if shown.get("V"):
        raise SourceError(
            "the hart runs a guest of its own (V=1), whose addresses are translated in two stages,"
            " which is not known here"
        )
    satp = shown["satp"]
    fields = {"satp": satp, "mstatus": shown["mstatus"]}
    # QEMU for RV64 runs harts of RV32, too, from 9.2 on: RV64 has MODE above their 32 bits of satp.
    narrow = target == "riscv32" or (satp and not satp >> 32)
    if narrow:
        fields |= {"xlen": 32, "svade": _faults(model)}
    else:
        has = {name: model(name) is True for name in ("svnapot", "svrsw60t59b")}
        fields |= {**has, "svade": _faults(model), "senvcfg": shown.get("senvcfg", 0)}
    if "menvcfg" in shown:
        return {**fields, "menvcfg": shown["menvcfg"] | shown.get("menvcfgh", 0) << 32}, ()
    fields["menvcfg"] = _at_reset(model)
    # To entries of Sv32 no more of it matters than ADUE, and that where there is Svade.
    if "menvcfg" in given or (narrow and not fields["svade"]):
        return fields, ()
    return fields, (f"menvcfg={fields['menvcfg']:#x}, since QEMU does not show it (--menvcfg)",)


def _faults(model: Model) -> bool:
    """Whether the hart faults for A and D unless menvcfg.ADUE has it set them; one of QEMU's that
    has neither Svade nor Svadu sets them, as all of 7.2 do."""
    return model("svade") is True or model("svadu") is True


def _at_reset(model: Model) -> int:
    """Menvcfg as QEMU resets it, which OpenSBI leaves so (QEMU, target/riscv/cpu.c:
    riscv_cpu_reset_hold)."""
    types = Envcfg.PBMTE if model("svpbmt") is True else 0
    sets = model("svadu") is True and model("svade") is not True
    return types | (Envcfg.ADUE if sets else 0)
