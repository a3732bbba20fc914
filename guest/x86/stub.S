/*
 * What C can not say: the way into and out of long mode, the handlers of the exceptions, and the accesses
 * themselves.  Except for .boot and .tables, which are used at the address they are linked at, everything
 * is position-independent: it runs at the identity and in the window.
 */
#include "cpu.h"

	.section .note.pvh, "a", @note
	.balign 4
	.long 4			/* bytes of the name */
	.long 8			/* bytes of the content */
	.long 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad pvh_start

/* The stub's own tables: the identity of the first 4 GiB, in pages of 2 MiB (present, writable, A and D set). */
	.section .tables, "aw"
	.balign 4096
own_pml4:
	.quad own_pdpt + 0x23
	.fill 511, 8, 0
own_pdpt:
	.set index, 0
	.rept 4
	.quad own_directories + 4096 * index + 0x23
	.set index, index + 1
	.endr
	.fill 508, 8, 0
own_directories:
	.set index, 0
	.rept 4 * 512
	.quad (index << 21) + 0xe3
	.set index, index + 1
	.endr

	.section .boot, "ax"
	.code32
	.globl pvh_start
pvh_start:		/* 32-bit, no paging, flat segments; interrupts are off (the PVH boot ABI) */
	cld
	lgdt boot_gdt
	mov $stack_top, %esp
	mov $own_pml4, %esi
	mov $CR4_PAE, %edi
	mov $start_64, %ebx
/* Long mode with CR3 = esi and CR4 = edi, then to ebx; all three addresses are identities in the tables. */
enter_long_mode:
	mov %edi, %cr4
	mov %esi, %cr3
	mov $MSR_EFER, %ecx
	mov $EFER_OWN, %eax
	xor %edx, %edx
	wrmsr
	mov $CR0_OWN, %eax
	mov %eax, %cr0
	ljmp $CODE64, $1f
	.code64
1:	mov %ebx, %ebx
	jmp *%rbx

start_64:
	mov $stack_top, %rsp
	call start
1:	hlt
	jmp 1b

/* void reenter_long_mode(uint64_t cr3, uint64_t cr4): called and returns at the identity; CR4.LA57 and the
   table format can only change outside long mode. */
	.globl reenter_long_mode
reenter_long_mode:
	push %rbx
	push %rbp
	mov %rsi, %rax
	mov %rdi, %rsi
	mov %rax, %rdi
	mov %rsp, %rbp
	mov $2f, %ebx
	push $CODE32
	push $1f
	lretq
	.code32
1:	mov $DATA, %eax
	mov %eax, %ss
	mov %eax, %ds
	mov %eax, %es
	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0
	jmp enter_long_mode
	.code64
2:	mov %rbp, %rsp
	pop %rbp
	pop %rbx
	ret

	.globl own_cr3
own_cr3:
	mov $own_pml4, %eax
	ret

	.balign 4
boot_gdt:
	.word TASK + 16 - 1
	.long gdt

	.text
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

/* void load_descriptor_registers(const void *gdtr, const void *idtr); TASK is in the new GDT */
	.globl load_descriptor_registers
load_descriptor_registers:
	lgdt (%rdi)
	lidt (%rsi)
	mov $TASK, %eax
	ltr %ax
	ret

/*
 * Handlers.  All run on the one exception stack (IST 1), so that RSP may hold anything when a probe faults;
 * hence the frame always lies at `frame`, where C reads it.
 */
	.balign HANDLER_BYTES
	.globl handlers
handlers:
	.set vector, 0
	.rept EXCEPTIONS
	.balign HANDLER_BYTES
	/* 8, 10 to 14, 17, 21, 29 and 30 push an error code (SDM 3A, 6.15; APM 2, 8.2) */
	.if !((0x60227d00 >> vector) & 1)
	push $0
	.endif
	push $vector
	jmp caught
	.set vector, vector + 1
	.endr
	.rept INTERRUPTS
	.balign HANDLER_BYTES
	jmp interrupted
	.endr

caught:
	cmpq $0, attempt_stack(%rip)
	je unexpected
	/* the access of attempt_user or attempt_supervisor: return from there, with RAX as it is */
end_attempt:
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

unexpected:
	push %r15
	push %r14
	push %r13
	push %r12
	push %r11
	push %r10
	push %r9
	push %r8
	push %rbp
	push %rdi
	push %rsi
	push %rdx
	push %rcx
	push %rbx
	push %rax
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
 * uint64_t attempt_supervisor(uint64_t address, uint64_t value, uint64_t rip, uint64_t rflags)
 * uint64_t attempt_user(the same)
 * Go to rip with RDI and RSI as they are and RAX 0.  They return, with the RAX of the moment, when an
 * exception comes (its frame is then in `frame`) or at `finished` (frame.vector is then VECTOR_NONE).
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

	.globl attempt_supervisor, supervisor_jump
attempt_supervisor:
	begin_attempt
	test $RFLAGS_AC, %ecx
	jz supervisor_jump
	push %rcx
	popfq
supervisor_jump:
	jmp *%rdx
finished:
	movq $0xff, frame(%rip)
	jmp end_attempt

	.globl attempt_user, user_jump
attempt_user:
	begin_attempt
	push $USER_DATA
	push $0
	push %rcx
	push $USER_CODE64
	push %rdx
user_jump:
	iretq

/* The accesses, in the order of `routine` in stub.c; an exception in one leaves RAX 0. */
	.macro accesses end:vararg
	.balign ROUTINE_BYTES
	movzbl (%rdi), %eax
	\end
	.balign ROUTINE_BYTES
	mov (%rdi), %rax
	\end
	.balign ROUTINE_BYTES
	mov %sil, (%rdi)
	\end
	.balign ROUTINE_BYTES
	mov %rsi, (%rdi)
	\end
	.balign ROUTINE_BYTES
	.endm

	.globl supervisor_accesses
	.balign ROUTINE_BYTES
supervisor_accesses:
	accesses jmp finished

	.section .user, "ax"
	.globl user_accesses, user_accesses_end
user_accesses:
	accesses ud2
user_accesses_end:

	.bss
	.balign 4096
	.skip 4096
stack_top:
	.skip 4096 - 7 * 8
	.globl frame, exception_stack_top
frame:
	.skip 7 * 8
exception_stack_top:
attempt_stack:
	.skip 8			/* RSP to return with from the access under way; 0: there is none */

	.section .note.GNU-stack, "", @progbits
