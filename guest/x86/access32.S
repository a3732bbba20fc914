/*
 * In the 32-bit modes: the handlers of exceptions, and the accesses themselves.  It runs in the segments of the
 * window, so that its addresses are those it is linked at; GS is flat, for the accesses.
 */
#include "cpu.h"
#include "vectors.S"

/*
 * An exception at CPL 0 has its frame on the stack in use, which attempt_supervisor has put where the frame
 * from an outer level begins behind its SS and ESP: hence the frame of a probe always lies at `frame`, where C
 * reads it.  The return to an outer level has taken DS and ES away.
 */
caught:
	cmpl $0, %ss:attempt_stack
	je unexpected
	/* the access of attempt_user or attempt_supervisor: return from there, with EAX as it is */
	push $WINDOW_DATA
	pop %ds
	push $WINDOW_DATA
	pop %es
end_attempt:
	mov attempt_stack, %esp
	movl $0, attempt_stack
	cld
	pop %edi
	pop %esi
	pop %ebp
	pop %ebx
	ret

unexpected:		/* struct registers */
	pusha
	mov %esp, %eax
	mov $WINDOW_DATA, %ecx
	mov %ecx, %ds
	mov %ecx, %es
	cld
	push %eax
	call panic

/* An interrupt ends the HLT of the idle loop and has no other use. */
interrupted:
	push %eax
	mov $END_OF_INTERRUPT, %al
	out %al, $PIC
	pop %eax
	iret

/*
 * uintptr_t attempt_supervisor(uintptr_t address, uintptr_t value, uintptr_t routine, uintptr_t flags)
 * uintptr_t attempt_user(the same)
 * Go to the routine with address and value in EDI and ESI, and EAX 0.  They return, with the EAX of the moment,
 * when an exception comes (its frame is then in `frame`) or at `finished` (frame.vector is then VECTOR_NONE).
 */
	.macro begin_attempt
	push %ebx
	push %ebp
	push %esi
	push %edi
	mov 20(%esp), %edi
	mov 24(%esp), %esi
	mov 28(%esp), %edx
	mov 32(%esp), %ecx
	mov %esp, attempt_stack
	mov $exception_stack_top - 8, %esp
	xor %eax, %eax
	.endm

	.globl attempt_supervisor
attempt_supervisor:
	begin_attempt
	test $RFLAGS_AC, %ecx
	jz 1f
	push %ecx
	popf
1:	jmp *%edx
finished:
	movl $0xff, frame
	jmp end_attempt

	.globl attempt_user
attempt_user:
	begin_attempt
	push $USER_DATA
	push $0
	push %ecx
	push $USER_CODE32
	push %edx
	iret

/*
 * In the order of `enum routine` in probes.c; an exception in a read leaves EAX 0.  There are no accesses of 8
 * bytes.  A stack that faults can not take the frame too, so the supervisor's push is made at CPL 1.
 */
	.macro routine instructions:vararg
	.balign ROUTINE_BYTES
	\instructions
	.endm

	.macro read_or_write end:vararg
	routine movzbl %gs:(%edi), %eax; \end
	routine mov %gs:(%edi), %eax; \end
	routine int3
	routine mov %esi, %ecx; mov %cl, %gs:(%edi); \end
	routine mov %esi, %gs:(%edi); \end
	routine int3
	.endm

	.macro changes register
	routine mov \register, %eax; xor %esi, %eax; mov %eax, \register; xor %esi, %eax; mov %eax, \register; jmp finished
	.endm

	.globl supervisor_accesses
	.balign ROUTINE_BYTES
supervisor_accesses:
	read_or_write jmp finished
	routine push $CODE32; push %edi; lret
	routine push $RING1_DATA; push $0; pushf; push $RING1_CODE; push $1f; iret; 1: lea 4(%edi), %esp; push %esi; ud2
	routine mov $LDT_FIRST, %ecx; mov %ecx, %fs; jmp finished
	routine int3
	routine int3
	routine wrussd %esi, %gs:(%edi); jmp finished
	routine mov %esi, %cr3; jmp finished
	routine mov %cr4, %eax; xor $CR4_PGE, %al; mov %eax, %cr4; xor $CR4_PGE, %al; mov %eax, %cr4; jmp finished
	routine lldt %si; jmp finished
	changes %cr0
	changes %cr3
	changes %cr4
	.balign ROUTINE_BYTES

	.section .user, "ax"
	.globl user_accesses
	.balign ROUTINE_BYTES
user_accesses:
	read_or_write ud2
	routine jmp *%edi
	routine lea 4(%edi), %esp; push %esi; ud2
	routine mov $LDT_FIRST, %ecx; mov %ecx, %fs; ud2
	routine incsspd %eax; ud2
	routine wrssd %esi, %gs:(%edi); ud2
	.balign ROUTINE_BYTES

	.bss
	.balign 4096
	.skip 4096 - 7 * 4
	.globl frame, exception_stack_top
frame:
	.skip 7 * 4
exception_stack_top:
attempt_stack:
	.skip 4			/* ESP to return with from the access under way; 0: there is none */

	.section .note.GNU-stack, "", @progbits
