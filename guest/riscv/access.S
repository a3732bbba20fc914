/* The entry; the ways into an access and back; and the accesses, whose page the tested tables map. */
#include "cpu.h"

	.option norelax		/* or the linker would align */

	.section .boot, "ax"
	.globl boot
boot:				/* a1: the device tree */
	csrw mie, zero
	la sp, stack_end
	la t0, trap
	csrw mtvec, t0
	csrw mscratch, zero
	li t0, -1
	srli t0, t0, 1
	csrw pmpaddr0, t0	/* all memory is open to everyone: one naturally aligned region */
	li t0, 0x1f
	csrw pmpcfg0, t0
	mv a0, a1
	tail start

	.macro each_saved instruction
	\instruction ra, 0*REGISTER(sp)
	\instruction gp, 1*REGISTER(sp)
	\instruction tp, 2*REGISTER(sp)
	\instruction s0, 3*REGISTER(sp)
	\instruction s1, 4*REGISTER(sp)
	\instruction s2, 5*REGISTER(sp)
	\instruction s3, 6*REGISTER(sp)
	\instruction s4, 7*REGISTER(sp)
	\instruction s5, 8*REGISTER(sp)
	\instruction s6, 9*REGISTER(sp)
	\instruction s7, 10*REGISTER(sp)
	\instruction s8, 11*REGISTER(sp)
	\instruction s9, 12*REGISTER(sp)
	\instruction s10, 13*REGISTER(sp)
	\instruction s11, 14*REGISTER(sp)
	.endm

	.text
/*
 * uintptr_t attempt(a0 address, a1 value, a2 pc, a3 mstatus): MRET to pc, with address and value in a0 and a1.  It
 * returns after the exception that ends this, noted in `frame`, with what a0 then was.  What runs there may change any
 * register.  Until it returns, mscratch holds the stack; at all other times it is 0.
 */
	.globl attempt
	.balign 16
attempt:
	addi sp, sp, -16*REGISTER
	each_saved STORE
	csrw mscratch, sp
	csrw mstatus, a3
	csrw mepc, a2
	mret

/* The same without leaving machine mode: `mstatus` has MPRV, by which loads and stores are the other mode's. */
	.globl attempt_by_mprv
	.balign 16
attempt_by_mprv:
	addi sp, sp, -16*REGISTER
	each_saved STORE
	csrw mscratch, sp
	csrw mstatus, a3
	jr a2

/* While it runs MPP is the privilege that the exception came from: that of machine mode has MPRV mean nothing. */
	.balign 16
trap:
	csrrw sp, mscratch, sp
	beqz sp, unprovoked
	csrw mscratch, zero
	la t0, frame
	csrr t1, mcause
	STORE t1, 0*REGISTER(t0)
	csrr t1, mtval
	STORE t1, 1*REGISTER(t0)
	csrr t1, mepc
	STORE t1, 2*REGISTER(t0)
	each_saved LOAD
	addi sp, sp, 16*REGISTER
	ret

unprovoked:
	la sp, stack_end
	tail panic

	.section .accesses, "ax"
	.balign 4096
	.option norvc
	.globl accesses
accesses:			/* in the order of enum routine in stub.c */
	lbu a0, 0(a0)
	ecall
	lw a0, 0(a0)		/* with its sign, which is cut off */
	ecall
	LOAD a0, 0(a0)
	ecall
	sb a1, 0(a0)
	ecall
	sw a1, 0(a0)
	ecall
	STORE a1, 0(a0)
	ecall
	amoswap.w a0, a1, (a0)
	ecall
	lr.w a0, (a0)
	ecall
#if __riscv_xlen == 64
	amoswap.d a0, a1, (a0)
	ecall
	lr.d a0, (a0)
	ecall
#endif

/* For machine mode alone: CSRs that may not be there.  a1 is set in them; a0 is what was there. */
	.text
	.balign 16
	.globl set_menvcfg, set_menvcfgh, set_senvcfg
set_menvcfg:
	csrrw a0, CSR_MENVCFG, a1
	ecall
set_menvcfgh:
	csrrw a0, CSR_MENVCFGH, a1
	ecall
set_senvcfg:
	csrrw a0, CSR_SENVCFG, a1
	ecall

	.bss
	.balign 16
	.space 4096
stack_end:
