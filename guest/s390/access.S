/* The entry; the ways into an access and back; and the accesses. */
#include "cpu.h"

	.section .boot, "ax"
	.globl boot
boot:
	larl %r15, stack_end
	aghi %r15, -160
	larl %r1, new_psws		/* of external, supervisor call, program, machine check, I/O */
	mvc LOW_EXTERNAL_NEW(5*16), 0(%r1)
	mvc LOW_RESTART_NEW(16), 4*16(%r1)
	larl %r1, primary
	lctlg %c1, %c1, 0(%r1)
	brasl %r14, start

	.balign 8
new_psws:
	.quad PSW_64, external
	.quad PSW_64, ended_by_call
	.quad PSW_64, ended_by_program
	.quad PSW_64, unprovoked
	.quad PSW_64, unprovoked
primary:
	.quad REAL_SPACE

	.text
/*
 * uint64_t attempt(r2 address, r3 value, r4 PSW): LPSWE, with address and value in r2 and r3.  It returns after the
 * interruption that ends this, noted in `frame`, with what r2 then was.  What runs there may change any register.
 * Until it returns `saved` holds the stack; at all other times it is 0.
 */
	.globl attempt
	.balign 16
attempt:
	stmg %r6, %r15, 48(%r15)
	larl %r1, saved
	stg %r15, 0(%r1)
	lpswe 0(%r4)

	.balign 16
ended_by_call:
	larl %r1, frame
	mvc 0(16, %r1), LOW_SVC_OLD
	llill %r0, 0xffff		/* CODE_NONE */
	st %r0, 16(%r1)
	j ended

	.balign 16
ended_by_program:
	larl %r1, frame
	mvc 0(16, %r1), LOW_PROGRAM_OLD
	llgh %r0, LOW_PROGRAM_CODE
	st %r0, 16(%r1)
ended:
	mvc 24(8, %r1), LOW_TEID
	larl %r1, saved
	ltg %r15, 0(%r1)
	jz unprovoked
	mvghi 0(%r1), 0
	lmg %r6, %r15, 48(%r15)
	br %r14

	.balign 16
unprovoked:
	larl %r15, stack_end
	aghi %r15, -160
	lghi %r2, 0
	brasl %r14, panic

/* uint32_t sleep(r2 PSW): wait for the service signal, and answer its parameter. */
	.globl sleep
	.balign 16
sleep:
	larl %r1, awake
	stg %r14, 0(%r1)
	lpswe 0(%r2)

	.balign 16
external:
	larl %r1, awake
	ltg %r14, 0(%r1)
	jz unprovoked
	mvghi 0(%r1), 0
	llgf %r2, LOW_EXTERNAL_PARAMETER
	br %r14

/* What the accesses of data execute, in the order of enum access from ACCESS_LOAD on. */
	.section .accesses, "ax"
	.balign 4096
	.globl accesses
accesses:
	lg %r2, 0(%r2)
	svc 0
	stg %r3, 0(%r2)
	svc 0

	.bss
	.balign 8
saved:
	.space 8
awake:
	.space 8
	.balign 16
	.space 8192
stack_end:
	.section .note.GNU-stack, "", @progbits
