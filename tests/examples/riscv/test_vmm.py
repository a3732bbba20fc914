"""The page tables of vmm.c: they say what was meant, and a hart reads them so.

gcc -shared -fPIC -o libvmm.so vmm.c
pytest --pagetable-arch riscv
"""

import ctypes
from dataclasses import replace
from pathlib import Path

import pytest

from harness.check.region import ALLOC
from harness.paging.address import Span
from harness.paging.riscv.cpu import Satp

U64 = ctypes.c_uint64
FLUSH = ctypes.CFUNCTYPE(None, U64)
READ, WRITE, EXEC, USER, GLOBAL, LARGE = 1, 2, 4, 8, 16, 32
TEXT = Span.of(0x40_0000, 64 << 10)
STACK = Span.of(0x3F_1234_5000, 32 << 10)
IMAGE = Span.of(0xFFFF_FFFF_8000_0000, 8 << 20)


class Vmm(ctypes.Structure):
    _fields_ = [
        ("ram", ctypes.c_void_p),
        ("root", U64),
        ("levels", ctypes.c_int),
        ("alloc", ALLOC),
        ("flush", FLUSH),
    ]


LIB = ctypes.CDLL(str(Path(__file__).with_name("libvmm.so")))
LIB.vmm_map.argtypes = [ctypes.POINTER(Vmm), U64, U64, U64, ctypes.c_int]
LIB.vmm_unmap.argtypes = [ctypes.POINTER(Vmm), U64, U64]


class Kernel:
    """vmm.c with 16 MiB of the guest's RAM, and the hart under its root."""

    def __init__(self, space):
        self.ram = space.region(16 << 20)
        self.flushed = lambda address: None
        flush = FLUSH(lambda address: self.flushed(address))
        root = self.ram.table()
        self.vmm = Vmm(self.ram.base, root, space.cpu.levels, self.ram.alloc, flush)
        self.cpu = replace(space.cpu, satp=Satp(space.cpu.mode, root >> 12).raw)

    def map(self, span, physical, flags):
        return LIB.vmm_map(self.vmm, span.first, physical, span.size, flags)

    def unmap(self, span):
        return LIB.vmm_unmap(self.vmm, span.first, span.size)


@pytest.fixture
def kernel(space):
    return Kernel(space)


def test_what_is_mapped_is_what_was_meant(kernel, prove):
    assert kernel.map(TEXT, 0x8800_0000, USER | READ | EXEC) == 0
    assert kernel.map(STACK, 0x8810_0000, USER | READ | WRITE) == 0
    assert kernel.map(IMAGE, 0x8900_0000, READ | WRITE | EXEC | GLOBAL | LARGE) == 0
    prove(
        kernel.cpu,
        strict=True,
        expect={
            TEXT: ("ur-x", 0x8800_0000),
            STACK: ("urw-", 0x8810_0000),
            STACK.first - 0x1000: None,
            IMAGE: {"rights": "-rwx", "physical": 0x8900_0000, "page": "2M", "bits": ["G"]},
        },
    )


def test_what_is_unmapped_is_flushed(kernel, live, prove):
    kernel.flushed = lambda address: live.flush([address]) if address else live.flush_all()
    kernel.map(STACK, 0x8810_0000, USER | READ | WRITE)
    live.load(kernel.cpu)
    live.probe(STACK)
    with live.changes():
        kernel.unmap(STACK)
    live.probe(STACK)
    prove(live, strict=True, expect={STACK: None})
