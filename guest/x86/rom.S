/*
 * The system ROM that Bochs boots, 64 KiB that end at 4 GiB: it does what QEMU's -kernel does for the stub, and
 * nothing of a PC's.
 *
 * Bochs gives out its memory in blocks, the next one to whichever is touched first.  So each is touched here, in
 * ascending order: guest memory then lies in the process as it does for the guest.  The harness has put the key
 * plus its number into the last word of each block; that word is complemented here, so that both see that they
 * mean the same memory.  Where another word is found in one, a line says so, and the key itself in the first block
 * then tells that the harness has found the memory by these marks, and has put all that it is to hold there.
 */
#include "cpu.h"

#define DEVICES		0xa0000		/* where a PC has devices and ROMs up to 1 MiB */
#define MIB		0x100000
#define AT(label)	0xffff0000 + (label - base)

	.code16
	.text
base:
start:	cli
	lgdtl %cs:gdtr - base
	mov %cr0, %eax
	or $CR0_PE, %al
	mov %eax, %cr0
	ljmpl $8, $AT(flat)

	.code32
flat:	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $COM1_LCR, %edx		/* 8 bits, no parity: as it is after a reset, a letter has 5 */
	mov $3, %al
	out %al, %dx
	mov AT(step), %ebp
	xor %ebx, %ebx			/* the block's number */
	xor %ecx, %ecx			/* whether a block had another word */
	lea -4(%ebp), %edi		/* its last word */
next:	cmp $DEVICES, %edi
	jb 1f
	cmp $MIB, %edi
	jb 3f
1:	mov AT(key), %eax
	add %ebx, %eax
	cmp %eax, (%edi)
	je 2f
	inc %ecx
2:	not %eax
	mov %eax, (%edi)
3:	add %ebp, %edi
	inc %ebx
	cmp AT(blocks), %ebx
	jb next
	test %ecx, %ecx
	jz enter
	mov $AT(apart), %esi
print:	mov $COM1_LSR, %edx
	in %dx, %al
	test $LSR_EMPTY, %al
	jz print
	lodsb
	test %al, %al
	jz 1f
	mov $COM1, %edx
	out %al, %dx
	jmp print
1:	mov AT(key), %eax
wait:	cmp %eax, -4(%ebp)
	jne wait
enter:	mov AT(entry), %eax
	jmp *%eax

apart:	.asciz "memory is not shared\n"
	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word 23
	.long AT(gdt)
	.org 0xffe0
/* filled in by the harness */
entry:	.long 0		/* where the stub begins, as the PVH ABI has it */
blocks:	.long 0		/* of memory */
step:	.long 0		/* bytes of one */
key:	.long 0
	.org 0xfff0
	.code16
	jmp start
	.org 0x10000
