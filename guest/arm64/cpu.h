/* The bits, codes and devices that the stub uses; for C and for assembly. */
#ifndef CPU_H
#define CPU_H

/* HCR_EL2 */
#define HCR_IMO		0x10		/* interrupts below EL2 are taken to EL2 */
#define HCR_RW		0x80000000	/* EL1 executes A64 */

/* SPSR_EL2: where ERET goes, with all interrupts masked there */
#define SPSR_EL0	0x3c0
#define SPSR_EL1	0x3c5		/* with a stack pointer of its own */
#define SPSR_PAN	0x00400000
#define SPSR_UAO	0x00800000

/* ESR_ELx: the exception class in bits 31:26 */
#define EC_SHIFT	26
#define EC_SVC		0x15
#define EC_HVC		0x16
#define EC_FETCH_EL0	0x20
#define EC_FETCH_EL1	0x21

#define SCTLR_OFF	0x30d00800	/* no translation; the bits that are 1 in ARMv8.0 */
#define TCR_A1		0x00400000	/* the ASID is that of TTBR1_EL1 */

/* What lies at `accesses`: the vectors of EL1, each an HVC; then the accesses, each with an SVC at its end. */
#define VECTORS_BYTES	0x800
#define ROUTINE_BYTES	32

#define TRANSLATOR_BYTES	16	/* what lies at `translators`: an AT, what it found, and RET */
#define TRANSLATORS		6

/* QEMU's machine "virt" */
#define UART		0x09000000
#define UART_IRQ	33
#define UART_DR		0x000
#define UART_FR		0x018
#define UART_LCR	0x02c
#define UART_CR		0x030
#define UART_IMSC	0x038
#define UART_ICR	0x044
#define FR_NOTHING	0x10		/* nothing was received */
#define FR_FULL		0x20
#define UART_RECEIVED	0x50		/* IMSC, ICR: a byte came, and it has lain there for a while */
#define GICD		0x08000000
#define GICD_CTLR	(GICD + 0x000)
#define GICD_ISENABLER	(GICD + 0x100)
#define GICD_ITARGETSR	(GICD + 0x800)
#define GICC		0x08010000
#define GICC_CTLR	(GICC + 0x000)
#define GICC_PMR	(GICC + 0x004)

#endif
