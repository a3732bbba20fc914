/*
 * What POWER's stub and the harness share in guest memory, declared here and nowhere else; what goes over the console
 * is in exchange.h.  Registers and fields are named as in the Power ISA.  All is big-endian, as the stub is.
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
};

/*
 * The code of a fetched frame is, by convention, `lis r3, imm16; ori r3, r3, imm16; sc`: the data is what r3 then holds.
 * Any other code is reached all the same, and must come to an interrupt.
 */

/* After patching, before the access.  All begin and end with ptesync: what was absent is there after FLUSH_NONE. */
enum flush {
	FLUSH_NONE,
	FLUSH_PAGE,	/* tlbie, RIC=0, IS=0, of the process: the page of the address, once for each size there is */
	FLUSH_PROCESS,	/* tlbie, RIC=2, IS=1: all of the process */
	FLUSH_ALL,	/* tlbie, RIC=2, IS=3: all */
};

struct job {
	uint64_t address;	/* effective */
	uint64_t value;		/* what is stored */
	uint8_t access;		/* enum access */
	uint8_t user;		/* 1: in problem state, else privileged */
	uint8_t size;		/* 1, 4 or 8 bytes */
	uint8_t flush;		/* enum flush */
	uint8_t unused[2];
	uint8_t patched;	/* how many of word[] are stored to where[] first */
	uint8_t watched;	/* how many of where[] are read into after[] last */
	uint64_t where[WORDS];	/* real, multiples of 8 */
	uint64_t word[WORDS];
};

struct result {
	uint64_t data;		/* what was read; r3 after a fetch; 0 if the access failed */
	uint64_t vector;	/* of the interrupt; 0 if the access was done, but after a fetch always */
	uint64_t srr0, srr1;	/* likewise; HSRR0 and HSRR1 of an interrupt that sets these */
	uint64_t dar, dsisr;	/* what the interrupt left of the zeros that were there */
	uint64_t completed;	/* 1: the access itself was done. A fetch always ends in an interrupt: this tells
				   whether the instruction at `address` was reached */
	uint64_t after[WORDS];	/* the watched words */
};

/*
 * Written by the harness before `run` or `park`.  Privileged data is accessed by code that is not translated.  At
 * `window` the tested trees map .accesses for execution in problem state; NO_WINDOW where no job needs it.
 */
enum window { NO_WINDOW = 1 };

/* A process for which the stub's process table has no entry. */
enum process { PROCESS = 1, NO_PROCESS = 256 };

struct batch {
	uint64_t nonce;
	uint64_t user, kernel;	/* the first doublewords of the process table entries of PROCESS and of process 0 */
	uint64_t pid;		/* PIDR */
	uint64_t amr, iamr;
	uint64_t window;	/* effective, a multiple of 4096, or NO_WINDOW */
	uint64_t jobs, results;	/* real: arrays of `count` struct job, struct result */
	uint64_t count;
	/* written by the stub */
	uint64_t done;		/* jobs executed */
	uint64_t done_nonce;
};

struct machine_info {
	uint64_t pvr;
	uint64_t amr, iamr;	/* the bits of them that can be set */
	uint64_t sets_marks;	/* 1: it sets R and C itself, else an access fails where one is to be set */
};

_Static_assert(sizeof(struct job) == 3 * 8 + 2 * 8 * WORDS, "layout of struct job");
_Static_assert(sizeof(struct result) == 7 * 8 + 8 * WORDS, "layout of struct result");
_Static_assert(sizeof(struct batch) == 12 * 8, "layout of struct batch");

extern struct batch batch;
extern struct machine_info machine_info;

#endif
