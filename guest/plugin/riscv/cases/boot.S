/*
 * The way from the start in M-mode to `run_cases` and `run_other` in S-mode, the first hart's and another's, without
 * translation; what M-mode does for the cases; and user mode.
 */
#if MODE == 32
#define LOAD lw
#define STORE sw
#define SIZE 4
#else
#define LOAD ld
#define STORE sd
#define SIZE 8
#endif

	.section .boot, "ax"
	.globl start
start:
	csrr s0, mhartid
	mv s1, a1		/* the device tree */
	li t0, -1		/* all memory is S-mode's and U-mode's */
	csrw pmpaddr0, t0
	li t0, 0x1f
	csrw pmpcfg0, t0
#if MODE != 32
	la t0, 1f
	csrw mtvec, t0
	li t0, 1 << 61		/* ADUE: harts set A and D */
	csrs 0x30a, t0
	.balign 4
1:
#endif
	la t0, machine_trap
	csrw mtvec, t0
	li t0, 0xb100		/* to S-mode: page faults, and the user's ECALL */
	csrw medeleg, t0
	la t0, on_trap
	csrw stvec, t0
	li t0, 0x7e00		/* vectors and floats on */
	csrs mstatus, t0
	li t0, 0x1800
	csrc mstatus, t0
	li t0, 0x800
	csrs mstatus, t0
	la sp, stack_top
	la t0, run_cases
	mv a0, s1
	li tp, 1
	beqz s0, 2f
	la sp, other_stack_top
	la t0, run_other
2:	csrw mepc, t0
	mret

	/* What S-mode asks of M-mode by a7, with a0 and a1; t0 and t1 are lost. */
	.balign 4
machine_trap:
	csrr t0, mcause
	li t1, 9
	beq t0, t1, 1f
	li t0, 0x10000000
	li t1, '!'
	sb t1, (t0)
	li t0, 0x100000
	li t1, 0x23333		/* ends QEMU with exit code 2 */
	sw t1, (t0)
	j .
1:	csrr t0, mepc
	addi t0, t0, 4
	csrw mepc, t0
	beqz a7, 2f
	addi a7, a7, -1
	beqz a7, 3f
	addi a7, a7, -1
	beqz a7, 4f
	addi a7, a7, -1
	beqz a7, 5f
	li t0, 1 << 20		/* sets or clears TVM */
	csrc mstatus, t0
	beqz a0, 6f
	csrs mstatus, t0
6:	mret
2:	li t0, 1 << 17		/* reads as S-mode, by MPRV */
	csrs mstatus, t0
	lb t1, (a0)
	li t0, 1 << 17
	csrc mstatus, t0
	mret
3:	STORE a1, (a0)		/* stores by a physical address */
	mret
4:	sfence.vma a0, zero
	mret
5:	.insn r 0x73, 0, 0x0b, zero, a0, zero	/* SINVAL.VMA */
	mret

	/* A page fault goes on where `recover` says, as kernels do whose accesses may fault. */
	.text
	.balign 4
on_trap:
	csrr t0, scause
	li t1, 8
	beq t0, t1, returned
	la t0, recover
	LOAD t0, (t0)
	csrw sepc, t0
	sret
returned:
	la t0, kernel_stack
	LOAD sp, (t0)
	LOAD ra, (sp)
	addi sp, sp, 16
	ret

	/* To user mode, at another address of the same code, which comes back at once. */
	.globl go_to_user, after_user_read
go_to_user:
	addi sp, sp, -16
	STORE ra, (sp)
	la t0, kernel_stack
	STORE sp, (t0)
	la t0, in_user
	li t1, FOR_USERS
	add t0, t0, t1
	csrw sepc, t0
	li t0, 0x100
	csrc sstatus, t0
	la t0, read_by_user
	LOAD a0, (t0)
	sret
in_user:
	beqz a0, after_user_read
	lb a0, (a0)
after_user_read:
	ecall

	.data
	.balign 8
	.globl recover, read_by_user
recover:
	.skip SIZE
read_by_user:
	.skip SIZE
kernel_stack:
	.skip SIZE

	.bss
	.balign 16
	.skip 16384
stack_top:
	.skip 16384
other_stack_top:
