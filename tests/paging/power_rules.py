"""The rules of POWER's radix trees, written a second time: over bytes and numbers, with nothing of
the library's, so that the library can be compared with them.

Bits have the manual's numbers, which count from the highest.  It is written to be read, not to be
fast or short.

Sources: Power ISA 3.0, Book III, by its structures and interrupts; where the manual is brief, Linux
(arch/powerpc, book3s/64) and microwatt's mmu.vhdl, each named where it is used.  One stage alone.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("load", "store", "fetch")


@dataclass(frozen=True)
class Machine:
    """A processor, as the rules speak of it.

    user, kernel  the first doubleword of the process table entry for PIDR, None where the process
                  table ends before it, and for PID 0
    hv            MSR.HV
    records       whether it sets R and C itself
    """

    user: int | None
    kernel: int
    amr: int = 0
    iamr: int = 0
    hv: bool = True
    records: bool = True

    def __str__(self) -> str:
        trees = (f"{one:#x}" if one is not None else "none" for one in (self.user, self.kernel))
        keys = f"AMR {self.amr:#x} IAMR {self.iamr:#x}"
        return f"trees {' '.join(trees)} {keys} HV {self.hv:d} records {self.records:d}"


@dataclass(frozen=True)
class Answer:
    """What an access comes to.

    vector    of the interrupt, None where the access is made
    status    what DSISR has, or SRR1 of a fetch
    why       in a word
    read      how many entries were read
    physical  what the address translates to
    updated   address and new value of the entry in which R or C is set, None where none is
    missing   whether an entry is where no memory is
    """

    vector: int | None
    status: int = 0
    why: str = ""
    read: int = 0
    physical: int = 0
    updated: tuple[int, int] | None = None
    missing: bool = False


def field(value: int, first: int, last: int) -> int:
    """Bits first to last of a doubleword, bit 0 the highest, as a number."""
    return value >> 63 - last & (1 << last - first + 1) - 1


def bit(value: int, number: int) -> bool:
    return bool(field(value, number, number))


# Interrupts: bits 33, 35, 36, 44 and 45 of DSISR (32 to 63) and of SRR1; of DSISR 38 for a store.

NO_TRANSLATION = 1 << 63 - 33
NO_EXECUTE = 1 << 63 - 35
PROTECTION = 1 << 63 - 36
STORE = 1 << 63 - 38
UNSUPPORTED = 1 << 63 - 44
NOT_RECORDED = 1 << 63 - 45


def storage(kind: str, status: int, why: str, read: int = 0) -> Answer:
    """A data storage interrupt, 0x300, or an instruction storage interrupt, 0x400."""
    if kind == "fetch":
        return Answer(0x400, NO_EXECUTE if status == PROTECTION else status, why, read)
    return Answer(0x300, status | (STORE if kind == "store" else 0), why, read)


def segment(kind: str) -> Answer:
    """A data segment interrupt, 0x380, or an instruction segment interrupt, 0x480."""
    return Answer(0x480 if kind == "fetch" else 0x380, 0, "segment")


def tree_of(machine: Machine, ea: int) -> int | str | None:
    """Quadrants: EA 0:1 = 0 is the process of PIDR, 3 is process 0; without HV there are no others.
    Bits 2:11 of EA are zero in a tree of 52 bits."""
    if field(ea, 0, 1) in (1, 2) or field(ea, 2, 11) != 0:
        return "segment"
    return machine.kernel if field(ea, 0, 1) == 3 else machine.user


def denies(machine: Machine, pte: int, kind: str, user: bool) -> int:
    """Storage attributes, encoded access authority, key 0: the status that denies, 0 for none.

    ATT is bits 58:59, where 2 is non-idempotent I/O.  EAA is bits 60:63: privileged, read, read and
    write, execute.  Key 0 of AMR is bits 0 (store) and 1 (load), of IAMR bit 1, for privileged
    accesses to what is not privileged.
    """
    privileged, read, read_write, execute = (bit(pte, number) for number in (60, 61, 62, 63))
    if kind == "fetch" and field(pte, 58, 59) == 2:
        return NO_EXECUTE
    if user and privileged:
        return PROTECTION
    allowed = {"load": read or read_write, "store": read_write, "fetch": execute}[kind]
    if not user and not privileged:
        if kind == "load" and bit(machine.amr, 1):
            allowed = False
        if kind == "store" and bit(machine.amr, 0):
            allowed = False
        if kind == "fetch" and bit(machine.iamr, 1):
            allowed = False
    return 0 if allowed else PROTECTION


def access(machine: Machine, memory: bytes | bytearray, ea: int, kind: str, user: bool) -> Answer:
    """Radix tree translation, step by step."""
    root = tree_of(machine, ea)
    if isinstance(root, str):
        return segment(kind)
    if root is None:
        return storage(kind, NO_TRANSLATION, "no process")
    # RTS is bits 1:2 and 56:58, RPDB 4:55 with zeros below, RPDS 59:63.
    spans = (field(root, 1, 2) * 8 + field(root, 56, 58)) + 31
    size = field(root, 59, 63)
    if spans != 52 or size != 13:
        return storage(kind, UNSUPPORTED, "bad tree")
    base, left, read = field(root, 4, 55) * 256, 52, 0
    while True:
        base -= base % (8 * 2**size)
        at = base + 8 * (ea % 2**left // 2 ** (left - size))
        if at + 8 > len(memory):
            return Answer(None, missing=True, read=read)
        pte, left, read = int.from_bytes(memory[at : at + 8], "big"), left - size, read + 1
        if not bit(pte, 0):
            return storage(kind, NO_TRANSLATION, "not valid", read)
        if bit(pte, 1):
            break
        # NLB is bits 4:55 with zeros below, NLS 59:63: 13, 9, 9 and 9 or 5 are the sizes there are.
        base, size = field(pte, 4, 55) * 256, field(pte, 59, 63)
        if read == 4 or size not in ((9,), (9,), (5, 9))[read - 1]:
            return storage(kind, UNSUPPORTED, "bad size", read)
    # Pages have 1G, 2M, 64K and 4K.
    if left not in (30, 21, 16, 12):
        return storage(kind, UNSUPPORTED, "bad page", read)
    if status := denies(machine, pte, kind, user):
        return storage(kind, status, "denied", read)
    # R is bit 55, C bit 56: "Reference and Change Recording".
    if not machine.records and not (bit(pte, 55) and (kind != "store" or bit(pte, 56))):
        return storage(kind, NOT_RECORDED, "not recorded", read)
    # RPN is bits 7:51 with zeros below.
    real = field(pte, 7, 51) * 4096
    physical = real - real % 2**left + ea % 2**left
    after = pte | 1 << 63 - 55 | (1 << 63 - 56 if kind == "store" else 0)
    return Answer(None, 0, "", read, physical, (at, after) if after != pte else None)
