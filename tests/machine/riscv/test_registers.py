"""What `info registers` prints of a RISC-V processor, in QEMU's several forms."""

from __future__ import annotations

from harness.machine.riscv.registers import registers_in

QEMU_7_2 = """
CPU#0
 V      =   0
 pc       000000000001012c
 mstatus  0000000a000040a2
 mtval2   0000000000000000
 satp     9000100000082fb0
 x0/zero  0000000000000000 x1/ra    00000000000116a6 x2/sp    00007ffff5ebe1a0
 x29/t4   0000000000000001 x30/t5   000000000008108c x31/t6   0000000000000007
 f29/ft9  0000000000000000 f30/ft10 0000000000000000 f31/ft11 0000000000000001
"""

QEMU_7_2_OF_32_BITS = """
 V      =   1
 pc       00001000
 satp     80080000
 x0/zero  00000000 x1/ra    00000000 x2/sp    8000fff0 x3/gp    00000000
"""

QEMU_11_1 = """
CPU#0
 priv          U
 V             0
 pc            000000000001012c
 senvcfg       0000000000000080
 satp          a0001000000836b1
 mstatus       0000000a000040a2
 menvcfg       e0000000000000f0
"""


def test_names_are_qemus_without_those_of_the_abi() -> None:
    found = registers_in(QEMU_7_2)
    assert found == {
        **{"V": 0, "pc": 0x1012C, "mstatus": 0xA_0000_40A2, "mtval2": 0},
        "satp": 0x9000_1000_0008_2FB0,
        **{"x0": 0, "x1": 0x116A6, "x2": 0x7FFF_F5EB_E1A0},
        **{"x29": 1, "x30": 0x8108C, "x31": 7},
        **{"f29": 0, "f30": 0, "f31": 1},
    }


def test_registers_of_32_bits_are_read() -> None:
    found = registers_in(QEMU_7_2_OF_32_BITS)
    assert (found["V"], found["pc"], found["satp"]) == (1, 0x1000, 0x8008_0000)
    assert found["x2"] == 0x8000_FFF0


def test_what_later_ones_print_is_read() -> None:
    found = registers_in(QEMU_11_1)
    assert "priv" not in found
    assert (found["V"], found["satp"]) == (0, 0xA000_1000_0008_36B1)
    assert (found["menvcfg"], found["senvcfg"]) == (0xE000_0000_0000_00F0, 0x80)
