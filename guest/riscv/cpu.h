/* The bits, causes and devices that the stub uses; for C and for assembly. */
#ifndef CPU_H
#define CPU_H

/* mstatus */
#define MSTATUS_MPP	0x00001800	/* the privilege that MRET and MPRV take: 0 user, 1 supervisor, 3 machine */
#define MSTATUS_MPP_S	0x00000800
#define MSTATUS_MPRV	0x00020000
#define MSTATUS_SUM	0x00040000
#define MSTATUS_MXR	0x00080000

#define MIE_MEIE	0x00000800	/* external interrupts, to machine mode */

/* CSRs that a processor may lack, by number: assemblers do not know all of them */
#define CSR_SENVCFG	0x10a
#define CSR_MENVCFG	0x30a
#define CSR_MENVCFGH	0x31a

#define CAUSE_FETCH_ACCESS	1
#define CAUSE_ILLEGAL		2
#define CAUSE_ECALL_USER	8
#define CAUSE_ECALL_SUPERVISOR	9
#define CAUSE_ECALL_MACHINE	11
#define CAUSE_FETCH_PAGE	12

#define ROUTINE_BYTES	8	/* what lies at `accesses`: an access, and ECALL */

/* QEMU's machine "virt" */
#define UART		0x10000000
#define UART_IRQ	10
#define UART_IER	1
#define UART_FCR	2
#define UART_LCR	3
#define UART_LSR	5
#define LSR_RECEIVED	0x01
#define LSR_EMPTY	0x20
#define PLIC_PRIORITY	0x0c000000
#define PLIC_ENABLE	0x0c002000	/* of hart 0 in machine mode */
#define PLIC_THRESHOLD	0x0c200000
#define PLIC_CLAIM	0x0c200004

#if __riscv_xlen == 64
#define LOAD		ld
#define STORE		sd
#define REGISTER	8
#else
#define LOAD		lw
#define STORE		sw
#define REGISTER	4
#endif

#endif
