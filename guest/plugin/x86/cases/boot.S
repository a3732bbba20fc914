/*
 * The way from QEMU's PVH entry to `run_cases`, with paging on: MODE is 2 (32-bit), 3 (PAE), or 4 or 5 levels.  The
 * first GiB is mapped to itself, for user mode too.
 */
	.section .note.pvh, "a", @note
	.long 4, 4, 18
	.asciz "Xen"
	.long start

#if MODE >= 4
#define AX rax
#define BX rbx
#define SP rsp
#define WORD .quad
#define SIZE 8
#else
#define AX eax
#define BX ebx
#define SP esp
#define WORD .long
#define SIZE 4
#endif

	.text
	.code32
	.globl start
start:	cli
	mov $stack_top, %esp
	mov %ebx, start_info
	mov $directory, %edi
#if MODE == 2
	mov $0x87, %eax		/* P W U PS */
	mov $256, %ecx
1:	mov %eax, (%edi)
	add $0x400000, %eax
	add $4, %edi
	loop 1b
	movl $0xfec00093, directory + 0xfec	/* the local APIC */
#else
	mov $0x87, %eax
	mov $512, %ecx
1:	mov %eax, (%edi)
	movl $0, 4(%edi)
	add $0x200000, %eax
	add $8, %edi
	loop 1b
	movl $0xfee00093, apic_directory + 503 * 8
	movl $directory, pointers
	movl $apic_directory, pointers + 24
#if MODE == 3
	orl $1, pointers
	orl $1, pointers + 24
#else
	orl $7, pointers
	orl $7, pointers + 24
	movl $pointers + 7, upper
	movl $upper + 7, top
#endif
#endif
	call paging_on
	lgdt gdt_register
	ljmp $8, $flat

paging_on:
#if MODE == 2
	mov $directory, %eax
	mov $0x90, %edx		/* PSE, PGE */
#elif MODE == 3
	mov $pointers, %eax
	mov $0xa0, %edx		/* PAE, PGE */
#elif MODE == 4
	mov $upper, %eax
	mov $0xa0, %edx
#else
	mov $top, %eax
	mov $0x10a0, %edx	/* LA57 too */
#endif
	mov %eax, %cr3
	mov %cr4, %eax
	or %edx, %eax
	mov %eax, %cr4
	mov $0xc0000080, %ecx
	rdmsr
#if MODE >= 4
	or $0x900, %eax		/* LME, NXE */
#else
	or $0x800, %eax
#endif
	wrmsr
	mov %cr0, %eax
	and $0x9fffffff, %eax
	or $0x80010001, %eax	/* PG, WP */
	mov %eax, %cr0
	ret

	/* The other processor, copied to 0x8000. */
	.globl other_begin, other_end
	.code16
other_begin:
	cli
	xor %ax, %ax
	mov %ax, %ds
	lgdtl 0x8000 + other_gdt_register - other_begin
	mov %cr0, %eax
	or $1, %eax
	mov %eax, %cr0
	ljmpl $0x30, $other_flat
other_gdt_register:
	.word gdt_end - gdt - 1
	.long gdt
other_end:
	.code32
other_flat:
	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %ss
	mov %eax, %es
	mov $other_stack_top, %esp
	call paging_on
	ljmp $8, $1f
#if MODE >= 4
	.code64
#endif
1:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %ss
	mov $other_stack_top, %SP
	lidt idt_register
	call run_other

#if MODE >= 4
	.code64
#else
	.code32
#endif
flat:	mov $0x23, %eax		/* user mode's, which IRET leaves */
	mov %eax, %ds
	mov %eax, %es
	mov $0x10, %eax
	mov %eax, %ss
	mov $stack_top, %SP
	call run_cases
2:	hlt
	jmp 2b

	/* A page fault goes on where `recover` says, as kernels do whose accesses may fault. */
	.globl on_page_fault
on_page_fault:
	push %AX
	mov recover, %AX
	mov %AX, 2 * SIZE(%SP)
	pop %AX
	add $SIZE, %SP
#if MODE >= 4
	iretq
#else
	iret
#endif

	/* To user mode, which comes back at once. */
	.globl go_to_user, on_return
go_to_user:
	push %BX
	mov %SP, kernel_stack
	push $0x23
	push $user_stack_top
#if MODE >= 4
	pushfq
#else
	pushf
#endif
	push $0x1b
	push $in_user
#if MODE >= 4
	iretq
#else
	iret
#endif
in_user:
	mov read_by_user, %AX
	test %AX, %AX
	jz after_user_read
	cmpb $0, (%AX)
	.globl after_user_read
after_user_read:
	int $0x80
on_return:
	mov kernel_stack, %SP
	pop %BX
	ret

	/* CR0.PG cleared and set again: out of 64-bit mode, and back into it. */
	.globl paging_off_and_on
paging_off_and_on:
#if MODE >= 4
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push $0x30
	push $1f
	lretq
	.code32
#endif
1:	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	or $0x80000000, %eax
	mov %eax, %cr0
#if MODE >= 4
	ljmp $8, $2f
	.code64
2:	mov %esp, %esp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
#endif
	ret

#if MODE == 2
	/*
	 * Reads an address in 32-bit paging, in PAE paging, and in 32-bit paging again, by a root that is one of either, at
	 * an alias of this code.
	 */
	.globl pae_on_and_off
pae_on_and_off:
	push %ebx
	push %esi
	mov 12(%esp), %edx	/* the root */
	mov 16(%esp), %ecx	/* what is read */
	mov %cr3, %esi
	mov %esp, %ebx
	add $0x60000000, %esp
	mov $1f + 0x60000000, %eax
	jmp *%eax
1:	mov %edx, %cr3
	mov (%ecx), %al
	mov %cr4, %eax
	xor $0x20, %eax
	mov %eax, %cr4
	mov (%ecx), %al
	mov %edx, %cr3
	mov %cr4, %eax
	xor $0x20, %eax
	mov %eax, %cr4
	mov (%ecx), %al
	mov %esi, %cr3
	mov $2f, %eax
	jmp *%eax
2:	mov %ebx, %esp
	pop %esi
	pop %ebx
	ret
#endif

	.data
	.align 16
	.globl gdt, idt_register, task_register
gdt:	.quad 0
#if MODE >= 4
	.quad 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff
#else
	.quad 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
#endif
	.quad 0
	.quad 0x00cf9b000000ffff	/* 0x30: the 32-bit code of the other processor */
	.quad 0x00cf93000000ffff	/* 0x38: data with a base of its own */
	.quad 0, 0, 0			/* 0x40: the task segment; 0x50: another task's */
gdt_end:
gdt_register:
	.word gdt_end - gdt - 1
	.long gdt, 0
idt_register:
	.word 256 * 2 * SIZE - 1
	WORD idt
	.globl start_info
start_info:
	.long 0
	.align 8
	.globl read_by_user
read_by_user:
	WORD 0
	.globl recover
recover:
	WORD 0
kernel_stack:
	WORD 0

	.bss
	.align 4096
	.globl top, upper, pointers, directory, idt, stack_top
top:	.skip 4096
upper:	.skip 4096
pointers:
	.skip 4096
directory:
	.skip 4096
apic_directory:
	.skip 4096
idt:	.skip 4096
	.skip 16384
stack_top:
	.skip 16384
other_stack_top:
	.skip 4096
user_stack_top:
