/* The bits, assigned storage locations and devices that the stub uses; for C and for assembly. */
#ifndef CPU_H
#define CPU_H

/* Assigned storage locations (real) */
#define LOW_EXTERNAL_PARAMETER	0x080
#define LOW_EXTERNAL_CODE	0x086
#define LOW_SVC_CODE		0x08a
#define LOW_PROGRAM_CODE	0x08e
#define LOW_TEID		0x0a8
#define LOW_EXTERNAL_OLD	0x130
#define LOW_SVC_OLD		0x140
#define LOW_PROGRAM_OLD		0x150
#define LOW_RESTART_NEW		0x1a0
#define LOW_EXTERNAL_NEW	0x1b0
#define LOW_SVC_NEW		0x1c0
#define LOW_PROGRAM_NEW		0x1d0
#define LOW_MACHINE_NEW		0x1e0
#define LOW_IO_NEW		0x1f0

/* PSW, bits as a doubleword */
#define PSW_DAT			0x0400000000000000
#define PSW_EXTERNAL		0x0100000000000000
#define PSW_WAIT		0x0002000000000000
#define PSW_PROBLEM		0x0001000000000000
#define PSW_SECONDARY		0x0000800000000000
#define PSW_HOME		0x0000c00000000000
#define PSW_64			0x0000000180000000

/* Control register 0: external interruptions by the service signal, and what a batch may ask for */
#define CR0_SERVICE_SIGNAL	0x0000000000000200
#define CR0_LOW_ADDRESS_PROTECTION	0x0000000010000000

#define REAL_SPACE		0x20	/* an ASCE */

/* The service-call logical processor, whose events are the console */
#define SCLP_WRITE_EVENT_DATA	0x00760005
#define SCLP_READ_EVENT_DATA	0x00770005
#define SCLP_WRITE_EVENT_MASK	0x00780005
#define SCLP_ASCII_DATA		0x1a	/* the type of an event: text */
#define SCLP_ASCII_MASK		(1u << (32 - SCLP_ASCII_DATA))
#define SCCB_BYTES		4096
#define SCLP_READ		0x0020	/* a response code */
#define SCLP_EVENT_PENDING	1	/* in the parameter of a service signal */

#endif
