/* The bits, selectors and ports of the PC that the stub uses; for C and for assembly. */
#ifndef CPU_H
#define CPU_H

/* What runs in the 32-bit modes is linked with the rest, so it is assembled as 32-bit code of a 64-bit file. */
#ifdef __i386__
#ifdef __ASSEMBLER__
	.code32
#else
asm(".code32");
#endif
#endif

#define CR0_PE		0x00000001
#define CR0_MP		0x00000002
#define CR0_ET		0x00000010
#define CR0_NE		0x00000020
#define CR0_WP		0x00010000
#define CR0_PG		0x80000000
#define CR0_OWN		(CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE)

#define CR4_PSE		0x00000010
#define CR4_PAE		0x00000020
#define CR4_PGE		0x00000080
#define CR4_LA57	0x00001000
#define CR4_PKE		0x00400000
#define CR4_CET		0x00800000
#define CR4_PKS		0x01000000

/* what decides the format of the tables, so that it is the same for the entry tables and the tested ones */
#define CR4_FORMAT	(CR4_PSE | CR4_PAE | CR4_LA57)

#define MSR_EFER	0xc0000080
#define EFER_LME	0x00000100
#define EFER_LMA	0x00000400
#define EFER_NXE	0x00000800
#define EFER_OWN	(EFER_LME | EFER_NXE)	/* what the stub runs with between batches */
#define EFER_LEGACY	EFER_NXE		/* and on its way through a 32-bit mode */
#define MSR_FS_BASE	0xc0000100
#define MSR_U_CET	0x6a0
#define MSR_S_CET	0x6a2
#define MSR_PL0_SSP	0x6a4
#define MSR_PL3_SSP	0x6a7
#define MSR_SSP_TABLE	0x6a8
#define MSR_PKRS	0x6e1

#define CET_SHADOW_STACKS 0x3		/* in U_CET and S_CET: shadow stacks, and WRSS */

#define RFLAGS_FIXED	0x00002
#define RFLAGS_AC	0x40000

/*
 * Selectors of gdt[], with the privilege level they are used at.  All segments are flat, but those that begin
 * at the window: the stub runs in them in the 32-bit modes, with the addresses that it is linked at.
 */
#define CODE64		0x08
#define DATA		0x10
#define CODE32		0x18
#define USER_DATA	(0x20 | 3)
#define USER_CODE64	(0x28 | 3)
#define USER_CODE32	(0x30 | 3)
#define WINDOW_CODE	0x38
#define WINDOW_DATA	0x40
#define RING1_CODE	(0x48 | 1)	/* at the window */
#define RING1_DATA	(0x50 | 1)
#define TASK		0x58		/* two entries in long mode, as LDT */
#define LDT		0x68
#define GDT_BYTES	0x78
#define LDT_FIRST	(0x00 | 4 | 3)	/* the first descriptor of the LDT, at CPL 3 */

#define BREAKPOINT	3
#define INVALID_OPCODE	6
#define NOT_PRESENT	11
#define STACK_FAULT	12
#define PROTECTION	13
#define PAGE_FAULT	14
#define CONTROL_PROTECTION 21
#define NEAR_RETURN	1		/* error code of that */

/* the 16550 at COM1 */
#define COM1		0x3f8
#define COM1_IRQ	4
#define COM1_IER	(COM1 + 1)
#define COM1_FCR	(COM1 + 2)
#define COM1_LCR	(COM1 + 3)
#define COM1_MCR	(COM1 + 4)
#define COM1_LSR	(COM1 + 5)
#define LSR_RECEIVED	0x01
#define LSR_EMPTY	0x20

/* the interrupt controllers: a pair of 8259, the first of which reaches LINT0 of the local APIC */
#define PIC		0x20
#define PIC_DATA	0x21
#define PIC2_DATA	0xa1
#define END_OF_INTERRUPT 0x20
#define APIC_SPURIOUS	0xfee000f0
#define APIC_LINT0	0xfee00350

#define EXCEPTION_STACK	1		/* in long mode: the number of the IST */

#define EXCEPTIONS	32
#define INTERRUPTS	8	/* of the first interrupt controller, vectors 32 to 39 */
#define VECTORS		(EXCEPTIONS + INTERRUPTS)

/* code at fixed distances, so that C finds it without a table of pointers: those would be absolute */
#define HANDLER_BYTES	16
#define ROUTINE_BYTES	32

#endif
