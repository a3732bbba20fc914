/* What of POWER the C and the assembly know (Power ISA 3.0, Book III), and of QEMU's machine powernv9. */
#ifndef CPU_H
#define CPU_H

#define SPR_DSISR	18
#define SPR_DAR		19
#define SPR_DEC		22
#define SPR_SRR0	26
#define SPR_SRR1	27
#define SPR_AMR		29
#define SPR_PIDR	48
#define SPR_UAMOR	157
#define SPR_SPRG0	272
#define SPR_PVR		287
#define SPR_HSRR0	314
#define SPR_HSRR1	315
#define SPR_LPCR	318
#define SPR_LPIDR	319
#define SPR_IAMR	61
#define SPR_AMOR	349
#define SPR_PTCR	464
#define SPR_PSSCR	855

#define VECTOR_DATA_STORAGE		0x300
#define VECTOR_DATA_SEGMENT		0x380
#define VECTOR_INSTRUCTION_STORAGE	0x400
#define VECTOR_INSTRUCTION_SEGMENT	0x480
#define VECTOR_SYSTEM_CALL		0xc00

/* Bytes from one routine of .accesses to the next: a power of two. */
#define ROUTINE_BYTES	8

#endif
