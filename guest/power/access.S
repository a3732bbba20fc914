/* The entry and the vectors; the way into an access and back; and the accesses, whose page the tested trees may map. */
#include "cpu.h"

	.macro vector place
	.org \place
	li %r0, \place
	b trap
	.endm

	.section .vectors, "ax"
	.org 0x10
	.globl boot
boot:				/* as hypervisor, which translates nothing */
	lis %r1, stack_end@ha
	addi %r1, %r1, stack_end@l - 128
	lis %r2, .TOC.@ha
	addi %r2, %r2, .TOC.@l
	b start

	.irp place, 0x100, 0x200, 0x300, 0x380, 0x400, 0x480, 0x500, 0x600, 0x700, 0x800
	vector \place
	.endr
	.org 0x900		/* the decrementer, which problem state lets through: it is put off */
	mtspr SPR_SPRG0, %r0
	lis %r0, 0x7fff
	mtspr SPR_DEC, %r0
	mfspr %r0, SPR_SPRG0
	rfid
	.irp place, 0x980, 0xa00, 0xc00, 0xd00, 0xe00, 0xe20, 0xe40, 0xe60, 0xe80, 0xea0, 0xf00, 0xf20, 0xf40, 0xf60, 0xf80
	vector \place
	.endr
	.org 0x1500
	li %r0, 0x1500
	b trap

	.org 0x2000
/* With the vector in r0.  r3 is what the access has left. */
trap:
	lis %r4, frame@ha
	addi %r4, %r4, frame@l
	ld %r5, 0(%r4)		/* the stack of attempt(), 0 outside */
	cmpdi %r5, 0
	beq unprovoked
	mr %r1, %r5
	std %r0, 8(%r4)
	mfspr %r5, SPR_SRR0
	std %r5, 16(%r4)
	mfspr %r5, SPR_SRR1
	std %r5, 24(%r4)
	mfspr %r5, SPR_DAR
	std %r5, 32(%r4)
	mfspr %r5, SPR_DSISR
	std %r5, 40(%r4)
	mfspr %r5, SPR_HSRR0
	std %r5, 48(%r4)
	mfspr %r5, SPR_HSRR1
	std %r5, 56(%r4)
	li %r5, 0
	std %r5, 0(%r4)
	.irp number, 2, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	ld %r\number, 32 + 8 * \number(%r1)
	.endr
	ld %r5, 32(%r1)
	mtcrf 0xff, %r5
	addi %r1, %r1, 320
	ld %r0, 16(%r1)
	mtlr %r0
	blr

unprovoked:
	lis %r1, stack_end@ha
	addi %r1, %r1, stack_end@l - 128
	lis %r2, .TOC.@ha
	addi %r2, %r2, .TOC.@l
	mr %r3, %r0
	b panic

	.text
/*
 * uint64_t attempt(r3 address, r4 value, r5 pc, r6 msr): HRFID to pc, with address and value in r3 and r4.  It returns
 * after the interrupt that ends this, noted in `frame`, with what r3 then was.  What runs there may change any register.
 */
	.globl attempt
	.balign 64
attempt:
	mflr %r0
	std %r0, 16(%r1)
	stdu %r1, -320(%r1)
	.irp number, 2, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	std %r\number, 32 + 8 * \number(%r1)
	.endr
	mfcr %r0
	std %r0, 32(%r1)
	lis %r7, frame@ha
	addi %r7, %r7, frame@l
	std %r1, 0(%r7)
	li %r0, 0
	mtspr SPR_DAR, %r0
	mtspr SPR_DSISR, %r0
	mtspr SPR_SRR0, %r0
	mtspr SPR_SRR1, %r0
	mtspr SPR_HSRR0, %r5
	mtspr SPR_HSRR1, %r6
	hrfid

	.section .accesses, "ax"
	.balign 65536
	.globl accesses
accesses:
	.macro routine instruction:vararg
	.balign ROUTINE_BYTES
	\instruction
	sc
	.endm
				/* in the order of enum routine in stub.c */
	routine lbz %r3, 0(%r3)
	routine lwz %r3, 0(%r3)
	routine ld %r3, 0(%r3)
	routine stb %r4, 0(%r3)
	routine stw %r4, 0(%r3)
	routine std %r4, 0(%r3)

	.bss
	.balign 4096
	.space 16384
stack_end:
