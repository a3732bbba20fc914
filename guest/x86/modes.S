/*
 * The ways into the processor's modes.  .boot and .tables are used at the address they are linked at, which
 * the stub's own tables and the entry tables of every batch map to itself.
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

/* In the order of the selectors in cpu.h.  C fills in what has a base: call_in_window, load_descriptors. */
	.data
	.balign 8
	.globl gdt
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* CODE64 */
	.quad 0x00cf93000000ffff	/* DATA */
	.quad 0x00cf9b000000ffff	/* CODE32 */
	.quad 0x00cff3000000ffff	/* USER_DATA */
	.quad 0x00affb000000ffff	/* USER_CODE64 */
	.quad 0x00cffb000000ffff	/* USER_CODE32 */
	.quad 0				/* WINDOW_CODE */
	.quad 0				/* WINDOW_DATA */
	.quad 0				/* RING1_CODE */
	.quad 0x00cfb3000000ffff	/* RING1_DATA */
	.quad 0, 0			/* TASK */
	.quad 0, 0			/* LDT */
	.if . - gdt != GDT_BYTES
	.error "gdt and its selectors differ"
	.endif

	.section .boot, "ax"
	.balign 4
boot_gdt:
	.word GDT_BYTES - 1
	.long gdt

	.macro load_data_segments selector
	mov $\selector, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	.endm

	.macro switch_paging_off
	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0
	.endm

/* From 64-bit code to 32-bit code without paging; clobbers RAX. */
	.macro leave_long_mode
	push $CODE32
	lea .Lnarrow\@(%rip), %rax
	push %rax
	lretq
	.code32
.Lnarrow\@:
	load_data_segments DATA
	switch_paging_off
	.endm

/* No register survives the modes without 64 bits for certain (SDM 1, 3.4.1.1): what C wants kept is on the stack. */
	.macro save_registers
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	.endm

	.macro restore_registers
	mov %esp, %esp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	.endm

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
	mov $stack_top, %esp
	call start
1:	hlt
	jmp 1b

/* void reenter_long_mode(uint64_t cr3, uint64_t cr4): called and returns at the identity; CR4.LA57 and the
   table format can only change outside long mode. */
	.globl reenter_long_mode
reenter_long_mode:
	save_registers
	mov %rsi, %rax
	mov %rdi, %rsi
	mov %rax, %rdi
	mov $1f, %ebx
	leave_long_mode
	jmp enter_long_mode
	.code64
1:	restore_registers
	ret

/* void call_in_legacy_mode(uint64_t cr3, uint64_t cr4, void (*function)(void)): called and returns at the identity
   in long mode; calls the 32-bit function with paging as the two registers say, in the segments of the window. */
	.globl call_in_legacy_mode
call_in_legacy_mode:
	save_registers
	mov %rdx, %rbx
	leave_long_mode
	mov %esi, %cr4
	mov %edi, %cr3
	mov $MSR_EFER, %ecx
	mov $EFER_LEGACY, %eax
	xor %edx, %edx
	wrmsr
	mov $CR0_OWN, %eax
	mov %eax, %cr0
	load_data_segments WINDOW_DATA
	ljmp $WINDOW_CODE, $1f
1:	call *%ebx
	ljmp $CODE32, $1f
1:	lgdt boot_gdt		/* of WINDOW_DATA, and with the GDT's identity in it */
	load_data_segments DATA
	switch_paging_off
	mov $own_pml4, %esi
	mov $CR4_PAE, %edi
	mov $1f, %ebx
	jmp enter_long_mode
	.code64
1:	restore_registers
	ret

	.globl own_cr3
own_cr3:
	mov $own_pml4, %eax
	ret

	.bss
	.balign 4096
	.skip 4096
stack_top:

	.section .note.GNU-stack, "", @progbits
