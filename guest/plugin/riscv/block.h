/* What each block of instructions asks: as little as can be. */
#ifndef BLOCK_H
#define BLOCK_H
#include "shadow.h"

/*
 * The privilege, and what else of a hart's state says how it translates: in M-mode, with MPRV, MPP; whether it is a
 * guest's of the hypervisor extension.
 */
enum { VIRTUAL = 1 << 8, AS_MPP = 1 << 9, MPP_AT = 4 };

static inline u32 mode_word(const u8 *state)
{
	u32 word = load(state, PRIV) | (load(state, VIRT) & 1 ? VIRTUAL : 0);
	if (word == MACHINE) {
		u64 mstatus = load(state, MSTATUS);
		if (mstatus & MSTATUS_MPRV)
			word |= AS_MPP | (mstatus & MSTATUS_MPP) >> 11 << MPP_AT;
	}
	return word;
}

/* Whether nothing is to be looked at but what is fetched. */
static inline bool is_as_before(struct processor *p, u64 pc)
{
	bool same = mode_word(p->state) == p->c.mode && pc != p->c.handler;
	if (same && (p->c.mode & 3) != USERS)
		p->c.tp = gpr(p->state, 4);
	return same;
}

static inline u64 program_counter(const struct processor *p) { return load(p->state, PC); }
#endif
