/*
 * What the arm64 stub and the harness share in guest memory, declared here and nowhere else; what goes over the
 * console is in exchange.h.  Registers and fields are named as in the Arm ARM.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include "exchange.h"

#include <stdint.h>

enum access {
	ACCESS_NONE,	/* patch, flush and watch only */
	ACCESS_READ,	/* LDR */
	ACCESS_WRITE,	/* STR */
	ACCESS_FETCH,
	ACCESS_READ_UNPRIVILEGED,	/* LDTR */
	ACCESS_WRITE_UNPRIVILEGED,	/* STTR */
	ACCESS_SWAP,		/* SWP of the value: the data is what was there */
	ACCESS_EXCLUSIVE,	/* the same by LDXR and STXR */
	TRANSLATE_READ,		/* no access: AT S1E0R or S1E1R as `user` says, with `pan` AT S1E1RP; PAR_EL1 is the data */
	TRANSLATE_WRITE,	/* the same for writes */
};

/*
 * The code of a fetched frame is, by convention, `movz x0, #imm16; movk x0, #imm16, lsl #16; svc #0`: the data is what
 * x0 then holds.  Any other code is reached all the same, and must come to an exception.
 */

/* After patching, before the access.  All begin with DSB and end with ISB: what was absent is there after FLUSH_NONE. */
enum flush {
	FLUSH_NONE,
	FLUSH_PAGE,		/* TLBI VAAE1: the address in every address space */
	FLUSH_ALL,		/* TLBI VMALLE1 */
	FLUSH_PAGE_ASID,	/* TLBI VAE1: the address in the batch's address space, or global */
	FLUSH_ASID,		/* TLBI ASIDE1: the batch's address space, but for what is global */
	FLUSH_LEAF,		/* TLBI VAALE1: as FLUSH_PAGE, but only the last level */
	FLUSH_LEAF_ASID,	/* TLBI VALE1: as FLUSH_PAGE_ASID, but only the last level */
};

struct job {
	uint64_t address;	/* virtual */
	uint64_t value;		/* what is stored */
	uint8_t access;		/* enum access */
	uint8_t user;		/* 1: at EL0, else at EL1 */
	uint8_t pan;		/* PSTATE.PAN */
	uint8_t uao;		/* PSTATE.UAO */
	uint8_t size;		/* 1, 4 or 8 bytes; of a swap 4 or 8 */
	uint8_t flush;		/* enum flush */
	uint8_t patched;	/* how many of word[] are stored to where[] first */
	uint8_t watched;	/* how many of where[] are read into after[] last */
	uint64_t where[WORDS];	/* physical, multiples of 8 */
	uint64_t word[WORDS];
};

struct result {
	uint64_t data;		/* what was read; x0 after a fetch; PAR_EL1 after TRANSLATE_*; 0 if the access failed */
	uint64_t far;		/* FAR_EL1, or of a TRANSLATE_* that met an exception FAR_EL2; 0 if the access was done */
	uint64_t elr;		/* ELR_EL1 or ELR_EL2, likewise; after a fetch always */
	uint64_t esr;		/* ESR_EL1 or ESR_EL2; 0 without an exception, whose bit 25 (IL) is 1 in A64 code */
	uint64_t completed;	/* 1: the access itself was done. A fetch always ends in an exception: this tells
				   whether the instruction at `address` was reached */
	uint64_t after[WORDS];	/* the watched words */
};

/*
 * Written by the harness before `run` or `park`.  At `window` the tested tables map the first 4 KiB of .accesses, which
 * EL0 and EL1 can both execute: VBAR_EL1 is there.  TRANSLATE_* alone needs none.  A parked guest waits in the window at
 * EL1, where there is one.
 */
enum window { NO_WINDOW = 1 };

struct batch {
	uint64_t nonce;
	uint64_t ttbr0, ttbr1, tcr, mair, sctlr;	/* those of EL1 */
	uint64_t window;	/* virtual, a multiple of 4096, or NO_WINDOW */
	uint64_t jobs, results;	/* physical: arrays of `count` struct job, struct result */
	uint64_t count;
	/* written by the stub */
	uint64_t done;		/* jobs executed */
	uint64_t done_nonce;
};

struct machine_info {
	uint64_t mmfr[5];	/* ID_AA64MMFR0_EL1 to ID_AA64MMFR4_EL1 */
	uint64_t isar0;		/* ID_AA64ISAR0_EL1 */
	uint64_t sctlr;		/* the bits of SCTLR_EL1 that can be set */
};

_Static_assert(sizeof(struct job) == 3 * 8 + 2 * 8 * WORDS, "layout of struct job");
_Static_assert(sizeof(struct result) == 5 * 8 + 8 * WORDS, "layout of struct result");
_Static_assert(sizeof(struct batch) == 12 * 8, "layout of struct batch");

extern struct batch batch;
extern struct machine_info machine_info;

#endif
