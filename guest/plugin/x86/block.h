/* What each block of instructions asks: as little as can be. */
#ifndef BLOCK_H
#define BLOCK_H
#include "shadow.h"

/* Whether nothing is to be looked at but what is fetched. */
static inline bool is_as_before(struct processor *p, u64 pc)
{
	return !((flags_of(p->state) ^ p->c.flags) & WATCHED) && load(p->state, CR3) == p->c.cr3 &&
	       load(p->state, CR2) == p->c.cr2 && pc != p->c.handler;
}

static inline u64 program_counter(const struct processor *p)
{
	return load(p->state, EIP) + (flags_of(p->state) & HF_CS64 ? 0 : base(p->state, CS));
}
#endif
