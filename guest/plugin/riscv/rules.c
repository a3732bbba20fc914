/*
 * What the manual says of RISC-V: the privileged specification 1.13, "Supervisor Memory-Management Fence Instruction"
 * and "Sv32" to "Sv57".  See ../shadow.h.
 */
#include "block.h"
#include "riscv.h"

bool wide;

/* ---- walks ---- */

static unsigned satp_mode(u64 satp) { return wide ? satp >> 60 : satp >> 31 & 1; }

struct format format_of(const struct processor *p)
{
	if (!wide)
		return (struct format){ 2, 4, 10 };
	unsigned mode = satp_mode(p->c.satp);	/* 8 is Sv39, 9 Sv48, 10 Sv57 */
	return (struct format){ mode == 10 ? 5 : mode == 9 ? 4 : 3, 8, 9 };
}

u64 root_of(const struct processor *p)
{
	return wide ? (p->c.satp & ((1ull << 44) - 1)) << 12 : (p->c.satp & ((1u << 22) - 1)) << 12;
}

static u32 asid_of(u64 satp) { return wide ? satp >> 44 & 0xffff : satp >> 22 & 0x1ff; }

u32 space_of(const struct processor *p) { return planted(SPACES_ARE_ONE) ? 0 : asid_of(p->c.satp); }

static u64 address_in(u64 raw) { return (raw & PPN) << 2; }

u64 table_of(struct format format, u64 raw) { (void)format; return address_in(raw); }

bool is_cached_above(struct format format, unsigned level) { (void)format; (void)level; return true; }

static bool is_pointer(u64 raw) { return !(raw & (R | W | X)); }

enum { NAPOT_SHIFT = 16, NAPOT_PATTERN = 8 };	/* Svnapot: 64K, whose PPN ends in these bits */

/*
 * Sv32's algorithm, steps 3 to 5 and 10.  What is reserved otherwise faults in QEMU, if it is: the extensions that a hart
 * has are not known here.  Rights are the leaf's; what is below a pointer with G is global, too.
 */
enum kind take(const struct processor *p, struct format format, unsigned level, u64 raw, u64 address, struct walk *walk)
{
	(void)p;
	if (!(raw & V) || ((raw & W) && !(raw & R)))
		return NONE;
	if (is_pointer(raw)) {
		walk->global |= raw & G && !planted(NO_GLOBAL) && !planted(GLOBAL_OF_LEAVES_ALONE);
		return level ? POINTER : NONE;
	}
	unsigned shift = shift_at(format, level);
	u64 physical = address_in(raw);
	if (raw & N && !level && !planted(NAPOT_IGNORED)) {
		shift = NAPOT_SHIFT;
		if ((physical >> 12 & 15) != NAPOT_PATTERN)
			return NONE;
		physical &= -(1ull << shift);
	} else if (physical & ((1ull << shift) - 1) && !planted(NAPOT_IGNORED)) {
		return NONE;	/* a misaligned superpage */
	}
	(void)address;
	walk->readable = raw & R;
	walk->writable = raw & W;
	walk->executable = raw & X;
	walk->user = raw & U;
	walk->global |= raw & G && !planted(NO_GLOBAL);
	walk->dirty = raw & D;
	walk->shift = shift;
	walk->physical = physical;
	return LEAF;
}

/* ---- rights (steps 6 to 8) ---- */

bool permits(const struct processor *p, const struct walk *walk, enum access access, bool user)
{
	u64 mstatus = load(p->state, MSTATUS);
	if (!walk->ok)
		return false;
	if (user && !walk->user && !planted(NO_USER))
		return false;
	if (!user && walk->user) {
		if (access == FETCH)
			return planted(SUPERVISOR_FETCHES_USERS);
		if (!(mstatus & MSTATUS_SUM) && !planted(SUM_IGNORED))
			return false;
	}
	if (access == WRITE)
		return walk->writable || planted(NO_WRITE);
	if (access == FETCH)
		return walk->executable || planted(NO_EXECUTE);
	return walk->readable || (walk->executable && mstatus & MSTATUS_MXR && !planted(MXR_IGNORED)) || planted(NO_READ);
}

bool as_user(const struct processor *p, enum access access, const struct walk *now, const struct entry *entry)
{
	(void)now;
	(void)entry;
	return p->modes[access] == USER;
}

/* ---- changes ---- */

/* Whether some access may pass no more: U that is set takes the supervisor's fetches, and without SUM its data. */
bool narrower(u64 before, u64 after)
{
	if (!(before & V))
		return false;
	if (!(after & V))
		return true;
	if (planted(WIDENING_COUNTS) || planted(SIZE_COUNTS) || planted(OTHER_BITS_COUNT))
		return before != after;
	if ((before ^ after) & PPN || is_pointer(before) != is_pointer(after))
		return true;
	return !is_pointer(before) && ((before & ~after & (R | W | X)) || (before ^ after) & (U | N));
}

enum lost what_is_lost(struct step was, struct step now)
{
	if (!(now.raw & V))
		return LOST_ABSENT;
	if ((was.raw ^ now.raw) & (PPN | N) || is_pointer(was.raw) != is_pointer(now.raw))
		return LOST_FRAME;
	u64 lost = was.raw & ~now.raw;
	return lost & R ? LOST_READ : lost & W ? LOST_WRITE : lost & X ? LOST_EXECUTE : lost & U ? LOST_USER : LOST_OTHER;
}

/*
 * Which thread of the guest a hart executes: what is in tp outside user mode, where Linux has its task, and other kernels
 * the hart or nothing.  One that is moved to another hart meanwhile is taken for another.
 */
u64 thread_of(const struct processor *p)
{
	return (planted(THREADS_WITHOUT_TP) ? 0 : p->c.tp * 0x9e3779b97f4a7c15ull) ^ (p->number + 1);
}

bool by_register(struct processor *p, u64 address, const struct walk *now, enum access access, bool user, struct walk *way,
		 struct entry **from, enum cached *kind)
{
	(void)p, (void)address, (void)now, (void)access, (void)user, (void)way, (void)from, (void)kind;
	return false;
}

void set_state(struct cause *cause, const struct processor *p)
{
	cause->satp = p->c.satp;
	cause->mstatus = load(p->state, MSTATUS);
	cause->xlen = wide ? 64 : 32;
}

void before_look(struct processor *p) { (void)p; }

/* ---- fences ---- */

enum { SPACE_KINDS = TRANSLATIONS | STRUCTURES, ALL_KINDS = TRANSLATIONS | GLOBALS | STRUCTURES };

/*
 * SFENCE.VMA: of all addresses, or of the leaf that one has, with no entry above it; of one address space, and then of
 * nothing that is global, or of any.
 */
void fence(struct processor *p, bool all, u64 address, int space)
{
	struct totals *totals = &report->totals;
	enum how how = !all ? FENCE_PAGE : space == ANY_SPACE ? FENCE_ALL : FENCE_SPACE;
	*(how == FENCE_PAGE ? &totals->fence_page : how == FENCE_ALL ? &totals->fence_all : &totals->fence_space) += 1;
	if (planted(FENCE_DROPS_NOTHING))
		return;
	if (planted(SPACES_ARE_ONE) && space != ANY_SPACE)
		space = 0;
	if (planted(FENCE_IGNORES_SPACE) && space != ANY_SPACE)
		space = space_of(p);
	if (all || planted(FENCE_DROPS_ALL)) {
		unsigned kinds = space == ANY_SPACE ? ALL_KINDS : SPACE_KINDS;
		if (space == ANY_SPACE && planted(FENCE_ALL_SPARES_GLOBAL))
			kinds &= ~GLOBALS;
		if (space == ANY_SPACE && planted(FENCE_ALL_SPARES_STRUCTURES))
			kinds &= ~STRUCTURES;
		drop_kinds(p, kinds, space, how);
		if (planted(FENCE_OF_SPACE_DROPS_GLOBAL))
			drop_kinds(p, GLOBALS, ANY_SPACE, how);
		return;
	}
	struct entry *entry = cached(p, address);
	if (entry && entry->walk.shift > 12 && planted(FENCE_SPARES_LARGE))
		return;
	drop_page_of(p, address, space, how);
	if (planted(FENCE_OF_PAGE_DROPS_GLOBAL))
		drop_page_of(p, address, EVERY_SPACE, how);
	if (planted(FENCE_DROPS_STRUCTURES))
		drop_kinds(p, STRUCTURES, ANY_SPACE, how);
}

/* ---- the state of a hart ---- */

static enum mode mode_of(const struct processor *p, unsigned privilege)
{
	return privilege == MACHINE || !p->c.paging ? BARE : privilege == USERS ? USER : KERNEL;
}

/* What runs in a guest of the hypervisor extension is left out. */
static void enter_mode(struct processor *p)
{
	u32 mode = p->c.mode;
	unsigned privilege = mode & VIRTUAL ? MACHINE : mode & 3;
	unsigned of_data = mode & AS_MPP && !planted(MPRV_IGNORED) ? mode >> MPP_AT & 3 : privilege;
	set_modes(p, mode_of(p, of_data), mode_of(p, privilege));
}

/* satp has been written, or was found to be another; writing it flushes nothing. */
void note_satp(struct processor *p, u64 before, u64 pc)
{
	u64 satp = load(p->state, SATP);
	lock();
	report->totals.satp++;
	if (satp != before && !planted(NO_ROOT))
		p->root = (struct change){
			UNKNOWN, before, satp, pc, ++changes_seen, thread_of(p), p->blocks, p->number,
		};
	p->c.satp = satp;
	p->c.paging = satp_mode(satp);
	report->totals.paged += p->c.paging && !p->paged;
	p->paged |= p->c.paging;
	if (planted(SATP_DROPS_ALL))
		drop_kinds(p, ALL_KINDS, ANY_SPACE, FENCE_ALL);
	enter_mode(p);
	outdate(p);
	unlock();
}

enum { FETCH_FAULT = 12, LOAD_FAULT = 13, STORE_FAULT = 15 };

/*
 * A handler begins: of a page fault, by the cause.  It drops nothing that is cached.  `before` is how accesses were
 * translated when the exception came, which mstatus has of fetches, but not of data by MPRV.
 */
static void note_fault(struct processor *p, const enum mode *before)
{
	bool machine = (p->c.mode & 3) == MACHINE;
	u64 cause = load(p->state, machine ? MCAUSE : SCAUSE), mstatus = load(p->state, MSTATUS);
	u64 address = load(p->state, machine ? MTVAL : STVAL), from = load(p->state, machine ? MEPC : SEPC);
	if (cause != FETCH_FAULT && cause != LOAD_FAULT && cause != STORE_FAULT)
		return;
	enum access access = cause == FETCH_FAULT ? FETCH : cause == LOAD_FAULT ? READ : WRITE;
	unsigned previous = machine ? (mstatus & MSTATUS_MPP) >> 11 : mstatus & MSTATUS_SPP ? SUPERVISOR : USERS;
	bool user = previous == MACHINE ? before[access] == USER : previous == USERS;
	lock();
	report->totals.faults++;
	denied(p, address, access, user, from);
	if (planted(FAULT_DROPS))
		drop_page_of(p, address, ANY_SPACE, FAULT);
	unlock();
}

enum { MXL_64 = 2 };	/* misa.MXL */

void start_state(struct processor *p)
{
	wide = load(p->state, MXL) == MXL_64;
	p->c.mode = -1;
}

void note_state(struct processor *p, u64 pc)
{
	u32 mode = mode_word(p->state);
	enum mode before[3] = { p->modes[READ], p->modes[WRITE], p->modes[FETCH] };
	if (mode & VIRTUAL) {	/* whose satp is another register */
		report->totals.unfollowed = 1;
	} else if (load(p->state, SATP) != p->c.satp) {
		note_satp(p, p->c.satp, UNKNOWN);
	}
	if (mode != p->c.mode) {
		p->c.mode = mode;
		enter_mode(p);
		if (p->modes[FETCH] == USER)
			note_user(p);
	}
	if ((mode & 3) != USERS)
		p->c.tp = gpr(p->state, 4);
	if (mode & VIRTUAL)
		return;
	p->c.handler = load(p->state, (mode & 3) == MACHINE ? MTVEC : STVEC) & ~3ull;
	if (pc == p->c.handler && p->paged)
		note_fault(p, before);
}
