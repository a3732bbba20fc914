/*
 * Where the setup of Linux's image jumps to in place of the program that unpacks the kernel: build.py has put the
 * kernel in memory as it is, and what is left to do is to be in long mode with the levels that the command line asks
 * for ("no5lvl": four).  %esi is struct boot_params throughout (Documentation/arch/x86/boot.rst in Linux, "32-bit Boot
 * Protocol" and "64-bit Boot Protocol").
 */
#define CR0_PG		(1 << 31)
#define CR4_PAE		(1 << 5)
#define CR4_LA57	(1 << 12)
#define EFER		0xc0000080
#define EFER_LME	(1 << 8)
#define CMD_LINE_PTR	0x228	/* in struct boot_params */
#define POINTER		3	/* P, R/W */
#define PAGE		0x83	/* and PS */
#define CODE		0x10	/* the selector of the protocol, __BOOT_CS */
#define GIB		0x40000000

	.code32
	.globl _start
_start:
	mov	CMD_LINE_PTR(%esi), %edi
	mov	$pml4, %edx
	mov	%cr4, %eax
	or	$CR4_PAE, %eax
next:
	cmpl	$0x6c356f6e, (%edi)	/* "no5l" */
	je	levels_chosen
	inc	%edi
	cmpb	$0, -1(%edi)
	jne	next
	mov	$pml5, %edx
	or	$CR4_LA57, %eax
levels_chosen:
	mov	%eax, %cr4
	mov	%edx, %cr3
	mov	$EFER, %ecx
	rdmsr
	or	$EFER_LME, %eax
	wrmsr
	lgdt	gdt_register
	mov	%cr0, %eax
	or	$CR0_PG, %eax
	mov	%eax, %cr0
	ljmp	$CODE, $long_mode

	.code64
long_mode:
	mov	%esi, %esi		/* its upper half is undefined until it is written */
	mov	$kernel, %eax
	jmp	*%rax

	.balign	8
gdt:
	.quad	0, 0, 0x00af9b000000ffff
gdt_register:
	.short	. - gdt - 1
	.long	gdt

/* The first 4 GiB, each address at itself. */
	.balign	4096
pml5:
	.quad	pml4 + POINTER
	.fill	511, 8, 0
pml4:
	.quad	pdpt + POINTER
	.fill	511, 8, 0
pdpt:
	.quad	PAGE, GIB + PAGE, 2 * GIB + PAGE, 3 * GIB + PAGE
	.fill	508, 8, 0
