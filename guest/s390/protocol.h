/*
 * What the s390 stub and the harness share in guest memory, declared here and nowhere else; what goes over the
 * console is in exchange.h.  Registers and fields are named as in the z/Architecture Principles of Operation.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include "exchange.h"

#include <stdint.h>

enum access {
	ACCESS_NONE,	/* patch, flush and watch only */
	ACCESS_LOAD,
	ACCESS_STORE,
	ACCESS_FETCH,
};

/*
 * Data is accessed in secondary-space mode, whose instructions are in the primary space, which is real space here; and
 * code is fetched in home-space mode.  So nothing of the tested space is the stub's.
 *
 * The code of a fetched frame is, by convention, `iihf %r2, imm32; iilf %r2, imm32; svc 0`: the data is what r2 then
 * holds.  Any other code is reached all the same, and must come to an interruption.
 */

enum flush {
	FLUSH_NONE,
	FLUSH_PAGE,	/* IPTE of the entry at where[entry], which has its word again afterwards */
	FLUSH_ALL,	/* PTLB */
};

/* result.code of an access that ended without a program interruption */
enum code { CODE_NONE = 0xffff };

/* What real location 168 holds before an access: no TEID has bits 52 and 53 both. */
enum teid { NO_TEID = 0xc00 };

struct job {
	uint64_t address;	/* virtual */
	uint64_t value;		/* what a store stores */
	uint64_t frame;		/* real: the 4 KiB whose storage key is set to 0 before and read after, if `keyed` */
	uint8_t access;		/* enum access */
	uint8_t user;		/* 1: in problem state, else in supervisor state */
	uint8_t keyed;
	uint8_t flush;		/* enum flush, after patching, before the access */
	uint8_t entry;		/* which of where[] IPTE invalidates */
	uint8_t patched;	/* how many of word[] are stored to where[] first */
	uint8_t watched;	/* how many of where[] are read into after[] last */
	uint8_t reserved;
	uint64_t where[WORDS];	/* absolute, multiples of 8 */
	uint64_t word[WORDS];
};

struct result {
	uint64_t data;		/* what a load found; r2 after a fetch; 0 if the access failed */
	uint64_t teid;		/* real location 168 after a program interruption: NO_TEID where it stored none, but with
				   low-address protection what was there; 0 without an interruption */
	uint64_t address;	/* of the old PSW */
	uint16_t code;		/* of the program interruption, or CODE_NONE */
	uint8_t completed;	/* 1: the access itself was done */
	uint8_t key;		/* the storage key after a `keyed` job: reference is 4, change 2 */
	uint8_t reserved[4];
	uint64_t after[WORDS];	/* the watched words */
};

/* Written by the harness before `run` or `park`. */
struct batch {
	uint64_t nonce;
	uint64_t asce;		/* of the secondary and the home space */
	uint64_t cr0;		/* bits to be set: of EDAT, IEP and low-address protection */
	uint64_t jobs, results;	/* absolute: arrays of `count` struct job, struct result */
	uint64_t count;
	/* written by the stub */
	uint64_t done;		/* jobs executed */
	uint64_t done_nonce;
};

enum { FACILITY_WORDS = 4 };

struct machine_info {
	uint64_t facilities[FACILITY_WORDS];	/* what STFLE stores: bit 0 is the highest of the first */
	uint64_t cpu;				/* what STIDP stores */
};

_Static_assert(sizeof(struct job) == 4 * 8 + 2 * 8 * WORDS, "layout of struct job");
_Static_assert(sizeof(struct result) == 4 * 8 + 8 * WORDS, "layout of struct result");
_Static_assert(sizeof(struct batch) == 8 * 8, "layout of struct batch");

extern struct batch batch;
extern struct machine_info machine_info;

#endif
