"""Texts of crashes on RISC-V, as kernels, firmware and QEMU print them."""

NULL = """\
[    1.204513] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000368
[    1.213001] Current swapper/0 pgtable: 4K pagesize, 39-bit VAs, pgdp=0x00000000814f1000
[    1.221310] [0000000000000368] pgd=0000000000000000, p4d=0000000000000000, pud=0000000000000000
[    1.229977] Oops [#1]
[    1.232203] CPU: 0 UID: 0 PID: 1 Comm: swapper/0 Not tainted 6.15.0-rc1-00003-gafc0a570bb61 #232
[    1.241302] epc : plda_pcie_setup_iomems+0xe/0x78
[    1.245994]  ra : mc_platform_init+0x80/0x1d2
[    1.250339] epc : ffffffff803fb8a4 ra : ffffffff803fc246 sp : ffffffc60000b9a0
[    1.257550] status: 0000000200000120 badaddr: 0000000000000368 cause: 000000000000000f
"""
"""Sv39, whose pgd, p4d and pud are one entry."""

FIVE = """\
Unable to handle kernel paging request at virtual address ffffffffa38dbf58
Current test_progs pgtable: 4K pagesize, 57-bit VAs, pgdp=0x00000001109cc000
[ffffffffa38dbf58] pgd=000000011fffd801, p4d=000000011fffd401, pud=000000011fffd001, \
pmd=0000000000000000
Oops [#1]
CPU: 1 UID: 0 PID: 23584 Comm: test_progs Tainted: G        W  OE       6.17.0-rc1 #1 NONE
epc : ffffffff80bd5c7a ra : ffffffff80bd5c66 sp : ff2000000eecb550
status: 0000000200000120 badaddr: ffffffffa38dbf58 cause: 000000000000000d
"""

USERS = """\
Unable to handle kernel access to user memory without uaccess routines at virtual address \
0000003f9c14a120
Current cat pgtable: 4K pagesize, 39-bit VAs, pgdp=0x0000000081f00000
[0000003f9c14a120] pgd=0000000020a00401, p4d=0000000020a00401, pud=0000000020a00401, \
pmd=0000000020a00801, pte=0000000020c000d7
Oops [#1]
CPU: 0 UID: 0 PID: 71 Comm: cat Not tainted 6.15.0 #1
epc : ffffffff80bd5c7a ra : ffffffff80bd5c66 sp : ffffffc60000b9a0
status: 0000000200000120 badaddr: 0000003f9c14a120 cause: 000000000000000d
"""
"""A page of the user's that S-mode may not read: SUM is clear."""

OLD = """\
[    0.141424] Unable to handle kernel paging request at virtual address ffffffff81201220
[    0.141654] Oops [#1]
[    0.142126] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 5.12.0 #3
[    0.142353] epc : ffffffff8029806c ra : ffffffff8061e984 sp : ffffffe001647d60
[    0.143220] status: 0000000000000120 badaddr: ffffffff81201220 cause: 000000000000000f
"""
"""Without entries, as before 6.15."""

OLDEST = """\
Unable to handle kernel paging request at virtual address 00000000deadbeef
Oops [#1]
sepc: ffffffe000200012 ra : ffffffe000200010 sp : ffffffe07d83fe00
sstatus: 0000000000000120 sbadaddr: 00000000deadbeef scause: 000000000000000d
"""

REFUSED = """\
Oops - load access fault [#1]
CPU: 0 PID: 1 Comm: swapper Not tainted 6.6.0 #1
epc : ffffffff8000b354 ra : ffffffff8000b350 sp : ff2000000000bd50
status: 0000000200000120 badaddr: ff20000000005000 cause: 0000000000000005
"""

SIGNAL = """\
[   11.628561] init[1]: unhandled signal 11 code 0x1 at 0x0000000000000008 in libc.so[ad39000+a4000]
[   11.629398] CPU: 0 PID: 1 Comm: init Not tainted 5.18.0 #1
[   11.629546] epc : 00ffffff8ada1100 ra : 00ffffff8ada13c8 sp : 00ffffffc58199f0
[   11.630000] status: 0000000200000020 badaddr: 0000000000000008 cause: 000000000000000d
"""

SIGNAL_32 = """\
   35 gettimeofday_bad1init[1]: unhandled signal 11 code 0x1 at 0x00000002 in init[10000+5000]
        epc : 00012c90 ra : 00012c6c sp : 9d097d90
        status: 00000020 badaddr: 00000002 cause: 0000000f
"""

MAILED = """\
> [  132.161689] systemd[1]: unhandled signal 11 code 0x1 at 0x0000006c6b6a6968
> [  132.182906] epc : 0000006c6b6a6968 ra : 0000003f838630b2 sp :
> 0000003fe5aace60
> [  132.230000] status: 0000000200004020 badaddr: 0000006c6b6a6968
> cause: 000000000000000c
"""
"""Wrapped where a mail's lines end."""

OPENSBI = """\
sbi_trap_error: hart0: trap1: load fault handler failed (error -2)

sbi_trap_error: hart0: trap1: mcause=0x0000000000000005 mtval=0x0000000040048060
sbi_trap_error: hart0: trap1: mepc=0x0000000080204cac mstatus=0x0000000a00000820
sbi_trap_error: hart0: trap1: ra=0x0000000080009990 sp=0x0000000080015c78

sbi_trap_error: hart0: trap0: mcause=0x0000000000000009 mtval=0x0000000000000000
sbi_trap_error: hart0: trap0: mepc=0x0000000080200000 mstatus=0x0000000a00000800
"""

QEMU = """\
riscv_cpu_do_interrupt: hart:0, async:0, cause:0000000000000009, epc:0x0000000080000098, \
tval:0x0000000000000000, desc=supervisor_ecall
riscv_cpu_do_interrupt: hart:0, async:0, cause:000000000000000d, epc:0x0000000080000098, \
tval:0x0000000000001234, desc=load_page_fault
riscv_cpu_do_interrupt: hart:0, async:0, cause:000000000000000f, epc:0x80000098, \
tval:0x0000000050001234, desc=store_page_fault
riscv_cpu_do_interrupt: hart:0, async:1, cause:0000000000000005, epc:0x0000000080000098, \
tval:0x0000000000000000, desc=s_timer
"""

QEMU_32 = """\
riscv_cpu_do_interrupt: hart:0, async:0, cause:0000000f, epc:0xffffffff80000098, tval:0x50001234, \
desc=store_page_fault
"""
"""As QEMU 11 prints it, epc with its sign extended."""

REGISTERS = """\
 V      =   0
 pc       00000000800000a8
 mstatus  0000000a000401a0
 mepc     0000000000000098
 sepc     00000000800000a0
 mcause   0000000000000000
 scause   000000000000000d
 mtval    0000000000000000
 stval    0000000050001234
 satp     8000000000080001
 x0/zero  0000000000000000 x1/ra    0000000000000000 x2/sp    0000000000000000
"""

GDB = """\
satp           0x8000000000080001	-9223372036854251519
mstatus        0xa000001a0	42949673376
scause         0xd	13
stval          0x50001234	1342181940
sepc           0x800000a0	2147483808
"""

FIRMWARE_FIRST = OPENSBI + NULL
"""What firmware printed before the kernel did."""

EVERY = {
    name: text for name, text in sorted(globals().items()) if name.isupper() and name != "EVERY"
}
