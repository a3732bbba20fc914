"""Texts of crashes on arm64, as kernels and QEMU print them."""

NULL = """\
[   44.622031] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010
[   44.624321] Mem abort info:
[   44.625049]   ESR = 0x0000000096000004
[   44.625935]   EC = 0x25: DABT (current EL), IL = 32 bits
[   44.628684]   FSC = 0x04: level 0 translation fault
[   44.629788] Data abort info:
[   44.630474]   ISV = 0, ISS = 0x00000004
[   44.632041] user pgtable: 4k pages, 48-bit VAs, pgdp=0000000100ab5000
[   44.633494] [0000000000000010] pgd=0000000000000000, p4d=0000000000000000
[   44.635202] Internal error: Oops: 96000004 [#1] SMP
[   44.638453] CPU: 2 PID: 1 Comm: systemd Not tainted 5.19.0-rc7 #1
[   44.641799] pstate: 00400005 (nzcv daif +PAN -UAO -TCO -DIT -SSBS BTYPE=--)
"""

KERNELS = """\
Unable to handle kernel write to read-only memory at virtual address ffff800080012000
Mem abort info:
  ESR = 0x000000009600004f
  FSC = 0x0f: level 3 permission fault
swapper pgtable: 4k pages, 48-bit VAs, pgdp=0000000041a3e000
[ffff800080012000] pgd=10000000421ff003, p4d=10000000421ff003, pud=10000000421fe003, \
pmd=10000000421fd003, pte=0060000040012783
Internal error: Oops: 000000009600004f [#1] PREEMPT SMP
CPU: 0 PID: 1 Comm: init Not tainted 6.12.0 #1
pstate: 60400005 (nZCv daif +PAN -UAO -TCO -DIT -SSBS BTYPE=--)
"""
"""In the upper half: TTBR1's. The page is read-only (AP[2], bit 7)."""

FETCH = """\
  Unable to handle kernel NULL pointer dereference at virtual
  address 0000000000000000
  Mem abort info:
    ESR = 0x0000000086000005
    EC = 0x21: IABT (current EL), IL = 32 bits
  user pgtable: 64k pages, 48-bit VAs, pgdp=0000000101050000
  [0000000000000000] pgd=0000000000000000, p4d=0000000000000000, pud=0000000000000000
  Internal error: Oops: 0000000086000005 [#1] PREEMPT SMP
"""
"""Wrapped as mails are, and of three levels."""

QEMU = """\
Taking exception 2 [SVC] on CPU 0
...from EL0 to EL1
...with ESR 0x15/0x56000000
...with ELR 0xffff80001234
Taking exception 4 [Data Abort] on CPU 0
...from EL1 to EL1
...with ESR 0x25/0x96000045
...with FAR 0xffff000000000000
...with SPSR 0x600003c5
...with ELR 0xffff0000800001c4
...to EL1 PC 0x80001a00 PSTATE 0x3c5
Taking exception 4 [Data Abort] on CPU 0
...from EL3 to EL3
...with ESR 0x25/0x96000010
...with FAR 0x800ffe8
...with ELR 0xe04212c
"""
"""The last abort is of EL3, whose tables are others."""

OLD = """\
Unable to handle kernel paging request at virtual address ffff80000a000000
pgd = ffff000009f5e000
[ffff80000a000000] *pgd=000000007fff6003, *pud=000000007fff5003, *pmd=0000000000000000
Internal error: Oops: 96000046 [#1] PREEMPT SMP
"""
"""Of Linux 4.x, which prints neither pages nor addresses nor where the root is."""

CONFLICT = """\
Unhandled fault at 0xffff800080a00000
Mem abort info:
  ESR = 0x0000000096000030
  FSC = 0x30: TLB conflict abort
swapper pgtable: 4k pages, 48-bit VAs, pgdp=00000000428b1000
[ffff800080a00000] pgd=10000000433ff403, p4d=10000000433ff403, pud=10000000433fe403, \
pmd=00780000be200f01
Internal error: TLB conflict abort: 0000000096000030 [#1] PREEMPT SMP
"""

EVERY = {
    name: value
    for name, value in dict(globals()).items()
    if name.isupper() and isinstance(value, str)
}
