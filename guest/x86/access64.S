/* In long mode: the handlers of exceptions, and the accesses themselves; runs at the identity and in the window. */
#include "cpu.h"
#include "vectors.S"

/* void call_at(uint64_t offset, void (*function)(void)): calls the function, and has its stack, at the alias
   of the stub that lies `offset` above. */
	.globl call_at
call_at:
	push %rbx
	mov %rdi, %rbx
	add %rdi, %rsp
	add %rdi, %rsi
	call *%rsi
	sub %rbx, %rsp
	pop %rbx
	ret

/*
 * All handlers run on the one exception stack (EXCEPTION_STACK), so that RSP may hold anything when a probe faults;
 * hence the frame always lies at `frame`, where C reads it.
 */
caught:
	cmpq $0, attempt_stack(%rip)
	je unexpected
	/* the access of an attempt: return from there, with RAX as it is */
end_attempt:
	cmpb $0, on_shadow_stack(%rip)
	jne leave_shadow_stack
off_shadow_stack:
	mov attempt_stack(%rip), %rsp
	movq $0, attempt_stack(%rip)
	cld
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

unexpected:		/* struct registers */
	push %r15
	push %r14
	push %r13
	push %r12
	push %r11
	push %r10
	push %r9
	push %r8
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rsp
	push %rbp
	push %rsi
	push %rdi
	mov %rsp, %rdi
	cld
	call panic

/* An interrupt ends the HLT of the idle loop and has no other use. */
interrupted:
	push %rax
	mov $END_OF_INTERRUPT, %al
	out %al, $PIC
	pop %rax
	iretq

/*
 * uintptr_t attempt_supervisor(uintptr_t address, uintptr_t value, uintptr_t routine, uintptr_t flags)
 * uintptr_t attempt_user(the same)
 * Go to the routine with address and value in RDI and RSI, and RAX 0.  They return, with the RAX of the moment,
 * when an exception comes (its frame is then in `frame`) or at `finished` (frame.vector is then VECTOR_NONE).
 */
	.macro begin_attempt
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, attempt_stack(%rip)
	xor %eax, %eax
	.endm

	.globl attempt_supervisor
attempt_supervisor:
	begin_attempt
	test $RFLAGS_AC, %ecx
	jz 1f
	push %rcx
	popfq
1:	jmp *%rdx
finished:
	movq $0xff, frame(%rip)
	jmp end_attempt

	.globl attempt_user
attempt_user:
	begin_attempt
	push $USER_DATA
	push $0
	push %rcx
	push $USER_CODE64
	push %rdx
	iretq

/*
 * uintptr_t attempt_on_shadow_stack(the same)
 * As attempt_supervisor, with shadow stacks enabled and SSP at the address.  SSP is a register of no MOV: SETSSBSY
 * loads it with the stub's own shadow stack, on which a frame of IRET is laid that takes it to the address.  The
 * exception that may come has another part of that stack, whose token has to be free each time.
 */
	.globl attempt_on_shadow_stack
attempt_on_shadow_stack:
	begin_attempt
	mov %rdx, %r8
	mov %rcx, %r9
	movb $1, on_shadow_stack(%rip)
	mov $MSR_S_CET, %ecx
	mov $CET_SHADOW_STACKS, %eax
	xor %edx, %edx
	wrmsr
	lea exception_shadow_token(%rip), %rax
	wrssq %rax, (%rax)
	lea shadow_token(%rip), %rax
	wrssq %rax, (%rax)
	setssbsy
	mov $1, %edx
	incsspq %rdx
	wrssq %rdi, 8(%rax)
	wrssq %r8, 16(%rax)
	mov $CODE64, %edx
	wrssq %rdx, 24(%rax)
	mov %rsp, %rax
	push $DATA
	push %rax
	push %r9
	push $CODE64
	push %r8
	xor %eax, %eax
	iretq

/* Back to end_attempt, which returns: shadow stacks must be off by then. */
leave_shadow_stack:
	mov %rax, %r8
	mov $MSR_S_CET, %ecx
	xor %eax, %eax
	xor %edx, %edx
	wrmsr
	movb $0, on_shadow_stack(%rip)
	mov %r8, %rax
	jmp off_shadow_stack

/* In the order of `enum routine` in probes.c; an exception in a read leaves RAX 0. */
	.macro routine instructions:vararg
	.balign ROUTINE_BYTES
	\instructions
	.endm

	.macro accesses end:vararg
	routine movzbl (%rdi), %eax; \end
	routine mov (%rdi), %eax; \end
	routine mov (%rdi), %rax; \end
	routine mov %sil, (%rdi); \end
	routine mov %esi, (%rdi); \end
	routine mov %rsi, (%rdi); \end
	routine jmp *%rdi
	routine lea 8(%rdi), %rsp; push %rsi; \end
	routine mov $LDT_FIRST, %ecx; mov %ecx, %fs; \end
	routine incsspq %rax; \end
	routine wrssq %rsi, (%rdi); \end
	.endm

	.macro changes register
	routine mov \register, %rax; xor %rsi, %rax; mov %rax, \register; xor %rsi, %rax; mov %rax, \register; jmp finished
	.endm

	.globl supervisor_accesses
	.balign ROUTINE_BYTES
supervisor_accesses:
	accesses jmp finished
	routine wrussq %rsi, (%rdi); jmp finished
	routine push $0; ret
	routine call 1f; ud2; 1: pop %rax; jmp finished	/* not to what follows it: that is no call to a shadow stack */
	routine mov %rsi, %cr3; jmp finished
	routine mov %cr4, %rax; xor $CR4_PGE, %al; mov %rax, %cr4; xor $CR4_PGE, %al; mov %rax, %cr4; jmp finished
	routine lldt %si; jmp finished
	changes %cr0
	changes %cr3
	changes %cr4
	.balign ROUTINE_BYTES

	.section .user, "ax"
	.globl user_accesses
	.balign ROUTINE_BYTES
user_accesses:
	accesses ud2
	routine ud2		/* WRUSS is the supervisor's */
	routine lea zero(%rip), %rsp; ret
	.balign ROUTINE_BYTES
zero:
	.quad 0

/* The stub's shadow stack: a page of .text, written by WRSS and by what uses it.  An exception takes what is below
   its token, an IRET the words above the other. */
	.text
	.balign 4096
	.skip 2048
	.globl exception_shadow_token, shadow_token
exception_shadow_token:
	.quad 0
shadow_token:
	.skip 2048 - 8

	.bss
	.balign 4096
	.skip 4096 - 7 * 8
	.globl frame, exception_stack_top
frame:
	.skip 7 * 8
exception_stack_top:
attempt_stack:
	.skip 8			/* RSP to return with from the access under way; 0: there is none */
on_shadow_stack:
	.skip 8

	.section .note.GNU-stack, "", @progbits
