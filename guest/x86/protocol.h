/*
 * What the x86 stub and the harness share in guest memory, declared here and nowhere else; what goes over
 * the console, COM1, is in exchange.h.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include "exchange.h"

#include <stdint.h>

enum access {
	ACCESS_NONE,	/* patch, flush and watch only */
	ACCESS_READ,
	ACCESS_WRITE,
	ACCESS_FETCH,
	ACCESS_PUSH,		/* PUSH of the value, with the stack pointer such that the store is at the address */
	ACCESS_DESCRIPTOR,	/* MOV to FS of the first descriptor of an LDT that begins at the address: an implicit
				   access, which reads 8 bytes as the supervisor does, whoever executes the MOV */
	ACCESS_SHADOW_READ,	/* INCSSP of nothing, with SSP at the address: it drops the word that it reads */
	ACCESS_SHADOW_WRITE,	/* WRSS of the value */
	ACCESS_USER_SHADOW_WRITE,	/* WRUSS of the value: the supervisor makes the user's access */
	ACCESS_RETURN,		/* RET with SSP at the address: the zero on the stack is compared with the 8 bytes that it
				   reads there, which must be something else.  Vector 21 that says so is no exception here */
	ACCESS_CALL,		/* CALL with SSP 8 bytes above the address, by the supervisor alone: the data is the return
				   address, which it stores */
};

/*
 * The last five are made while CR4 has CET, at canonical addresses that are multiples of the word: 8 bytes, in the
 * 32-bit modes 4.  The supervisor's run on a shadow stack of the stub's, in .text, whose pages are shadow stacks:
 * read-only and dirty.  The 32-bit modes have none of these, nor RET.
 */

/*
 * The code of a fetched frame is, by convention, `mov $imm32,%eax; ud2` (7 bytes: data is imm32, vector 6 at
 * address + 5) or, in long mode, `mov $imm64,%rax; ud2` (12 bytes: data is imm64, vector 6 at address + 10).
 * Where a page ends it is one byte.  In long mode, 06 (vector 6 at address): that is PUSH ES, which 64-bit mode
 * does not have; INT3 is as short, but the local KVM can not execute it at CPL 0.  In the 32-bit modes, CC: INT3
 * (vector 3 at address + 1).
 *
 * The word that ACCESS_DESCRIPTOR reaches is, by convention, a data segment (P, DPL 3, writable, A), whose base,
 * 32 bits in three pieces, the data is.  Any other word may raise an exception with the error code 4, which names
 * the descriptor: then the access was made all the same.  An LDT at an address that is not canonical may be
 * refused before there is an access.
 */

enum flush {
	FLUSH_NONE,
	FLUSH_PAGE,	/* INVLPG of the address */
	FLUSH_ALL,	/* MOV to CR3 of the tested CR3 */
	FLUSH_GLOBAL,	/* CR4.PGE changed and changed back */
	FLUSH_INVPCID_ADDRESS,	/* INVPCID of the address, of type 0; of PCID 0, as the next */
	FLUSH_INVPCID_CONTEXT,	/* type 1 */
	FLUSH_INVPCID_ALL,	/* type 2, with global pages */
	FLUSH_INVPCID_REST,	/* type 3, without */
	FLUSH_CR0,	/* INVLPG of the address, then the bits of CR0 that are set in the value are changed, all at once, */
	FLUSH_CR3,	/* and changed back should that be done; the same of CR3 */
	FLUSH_CR4,	/* and of CR4 */
};

/* FLUSH_ALL and FLUSH_GLOBAL load the PDPTEs of PAE paging, and may find them malformed; the last three may be refused:
   that exception is then the result, and the access is not made. */

/* Which control state a job runs under.  Of its registers those are loaded, one after the other, that differ from what
   is loaded; no translation is dropped but by the processor itself. */
enum control_of_job {
	CONTROL_KEPT,	/* that of the job before; `first` at first */
	CONTROL_FIRST,
	CONTROL_THEN,
};

/* result.vector of an access that ended without an exception */
enum vector { VECTOR_NONE = 0xff };

/* CR2 before every access, as reported in every mode: no page fault leaves this behind, it is canonical at no level
   count. */
enum cr2 { CR2_UNTOUCHED = 0x5a5a5a5a5a5a5a5a };

struct job {
	uint64_t address;	/* virtual */
	uint64_t value;		/* what a write stores */
	uint8_t access;		/* enum access */
	uint8_t user;		/* 1: from CPL 3 */
	uint8_t ac;		/* 1: EFLAGS.AC is set during the access */
	uint8_t size;		/* of a read or write: 1, 4, or in long mode 8 bytes; a push has the mode's own */
	uint8_t flush;		/* enum flush, after patching and control, before the access */
	uint8_t patched;	/* how many of word[] are stored to where[] first */
	uint8_t watched;	/* how many of where[] are read into after[] last */
	uint8_t control;	/* enum control_of_job, loaded after patching */
	uint64_t where[WORDS];	/* physical, multiples of the word's size: 4 bytes in 32-bit paging, else 8 */
	uint64_t word[WORDS];
};

struct result {
	uint64_t data;		/* what a read found; RAX after a fetch; a descriptor's base; 0 if the access failed */
	uint64_t cr2;		/* CR2_UNTOUCHED, if the access did not change it */
	uint64_t rip;		/* as saved by the exception; of the stub itself for reads and writes */
	uint32_t error;		/* error code; 0 where the vector has none */
	uint8_t vector;		/* VECTOR_NONE for a read or write that was done */
	uint8_t completed;	/* 1: the access itself was done. A fetch always ends in an exception: this
				   tells whether the instruction at `address` was reached */
	uint16_t reserved;
	uint64_t after[WORDS];	/* the watched words */
};

/* The registers by which accesses are allowed and entries are read.  PKRU and PKRS are loaded if cr4 has PKE, PKS; the
   latter must grant the key of the window's pages. */
struct control {
	uint64_t cr0, cr4, efer, pkru, pkrs;
};

/*
 * Written by the harness before `run` or `park`.  The registers tell the mode: 4- or 5-level paging if efer has
 * LME, else PAE paging if cr4 has PAE, else 32-bit paging.  `then` is in the same mode as `first`.
 *
 * Both sets of tables map the whole RAM linearly at `window`, with the same entries (so EFER.NXE=0 wants a window
 * without XD); the tables of entry_cr3 hold the identity of the stub as well and have the format of cr4 (LA57, PAE,
 * PSE).  In the window the pages of .text are executable, and with CR4.CET dirty and read-only; those of .user are
 * executable by CPL 3, and .data and .bss are writable.  The stub is in 2 MiB of its own, and its pages are small ones: without large pages (32-bit paging
 * without PSE) so is all of the window, a table each 4 MiB.  In the 32-bit modes, the window ends below 4 GiB.
 *
 * The user's code is executed at `user_window`, where the tested tables map at least the pages of .user.  It is the
 * same window but with CR4.LASS, which wants the supervisor's in the upper half of the addresses and the user's in the
 * lower.
 */
struct batch {
	uint64_t nonce;
	uint64_t cr3;
	struct control first, then;
	uint64_t window;	/* virtual address of physical 0 */
	uint64_t user_window;	/* the same, for what is executed at CPL 3 */
	uint64_t entry_cr3;	/* below 4 GiB */
	uint64_t jobs, results;	/* physical: arrays of `count` struct job, struct result */
	uint64_t count;
	/* written by the stub */
	uint64_t done;		/* jobs executed */
	uint64_t done_nonce;
};

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

/* CPUID as the guest sees it; the numbers are the leaf and, if it is not 0, the subleaf; zeros, if the CPU has no such
   leaf. */
struct machine_info {
	struct cpuid leaf_0, leaf_1, leaf_7, leaf_7_1, leaf_80000000, leaf_80000001, leaf_80000008;
};

/* The 32-bit code, whose 64-bit numbers are aligned to 4 bytes, has the same layouts: no member needs padding. */
_Static_assert(sizeof(struct job) == 3 * 8 + 2 * 8 * WORDS, "layout of struct job");
_Static_assert(sizeof(struct result) == 4 * 8 + 8 * WORDS, "layout of struct result");
_Static_assert(sizeof(struct batch) == 20 * 8, "layout of struct batch");

extern struct batch batch;
extern struct machine_info machine_info;

#endif
