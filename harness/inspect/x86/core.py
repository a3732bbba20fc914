"""A core of an x86 guest: the registers of a processor in the notes of QEMU and VirtualBox."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from harness.inspect.architecture import Seen
from harness.inspect.snapshot import RESERVING, SourceError
from harness.inspect.sources.core import Dump
from harness.inspect.x86 import engine, vmcoreinfo
from harness.inspect.x86.processor import (
    AC,
    CODE_64,
    cpu_with,
    mark_in,
    marked,
    tables_of,
    unseen_model,
    unseen_rights,
)
from harness.paging.x86.cpu import WIDTHS, Cpu, Cr4, Efer

STATE_SIZE, RSP, RIP, RFLAGS, CS, CS_FLAGS, CR = 432, 56, 136, 144, 152, 160, 392
"""QEMU's note of a processor, version 1: its size at least, and where in it RSP, RIP, RFLAGS, CS,
its flags and the five control registers are (QEMU, target/i386/arch_dump.c: QEMUCPUState)."""

RPL = 3
"""The bits of CS that are the privilege level (SDM volume 3A, 3.4.2)."""


def seen(dump: Dump, vcpu: int, registers: Mapping[str, int]) -> Seen:
    """A processor of a core, with the registers that are given in place of its own.

    Raises SourceError where the core tells no state in which addresses are translated.
    """
    states = [desc for name, desc in dump.notes if name == b"QEMU"]
    own, rest, assumed = _registers(vcpu, states, dump, registers)
    damaged: tuple[str, ...] = ()
    if own["efer"] & Efer.LMA:
        mark, told, damaged = marked(dump.vmcoreinfo, registers)
        if not mark:
            mark, told = mark_in({**own, **registers}, registers, dump.memory)
        own |= mark
        assumed += told
    cpu = cpu_with(Cpu.long_mode(4, 0), {**own, **registers}, dump.memory)
    cpu, notes = engine.as_marked(cpu)
    if "maxphyaddr" not in registers:
        assumed.append(f"MAXPHYADDR={WIDTHS[-1]}, since a core does not record it (--maxphyaddr)")
    assumed += unseen_model(cpu, registers, "a core")
    if states and dump.virtual:
        assumed.append(
            "the core was written with -p, so that memory which the guest does not map is missing"
        )
    unsure = RESERVING - registers.keys()
    if not states and any(name == VIRTUALBOX for name, _ in dump.notes):
        unsure -= {"efer"}
    left_open = tuple(unseen_rights(cpu, {**own, **registers}, "a core"))
    return Seen(cpu, tuple(assumed), (*damaged, *notes), rest, unsure, left_open)


def _registers(
    vcpu: int, states: list[bytes], dump: Dump, given: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """The registers in the note of a processor that decide how it pages, the others, and what is
    assumed of EFER, which is in none."""
    own: dict[str, int] = {"maxphyaddr": WIDTHS[-1]}
    rest: dict[str, int] = {}
    path = dump.path
    long, assumed = dump.x86_64, []
    if states:
        if not vcpu < len(states):
            raise SourceError(f"{path} has no processor {vcpu}: it has 0 to {len(states) - 1}")
        state = states[vcpu]
        if len(state) < STATE_SIZE:
            raise SourceError(
                f"{path} has a note of processor {vcpu} of {len(state)} bytes, not {STATE_SIZE}"
            )
        cr0, _, cr2, cr3, cr4 = struct.unpack_from("<5Q", state, CR)
        rest = {"cr2": cr2, "cpl": struct.unpack_from("<I", state, CS)[0] & RPL}
        rest |= {name: struct.unpack_from("<Q", state, at)[0] for name, at in _POINTERS}
        rest |= tables_of({name: _segment(state, at) for name, at in _SEGMENTS})
        own |= {"cr0": cr0, "cr3": cr3, "cr4": cr4}
        own["ac"] = bool(struct.unpack_from("<Q", state, RFLAGS)[0] & AC)
        long = long or bool(struct.unpack_from("<I", state, CS_FLAGS)[0] & CODE_64)
    elif boxes := [desc for name, desc in dump.notes if name == VIRTUALBOX]:
        if not vcpu < len(boxes):
            raise SourceError(f"{path} has no processor {vcpu}: it has 0 to {len(boxes) - 1}")
        if len(boxes[vcpu]) < BOX_SIZE:
            raise SourceError(
                f"{path} has a note of processor {vcpu} of {len(boxes[vcpu])} bytes, not {BOX_SIZE}"
            )
        told, rest = _of_virtualbox(boxes[vcpu])
        return own | told, rest, []
    else:
        told = vmcoreinfo.registers(dump.vmcoreinfo, dump.x86_64)
        if "cr3" not in told and "cr3" not in given:
            raise SourceError(
                f"{path} has no notes of QEMU or VirtualBox and no VMCOREINFO, which tell the"
                " control registers: add --cr3, and --cr4 for other than 4-level paging"
            )
        own |= told
        if told and "cr3" not in given:
            assumed.append(
                f"the core has no control registers: the tables are those of Linux itself, at"
                f" {told['cr3']:#x} by its VMCOREINFO; --cr3 says otherwise"
            )
    pae = {**own, **given}.get("cr4", Cr4.PAE) & Cr4.PAE
    own["efer"] = Efer.NXE | (Efer.LME | Efer.LMA if long and pae else 0)
    if "efer" not in given:
        assumed.append(
            f"EFER.LMA={int(bool(own['efer'] & Efer.LMA))}, as the machine of the core's head says,"
            " and EFER.NXE=1 (--efer)"
        )
    return own, rest, assumed


_POINTERS = (("rip", RIP), ("rsp", RSP))
_SEGMENTS = (("CS", CS), ("SS", 272), ("TR", 320), ("GDT", 344), ("IDT", 368))
"""Where QEMU's note has selector, limit, flags and base of each."""


def _segment(state: bytes, at: int) -> tuple[int, int, int, int]:
    selector, limit, flags, base = struct.unpack_from("<IIQQ", state, at)
    return selector, base, limit, flags


VIRTUALBOX = b"VBCPU"
"""The name of VirtualBox's note of a processor (VirtualBox, include/VBox/dbgfcorefmt.h)."""

BOX_SIZE, _BOX_POINTERS, _BOX_FLAGS, _BOX_CR, _BOX_EFER = 496, 112, 136, 288, 488
"""Its size at least, and where in it RIP and RSP, RFLAGS, CR0, CR2, CR3 and CR4, and EFER are."""

_BOX_SEGMENTS = (("CS", 144), ("SS", 264), ("TR", 440))
_BOX_TABLES = (("GDT", 384), ("IDT", 400))


def _of_virtualbox(state: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """The registers that decide how a processor pages, and the others."""
    cr0, cr2, cr3, cr4 = struct.unpack_from("<4Q", state, _BOX_CR)
    (efer,), (flags,) = (struct.unpack_from("<Q", state, at) for at in (_BOX_EFER, _BOX_FLAGS))
    rip, rsp = struct.unpack_from("<2Q", state, _BOX_POINTERS)
    segments = {}
    for name, at in _BOX_SEGMENTS:
        base, limit, attributes, selector = struct.unpack_from("<QIIH", state, at)
        segments[name] = (selector, base, limit, attributes << 8)  # without the byte of the base
    for name, at in _BOX_TABLES:
        base, limit = struct.unpack_from("<QI", state, at)
        segments[name] = (0, base, limit, 0)
    own = {"cr0": cr0, "cr3": cr3, "cr4": cr4, "efer": efer, "ac": bool(flags & AC)}
    rest = {"cr2": cr2, "rip": rip, "rsp": rsp, "cpl": segments["CS"][0] & RPL}
    return own, rest | tables_of(segments)
