/* A kernel of arm64 that faults once, with a granule of 4K and addresses of 39 bits, and halts in its
   handler. USER has EL0 access memory. */

#define RAM 0x40000000
#define BLOCK 0x401	/* Normal memory by index 0, AF */
#define EL0 (1 << 6 | 1 << 11)	/* AP[1], nG */
#define TCR (25 | 25 << 16 | 2 << 30 | 1 << 32)	/* 39 bits, 4K, 36 bits of physical addresses */

	.globl	_start
_start:
	adr	x0, vectors
	msr	vbar_el1, x0
	mov	x0, #0xff
	msr	mair_el1, x0
	ldr	x0, =TCR
	msr	tcr_el1, x0
	adr	x0, root
	ldr	x1, =(RAM | BLOCK)
	str	x1, [x0, #8]
	/* The same memory at 0x80000000, for the user. */
	ldr	x1, =(RAM | BLOCK | EL0)
	str	x1, [x0, #16]
	msr	ttbr0_el1, x0
	msr	ttbr1_el1, x0
	dsb	sy
	isb
	mrs	x0, sctlr_el1
	orr	x0, x0, #1
	msr	sctlr_el1, x0
	isb
	adr	x0, access
#ifdef USER
	ldr	x1, =RAM
	add	x0, x0, x1
	msr	spsr_el1, xzr
#else
	mov	x1, #5
	msr	spsr_el1, x1
#endif
	msr	elr_el1, x0
	eret

	.globl	access
access:
#ifdef USER
	ldr	x0, =0x50001234	/* which is not the user's */
#else
	ldr	x0, =0xc0001234	/* where nothing is mapped */
#endif
	strb	wzr, [x0]
	b	.
	.ltorg

	.balign	2048
vectors:
	.rept	16
	b	halt
	.balign	128
	.endr
halt:
	wfi
	b	halt

	.balign	4096
root:
	.zero	4096
