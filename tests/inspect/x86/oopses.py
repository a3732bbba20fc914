"""Texts as kernels and emulators print them, each written for these tests in the form of one
version; the values are of public reports where there is one."""

from __future__ import annotations

INVERTED = """\
[  102.334411] BUG: unable to handle page fault for address: ffff888058a67000
[  102.334418] #PF: supervisor write access in kernel mode
[  102.334421] #PF: error_code(0x000b) - reserved bit violation
[  102.334425] PGD 2a01067 P4D 2a01067 PUD 2a05067 PMD 7fd36067 PTE 800fffffa7598063
[  102.334431] Oops: 000b [#1] PREEMPT SMP NOPTI
[  102.334436] CPU: 1 PID: 412 Comm: worker/u8 Not tainted 5.4.61 #3
[  102.334440] RIP: 0010:clear_page_erms+0x7/0x10
[  102.334444] RSP: 0018:ffffc900001f7cd8 EFLAGS: 00010246
[  102.334448] CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
[  102.334451] CR2: ffff888058a67000 CR3: 0000000002a00000 CR4: 00000000000006e0
"""
"""Linux 5.4: a page of the direct map whose frame was inverted, as of PROT_NONE, with P set."""

NARROW = """\
[   12.104522] BUG: unable to handle page fault for address: ffffc9000002d000
[   12.105001] #PF: supervisor write access in kernel mode
[   12.105377] #PF: error_code(0x000b) - reserved bit violation
[   12.105772] PGD 100000067 P4D 100000067 PUD 1001fd067 PMD 1001fe067 PTE 800000fffffee163
[   12.106340] Oops: 000b [#1] SMP NOPTI
[   12.107011] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.2.0 #12
[   12.107655] RSP: 0000:ffffc9000001fb80 EFLAGS: 00010286
[   12.108212] CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
[   12.108648] CR2: ffffc9000002d000 CR3: 0000000003428001 CR4: 0000000000770ef0
"""
"""Linux 6.2: a device's page at bit 39, on a processor with fewer bits of physical addresses."""

FIVE = """\
<1>BUG: unable to handle page fault for address: ff11000212345678
<1>#PF: supervisor read access in kernel mode
<1>#PF: error_code(0x0000) - not-present page
<6>PGD 3c01067 P4D 3c02067 PUD 0 \r
<4>Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI
<4>CPU: 3 UID: 0 PID: 77 Comm: test Not tainted 6.12.0 #1
<4>CR2: ff11000212345678 CR3: 0000000102a00000 CR4: 0000000000771ef0
"""
"""Linux 6.12 with five levels."""

OLD64 = """\
tinfo: Corrupted page table at address 2aaaaaabf800
PGD 8a983067 PUD c7e5a067 PMD 91588067 PTE ffffffff8048a025
Bad pagetable: 000d [1] SMP
CPU 0
Pid: 10892, comm: tinfo Not tainted 2.6.11
RIP: 0033:[<0000000000100562>] [<0000000000100562>]
RSP: 002b:00007ffffffff790  EFLAGS: 00010217
CS:  0010 DS: 0000 ES: 0000 CR0: 000000008005003b
CR2: 00002aaaaaabf800 CR3: 0000000090368000 CR4: 00000000000006e0
"""
"""Linux 2.6.11: a virtual address in place of a physical one, in a page that a process mapped."""

OLD32 = """\
 <1>Unable to handle kernel NULL pointer dereference at virtual address 00000014
 printing eip:
c01a2b3c
*pde = 00000000
Oops: 0002 [#1]
CPU:    0
EIP:    0060:[<c01a2b3c>]    Not tainted VLI
EFLAGS: 00010246   (2.6.8-1)
"""
"""Linux 2.6.8 of 32 bits."""

PAE = """\
Mar 19 16:43:50 host kernel: [   18.477095] BUG: unable to handle kernel paging request at f7c04567
Mar 19 16:43:50 host kernel: [   18.477147] IP: [<c12a0b10>] memcpy+0x10/0x30
Mar 19 16:43:50 host kernel: [   18.477150] *pdpt = 0000000001a6e001 *pde = 0000000037c10067 *pte =\
 8000000037c04061
Mar 19 16:43:50 host kernel: [   18.477184] Oops: 0003 [#1] SMP
Mar 19 16:43:50 host kernel: [   18.477209] Pid: 2228, comm: reader Tainted: G  3.8.0-13
Mar 19 16:43:50 host kernel: [   18.477300] EIP: 0060:[<c12a0b10>] EFLAGS: 00010282 CPU: 1
Mar 19 16:43:50 host kernel: [   18.477360] CR0: 8005003b CR2: f7c04567 CR3: 01a6c000 CR4: 000407f0
"""
"""Linux 3.8 with PAE, in a journal: a write to a read-only page."""

FOUR = """\
> BUG: unable to handle kernel NULL pointer dereference at           (null)
> IP:           (null)
> PGD 0 P4D 0
> Oops: 0010 [#1] SMP
> RIP: 0010:          (null)
> CR2: 0000000000000000 CR3: 000000000260a000 CR4: 00000000000006f0
"""
"""Linux 4.14, quoted in a mail: a call of NULL."""

FIVE_ZERO = """\
BUG: unable to handle kernel paging request at ffffffff81a00000
#PF error: [PROT] [WRITE]
PGD 260e067 P4D 260e067 PUD 260f063 PMD 80000001a001e1
Oops: 0003 [#1] SMP
"""
"""Linux 5.0, which names the bits of the error code; a large page, and no PTE."""

UNREAD = """\
BUG: unable to handle page fault for address: ffff9c0000000000
#PF: supervisor read access in kernel mode
#PF: error_code(0x0009) - reserved bit violation
PGD 2e2e2e2e2e205d31 P4D 2e2e2e2e2e205d31
BAD
Oops: 0009 [#1] SMP
"""
"""Linux 6.1: text where entries belong."""

WRAPPED = """\
    app: Corrupted page table at address 7a1aa8300000
    PGD 10929a067 P4D 10929a067 PUD 18c20a067 PMD 1079b5067
                                        PTE 8000467c4a5c9237
    Oops: Bad pagetable: 000f [#1] SMP PTI
    RIP: 0033:0x7a1aa8fa08ac   CR2: 00007a1aa8300000
"""
"""Linux 6.8, as a document quotes it."""

BAD_MAP = """\
[ 8843.223711] BUG: Bad page map in process firefox  pte:00010000 pmd:2d5f0067
[ 8843.223719] addr:00007f5d38a07000 vm_flags:08100073 anon_vma:ffff88003c2cd5b8 mapping: (null)\
 index:7f5d38a07
[ 8843.223725] CPU: 0 PID: 3081 Comm: firefox Not tainted 4.9.0-8-amd64 #1
[ 8843.223800] BUG: Bad page map in process firefox  pte:00020000 pmd:2d5f0067
"""
"""Linux 4.9: one stray bit in an entry that is else empty."""

BAD_MAP_NEW = """\
BUG: Bad page map in process stress  entry:80000d00404d8067
pgd:11e6c8067 p4d:11e6c8067 pud:10b3a2067 pmd:10f2f1067
addr:00007f1b5d2c3000 vm_flags:08100073 anon_vma:ffff8881 mapping:0000000000000000 index:7f1b5d2c3
"""
"""Linux 6.18: the entries in a line of their own, that which is bad without a name."""

HASHED = """\
BUG: Bad page map in process a  pte:800000012345a867 pmd:2d5f0067
addr:(____ptrval____) vm_flags:08100073 anon_vma:(____ptrval____) mapping:(null) index:7f5d38a07
"""
"""Linux 4.15, which hides the address."""

SEGFAULT = (
    "[99.1] app[321]: segfault at 75b800000034 ip 000075b86b22d5aa sp 00007ffef62526f0 error 4"
    " in lib.so[75b86b200000+c7000] likely on CPU 124\n"
)

TRIPLE = """\
Servicing hardware INT=0x20
     0: v=20 e=0000 i=0 cpl=0 IP=0008:0000000000100200 pc=0000000000100200 SP=0010:0000000000007b60\
 env->regs[R_EAX]=0000000000000000
CR0=80000011 CR2=0000000000000000 CR3=0000000000200000 CR4=00000020
check_exception old: 0xffffffff new 0xe
     1: v=0e e=0000 i=0 cpl=0 IP=0008:0000000000100083 pc=0000000000100083 SP=0010:0000000000007b60\
 CR2=0000000000100083
RAX=0000000080000011 RBX=0000000000000000 RCX=00000000c0000080 RDX=0000000000000000
RIP=0000000000100083 RFL=00000086 [--S--P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0008 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
GDT=     0000000000100150 00000017
IDT=     0000000000000000 00000000
CR0=80010011 CR2=0000000000100083 CR3=0000000000101000 CR4=00000020
EFER=0000000000000500
check_exception old: 0xe new 0xd
     2: v=08 e=0000 i=0 cpl=0 IP=0008:0000000000100083 pc=0000000000100083 SP=0010:0000000000007b60\
 env->regs[R_EAX]=0000000080000011
CR0=80010011 CR2=0000000000100083 CR3=0000000000101000 CR4=00000020
EFER=0000000000000500
check_exception old: 0x8 new 0xd
Triple fault
CPU Reset (CPU 0)
CR0=80010011 CR2=0000000000100083 CR3=0000000000101000 CR4=00000020
"""
"""QEMU 7.2 with -d int,cpu_reset: a kernel that maps all but the code it runs."""

REGISTERS = """\
(qemu) info registers
CPU#0
EAX=80000011 EBX=00000000 ECX=00000000 EDX=00000000
EIP=00100026 EFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0008 00000000 ffffffff 00cf9b00 DPL=0 CS32 [-RA]
CR0=80010011 CR2=00100026 CR3=00001000 CR4=00000000
EFER=0000000000000000
"""
"""QEMU's monitor, of a guest that stands at a fetch from a page which is not mapped."""

TAIL = """\
     1: v=08 e=0000 i=0 cpl=0 IP=0008:000000000010004f pc=000000000010004f SP=0010:0000000000006f08\
 env->regs[R_EAX]=0000000080010011
EAX=80010011 EBX=00009500 ECX=00000000 EDX=00010511
ESI=00000000 EDI=00502000 EBP=00000000 ESP=00006f08
EIP=0010004f EFL=00000086 [--S--P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0008 00000000 ffffffff 00cf9a00 DPL=0 CS32 [-R-]
GDT=     000ca2b8 00000027
IDT=     00000000 000003ff
CR0=80010011 CR2=00000070 CR3=00500000 CR4=00000000
EFER=0000000000000000
check_exception old: 0x8 new 0xe
Triple fault
"""
"""The last lines of QEMU 7.2 with -d int: a kernel that maps nothing where it runs."""

SHORT = (
    "     0: v=0e e=0003 i=0 cpl=0 IP=0008:ffffffff80001234 pc=ffffffff80001234"
    " SP=0010:ffff800000007000 CR2=ffff800000001000\n"
)
"""A line of that log alone."""

GDB = """\
(gdb) info registers
rax            0x80010011          2147549201
rip            0xfff0              0xfff0
eflags         0x40002             [ AC IOPL=0 ]
cs             0x1b                27
cr0            0x80010011          [ PG WP ET PE ]
cr2            0xb8000             753664
cr3            0x1000              [ PDBR=1 PCID=0 ]
cr4            0x20                [ PAE ]
efer           0x500               [ LMA LME ]
"""
"""gdb, connected to QEMU."""

POWER = """\
BUG: Unable to handle kernel paging request at virtual address c0000000deadbeef
NIP:  c000000000123456 LR: c000000000123450
"""

REMOVED = """\
[   12.345678] Oops: general protection fault, probably for non-canonical address \
0xdead000000000108: 0000 [#1] PREEMPT SMP PTI
[   12.345679] CPU: 0 UID: 0 PID: 1234 Comm: rmmod Not tainted 6.12.0 #1
[   12.345680] RIP: 0010:__list_del_entry_valid+0x1b/0x90
[   12.345681] RSP: 0018:ffffc90000a3bd88 EFLAGS: 00010206
[   12.345682] RAX: dead000000000122 RBX: ffff888003fb1000 RCX: 0000000000000000
[   12.345690] CR2: 00007f5f0a4f1000 CR3: 0000000004b1e000 CR4: 00000000000006f0
"""
"""A general protection fault of Linux 6.12: an entry is removed from a list twice."""

OLD_GENERAL = """\
general protection fault: 0000 [#1] SMP
RIP: 0010:[<ffffffff8116aa30>]  [<ffffffff8116aa30>] kmem_cache_alloc+0x50/0x1f0
RAX: 6b6b6b6b6b6b6b6b RBX: ffff888003fb1000 RCX: 0000000000000000
"""
"""One of Linux before 5.6, which prints no address."""

SHADOW = """\
general protection fault, probably for non-canonical address 0xdffffc0000000001: 0000 [#1] SMP KASAN
KASAN: null-ptr-deref in range [0x0000000000000008-0x000000000000000f]
"""

OF_PROCESS = """\
traps: a[1234] general protection fault ip:55d0c0ffee00 sp:7ffc12345678 error:0 in a[55d0c0ffe000]
"""

EVERY = {
    name: value
    for name, value in dict(globals()).items()
    if name.isupper() and isinstance(value, str)
}
