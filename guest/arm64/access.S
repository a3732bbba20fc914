/* The entry; the ways into an access and back; and the accesses, whose page the tested tables map. */
#include "cpu.h"

	.arch armv8.4-a		/* what a processor may lack is not asked of it */

	.section .boot, "ax"
	.globl boot
boot:				/* at EL2, which translates nothing */
	adrp x1, stack_end
	mov sp, x1
	adr x1, vectors
	msr vbar_el2, x1
	mov x1, #HCR_RW
	msr hcr_el2, x1
	isb
	b start

	.text
/*
 * uint64_t attempt(x0 address, x1 value, x2 pc, x3 spsr): ERET to pc, with address and value in x0 and x1.  It returns
 * after the exception that ends this, noted in `frame`, with what x0 then was.  What runs there may change any register.
 */
	.globl attempt
	.balign 64
attempt:
	stp x29, x30, [sp, #-96]!
	stp x19, x20, [sp, #16]
	stp x21, x22, [sp, #32]
	stp x23, x24, [sp, #48]
	stp x25, x26, [sp, #64]
	stp x27, x28, [sp, #80]
	msr esr_el1, xzr
	msr elr_el2, x2
	msr spsr_el2, x3
	eret

/* EL1 has handed on what was its own, by HVC; anything else that came to EL2 is noted from there. */
	.balign 64
trap:
	adrp x9, frame
	add x9, x9, :lo12:frame
	mrs x10, esr_el2
	lsr x11, x10, #EC_SHIFT
	cmp x11, #EC_HVC
	b.ne 1f
	mrs x10, esr_el1
	mrs x11, far_el1
	mrs x12, elr_el1
	b 2f
1:	mrs x11, far_el2
	mrs x12, elr_el2
2:	stp x10, x11, [x9]
	str x12, [x9, #16]
	ldp x19, x20, [sp, #16]
	ldp x21, x22, [sp, #32]
	ldp x23, x24, [sp, #48]
	ldp x25, x26, [sp, #64]
	ldp x27, x28, [sp, #80]
	ldp x29, x30, [sp], #96
	ret

/*
 * uint64_t translator(x0 address): PAR_EL1.  Where the walk meets no memory an exception ends this, noted in `frame`; it
 * leaves the processor as a function may.
 */
	.balign 64
	.globl translators
translators:			/* in the order of enum translator in stub.c */
	.irp operation, s1e1r, s1e1w, s1e0r, s1e0w, s1e1rp, s1e1wp
	at \operation, x0
	isb
	mrs x0, par_el1
	ret
	.endr

own:				/* an exception of the stub's */
	mrs x12, elr_el2
	adr x9, translators
	sub x10, x12, x9
	cmp x10, #TRANSLATORS * TRANSLATOR_BYTES
	b.hs unprovoked
	adrp x9, frame
	add x9, x9, :lo12:frame
	mrs x10, esr_el2
	mrs x11, far_el2
	stp x10, x11, [x9]
	str x12, [x9, #16]
	ret

unprovoked:
	adrp x1, stack_end
	mov sp, x1
	b panic

	.balign 2048
vectors:
	.irp handler, unprovoked, unprovoked, unprovoked, unprovoked, own, unprovoked, unprovoked, unprovoked
	.balign 128
	b \handler
	.endr
	.irp handler, trap, trap, unprovoked, unprovoked, unprovoked, unprovoked, unprovoked, unprovoked
	.balign 128
	b \handler
	.endr

	.section .accesses, "ax"
	.balign 65536
	.globl accesses
accesses:
	.rept 16		/* the vectors of EL1 */
	.balign 128
	hvc #0
	.endr
	.balign VECTORS_BYTES

	.macro routine instruction:vararg
	.balign ROUTINE_BYTES
	\instruction
	svc #0
	.endm

	.macro exclusive old, status, new
	.balign ROUTINE_BYTES
1:	ldxr \old, [x0]
	stxr \status, \new, [x0]
	cbnz \status, 1b
	mov x0, x2
	svc #0
	.endm

				/* in the order of enum routine in stub.c */
	routine ldrb w0, [x0]
	routine ldr w0, [x0]
	routine ldr x0, [x0]
	routine strb w1, [x0]
	routine str w1, [x0]
	routine str x1, [x0]
	routine ldtrb w0, [x0]
	routine ldtr w0, [x0]
	routine ldtr x0, [x0]
	routine sttrb w1, [x0]
	routine sttr w1, [x0]
	routine sttr x1, [x0]
	routine swp w1, w0, [x0]
	routine swp x1, x0, [x0]
	exclusive w2, w3, w1
	exclusive x2, w3, x1
	.balign ROUTINE_BYTES
1:	wfi
	b 1b

	.bss
	.balign 4096
	.space 16384
stack_end:
