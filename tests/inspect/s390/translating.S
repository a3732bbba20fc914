/* A kernel of s390 that translates, in the primary space or in that of SPACE, and spins.

   A segment table with a page table for its first 1M: every page where it is, but page 5, which has
   P, page 6, which has IEP, and page 7, which is invalid.  The primary space is real with REAL, and
   the processor has the prefix PREFIX. */

#define DAT 0x0400000000000000
#define EXTENDED 0x0000000180000000
#ifndef SPACE
#define SPACE 0
#endif
#define CR0 0x00100000 /* IEP */

	.globl	_start
_start:
	larl	%r1, controls
	lctlg	%c0, %c1, 0(%r1)
	lctlg	%c7, %c7, 16(%r1)
	lctlg	%c13, %c13, 24(%r1)
#ifdef PREFIX
	larl	%r1, prefix
	spx	0(%r1)
#endif
	larl	%r1, psw
	lpswe	0(%r1)
spin:
	j	spin

	.data
	.balign	8
psw:
	.quad	DAT + EXTENDED + (SPACE << 46), spin
controls:
	.quad	CR0
#ifdef REAL
	.quad	0x20
#else
	.quad	segments + 3
#endif
	.quad	segments + 2, segments

#ifdef PREFIX
prefix:
	.long	PREFIX
#endif

	.balign	4096
	.globl	segments
segments:
	.quad	pages
	.rept	2047
	.quad	0x20
	.endr
pages:
	.set	page, 0
	.rept	256
	.quad	(page << 12) + 0x200 * (page == 5) * -1 + 0x100 * (page == 6) * -1 + 0x400 * (page == 7) * -1
	.set	page, page + 1
	.endr
