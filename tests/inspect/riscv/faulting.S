/* A kernel of RISC-V that faults once, in Sv39 or Sv32, and halts in its handler.

   M-mode delegates every exception to S-mode, unless M is defined: then S-mode's fault is M-mode's
   to handle. USER has U-mode access memory. */

#if __riscv_xlen == 64
#define SATP (8 << 60)
#define STORE sd
#define ENTRY(n) ((n) * 8)
#define OF_RAM 2  /* 1G pages */
#else
#define SATP (1 << 31)
#define STORE sw
#define ENTRY(n) ((n) * 4)
#define OF_RAM 512  /* 4M pages */
#endif

#define VRWXAD 0xcf
#define U 0x10
#ifdef USER
#define MPP 0
#else
#define MPP (1 << 11)
#endif

	.globl	_start
_start:
	li	t0, -1
	csrw	pmpaddr0, t0
	li	t0, 0x1f
	csrw	pmpcfg0, t0
#ifndef M
	li	t0, -1
	csrw	medeleg, t0
#endif
	la	t0, halt
	csrw	mtvec, t0
	csrw	stvec, t0
	la	t0, root
	li	t1, (0x80000000 >> 2) | VRWXAD
	li	t2, ENTRY(OF_RAM)
	add	t2, t2, t0
	STORE	t1, 0(t2)
	/* The same memory at 0, for the user. */
	li	t1, (0x80000000 >> 2) | VRWXAD | U
	STORE	t1, 0(t0)
	srli	t0, t0, 12
	li	t1, SATP
	or	t0, t0, t1
	csrw	satp, t0
	sfence.vma
	li	t0, 3 << 11
	csrc	mstatus, t0
	li	t0, MPP
	csrs	mstatus, t0
	la	t0, access
#ifdef USER
	li	t1, 0x80000000
	sub	t0, t0, t1
#endif
	csrw	mepc, t0
	mret

	.globl	access
access:
	li	t0, 0x50001234
	sw	zero, 0(t0)

	.balign	4
halt:
	wfi
	j	halt

	.balign	4096
root:
	.zero	4096
