/*
 * A kernel that turns on the paging it is told to, and waits.  CR4, EFER, CR3 and CR0 are the words at STATE, which a
 * test puts there with its tables; QEMU enters here in protected mode without paging (PVH).
 */
#define STATE 0x1ff000
#define MSR_EFER 0xc0000080

	.section .note.pvh, "a", @note
	.long 4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long _start

	.text
	.code32
	.globl _start
_start:
	mov STATE, %eax
	mov %eax, %cr4
	mov $MSR_EFER, %ecx
	mov STATE + 4, %eax
	xor %edx, %edx
	wrmsr
	mov STATE + 8, %eax
	mov %eax, %cr3
	mov STATE + 12, %eax
	mov %eax, %cr0
1:	hlt
	jmp 1b
