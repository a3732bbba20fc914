/*
 * What the RISC-V stub and the harness share in guest memory, declared here and nowhere else; what goes over the
 * console is in exchange.h.  Registers and fields are named as in the privileged specification.
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
	ACCESS_AMO,	/* AMOSWAP of the value: the data is what was there */
	ACCESS_LR,	/* LR: a load */
};

/*
 * The code of a fetched frame is, by convention, `lui a0, imm20; addi a0, a0, imm12; ecall`: the data is what a0 then
 * holds.  Any other code is reached all the same, and must come to an exception.
 */

enum flush {
	FLUSH_NONE,
	FLUSH_PAGE,		/* SFENCE.VMA of the address, in every address space */
	FLUSH_ALL,		/* SFENCE.VMA of all addresses, in every address space */
	FLUSH_PAGE_ASID,	/* the same two in the address space of satp, but for what is global */
	FLUSH_ASID,
};

/* result.cause of an access that ended without an exception */
enum cause { CAUSE_NONE = 0xffffffff };

struct job {
	uint64_t address;	/* virtual; a stub of 32 bits takes the lower half of this and of the value */
	uint64_t value;		/* what a store or an AMO stores */
	uint8_t access;		/* enum access */
	uint8_t user;		/* 1: as U, else as S */
	uint8_t sum;		/* mstatus.SUM */
	uint8_t mxr;		/* mstatus.MXR */
	uint8_t mprv;		/* 1: by machine mode with MPRV, and MPP as `user` says; not for fetches */
	uint8_t size;		/* 1, 4, or with 64 bits 8 bytes; an AMO or LR has 4 or 8 */
	uint8_t flush;		/* enum flush, after patching, before the access */
	uint8_t patched;	/* how many of word[] are stored to where[] first */
	uint8_t watched;	/* how many of where[] are read into after[] last */
	uint8_t reserved[7];
	uint64_t where[WORDS];	/* physical, multiples of the entry's size: 4 bytes in Sv32, else 8 */
	uint64_t word[WORDS];
};

struct result {
	uint64_t data;		/* what a load or AMO found; a0 after a fetch; 0 if the access failed */
	uint64_t tval;		/* mtval; 0 without an exception */
	uint64_t epc;		/* mepc; 0 without an exception */
	uint32_t cause;		/* mcause, or CAUSE_NONE */
	uint32_t completed;	/* 1: the access itself was done. A fetch always ends in an exception: this tells
				   whether the instruction at `address` was reached */
	uint64_t after[WORDS];	/* the watched words */
};

/*
 * Written by the harness before `run` or `park`.  The tested tables map two pages at `window`: both lead to the page
 * of .accesses and are executable, the first for the supervisor and the second for the user.  Jobs with MPRV alone need
 * no window.
 */
struct batch {
	uint64_t nonce;
	uint64_t satp, menvcfg, senvcfg;
	uint64_t window;	/* virtual, a multiple of 4096 */
	uint64_t jobs, results;	/* physical: arrays of `count` struct job, struct result */
	uint64_t count;
	/* written by the stub */
	uint64_t done;		/* jobs executed */
	uint64_t done_nonce;
};

struct machine_info {
	uint64_t xlen;
	uint64_t misa;
	uint64_t modes;		/* bit n: satp takes MODE n */
	uint64_t asid_bits;	/* how many bits of ASID satp holds */
	uint64_t menvcfg, senvcfg;	/* the bits that can be set; 0 where there is no such register */
	uint64_t device_tree;	/* physical, where the machine describes itself: "flattened device tree" */
};

_Static_assert(sizeof(struct job) == 4 * 8 + 2 * 8 * WORDS, "layout of struct job");
_Static_assert(sizeof(struct result) == 4 * 8 + 8 * WORDS, "layout of struct result");
_Static_assert(sizeof(struct batch) == 10 * 8, "layout of struct batch");

extern struct batch batch;
extern struct machine_info machine_info;

#endif
