/* The instructions of RISC-V that flush, and those that write CSRs.  See ../shadow.h. */
#include <string.h>
#include "riscv.h"

enum { SYSTEM = 0x73 };
enum { CSR_STVEC = 0x105, CSR_SATP = 0x180, CSR_MTVEC = 0x305 };

static unsigned field(u32 word, unsigned first, unsigned bits) { return word >> first & ((1u << bits) - 1); }
static unsigned rs1(u32 word) { return field(word, 15, 5); }
static unsigned rs2(u32 word) { return field(word, 20, 5); }

static u32 word_in(const u8 *bytes)
{
	u32 word;
	memcpy(&word, bytes, sizeof word);
	return word;
}

/* CSRRS and CSRRC of x0, or of zero, write nothing. */
static enum what csr_access(u32 word)
{
	unsigned csr = field(word, 20, 12), how = field(word, 12, 2);
	bool writes = how == 1 || rs1(word);
	return writes && (csr == CSR_SATP || csr == CSR_STVEC || csr == CSR_MTVEC) ? WRITES_CSR : NOTHING;
}

/* What is compressed flushes nothing. */
enum what what_is(const u8 *bytes)
{
	u32 word = word_in(bytes);
	if ((word & 0x7f) != SYSTEM)
		return NOTHING;
	if (field(word, 12, 2))
		return csr_access(word);
	if (field(word, 7, 8))	/* rd and funct3 */
		return NOTHING;
	switch (field(word, 25, 7)) {
	case 0x09: return FENCES;
	case 0x0b: return INVALIDATES;
	case 0x0c: return rs1(word) ? NOTHING : rs2(word) == 0 ? ORDERS_STORES : rs2(word) == 1 ? ENDS_INVALIDATIONS : NOTHING;
	default: return NOTHING;
	}
}

void note_special(struct processor *p, const struct special *special)
{
	p->c.before = load(p->state, SATP);
	p->c.pc = special->pc + p->offset;
}

/*
 * In a guest of the hypervisor extension they are about its own translation, and in S-mode TVM may forbid them: all but
 * SFENCE.W.INVAL and SFENCE.INVAL.IR, which only order (Svinval).
 */
static bool is_executed(const struct processor *p, enum what what)
{
	unsigned mode = p->c.mode & 3;
	bool forbidden = load(p->state, MSTATUS) & MSTATUS_TVM && what != ORDERS_STORES && what != ENDS_INVALIDATIONS;
	if (load(p->state, VIRT) & 1)
		return false;
	return mode == MACHINE || (mode == SUPERVISOR && !forbidden);
}

/* SINVAL.VMA: what SFENCE.INVAL.IR is going to end, of what SFENCE.W.INVAL has ordered. */
static void invalidate(struct processor *p, bool all, u64 address, int space)
{
	if (planted(SINVAL_AT_ONCE))
		fence(p, all, address, space);
	if ((!p->c.ordered && !planted(SINVAL_NEEDS_NO_ORDER)) || planted(SINVAL_IGNORED))
		return;
	if (p->c.invalidations == MOST_INVALIDATIONS) {	/* one for all */
		p->c.invalidation[0].all = true;
		p->c.invalidation[0].space = ANY_SPACE;
		return;
	}
	unsigned i = p->c.invalidations++;
	p->c.invalidation[i].address = address;
	p->c.invalidation[i].space = space;
	p->c.invalidation[i].all = all;
}

static void end_invalidations(struct processor *p)
{
	for (unsigned i = 0; i < p->c.invalidations; i++)
		fence(p, p->c.invalidation[i].all, p->c.invalidation[i].address, p->c.invalidation[i].space);
	p->c.invalidations = 0;
	p->c.ordered = false;
}

/* None of them writes a register of its operands, and QEMU has put those into memory before it executes one. */
void settle(struct processor *p)
{
	const struct special *special = &p->special;
	u32 word = word_in(special->bytes);
	if (special->what == WRITES_CSR) {
		p->c.handler = 0;
		if (field(word, 20, 12) == CSR_SATP && is_executed(p, special->what))
			note_satp(p, p->c.before, p->c.pc);
		return;
	}
	if (!is_executed(p, special->what))
		return;
	bool all = !rs1(word);
	u64 address = all ? 0 : gpr(p->state, rs1(word));
	u64 asids = wide ? 0xffff : 0x1ff;
	int space = rs2(word) ? (int)(gpr(p->state, rs2(word)) & asids) : ANY_SPACE;
	lock();
	switch (special->what) {
	case FENCES:
		fence(p, all, address, space);
		break;
	case INVALIDATES:
		invalidate(p, all, address, space);
		break;
	case ORDERS_STORES:
		p->c.ordered = true;
		break;
	default:
		end_invalidations(p);
	}
	unlock();
}

/* ---- registers ---- */

const struct place_name place_names[PLACES] = {
	[PC] = { .name = "env.pc" }, [GPR] = { .name = "env.gpr" }, [PRIV] = { .name = "env.priv" },
	[MXL] = { .name = "env.misa_mxl" },
	[VIRT] = { .name = "env.virt_enabled", .older = "env.virt" }, [MSTATUS] = { .name = "env.mstatus" },
	[SATP] = { .name = "env.satp" }, [STVEC] = { .name = "env.stvec" }, [SEPC] = { .name = "env.sepc" },
	[SCAUSE] = { .name = "env.scause" }, [STVAL] = { .name = "env.stval" }, [MTVEC] = { .name = "env.mtvec" },
	[MEPC] = { .name = "env.mepc" }, [MCAUSE] = { .name = "env.mcause" }, [MTVAL] = { .name = "env.mtval" },
};

/* Nothing more: the walk of what is executed shows satp and pc, and gdb has CSRs elsewhere. */
const struct told all_told[] = { { NULL, 0, 0 } };

bool is_checked_at(const struct processor *p) { (void)p; return false; }

const char *check_places(void)
{
	for (int place = 0; place < PLACES; place++)
		if (width_of[place] != 1 && width_of[place] != 4 && width_of[place] != 8)
			return "QEMU's registers are not of a width that is known here";
	return NULL;
}
