/* What the manual says of x86: the Intel SDM, volume 3A.  See ../shadow.h. */
#include "x86.h"

/* ---- walks (4.3 to 4.5) ---- */

struct format format_of(const struct processor *p)
{
	if (p->c.efer & EFER_LMA)
		return (struct format){ p->c.cr4 & CR4_LA57 ? 5 : 4, 8, 9 };
	if (p->c.cr4 & CR4_PAE)
		return (struct format){ 3, 8, 9 };
	return (struct format){ 2, 4, 10 };
}

u64 root_of(const struct processor *p)
{
	return format_of(p).levels == 3 ? p->c.cr3 & 0xffffffe0 : p->c.cr3 & ADDRESS;
}

u64 table_of(struct format format, u64 raw) { (void)format; return raw & ADDRESS; }

/* TCG has no PCIDs. */
u32 space_of(const struct processor *p) { (void)p; return 0; }

static bool is_pdpte(struct format format, unsigned level) { return format.levels == 3 && level == 2; }

/* PDPTEs of PAE are held in registers, and in no cache beside that (4.10.3). */
bool is_cached_above(struct format format, unsigned level)
{
	return !is_pdpte(format, level) || planted(PDPTES_ARE_CACHED);
}

static bool is_leaf(const struct processor *p, struct format format, unsigned level, u64 raw)
{
	if (!level)
		return true;
	if (!(raw & PS) || is_pdpte(format, level))
		return false;
	return format.width == 8 ? level <= 2 : level == 1 && p->c.cr4 & CR4_PSE;
}

static u64 leaf_address(struct format format, unsigned shift, u64 raw)
{
	u64 address = raw & ADDRESS & -(1ull << shift);
	if (format.width == 4 && shift > 12 && !planted(PSE36_IGNORED))
		address |= (raw >> 13 & 0xff) << 32;
	return address;
}

enum kind take(const struct processor *p, struct format format, unsigned level, u64 raw, u64 address, struct walk *walk)
{
	(void)address;
	if (!(raw & P))
		return NONE;
	if (!is_pdpte(format, level)) {
		walk->writable &= !!(raw & W);
		walk->user &= !!(raw & U);
		walk->executable &= !(raw & NX) || !(p->c.efer & EFER_NXE);
	}
	if (!is_leaf(p, format, level, raw))
		return POINTER;
	walk->shift = shift_at(format, level);
	walk->physical = leaf_address(format, walk->shift, raw);
	walk->global = raw & G && (p->c.cr4 & CR4_PGE || planted(GLOBAL_WITHOUT_PGE));
	walk->dirty = raw & D;
	return LEAF;
}

/* ---- rights (4.6) ---- */

/* Whether rights let an access pass (4.6.1); what depends on AC and on protection keys is let pass. */
bool permits(const struct processor *p, const struct walk *walk, enum access access, bool user)
{
	if (!walk->ok)
		return false;
	if (user && !walk->user && !planted(NO_USER))
		return false;
	if (access == WRITE && !walk->writable && (user || p->c.cr0 & CR0_WP || planted(WP_IGNORED)) && !planted(NO_WRITE))
		return false;
	if (access != FETCH)
		return true;
	if (!walk->executable && !planted(NO_EXECUTE))
		return false;
	return user || !walk->user || !(p->c.cr4 & CR4_SMEP) || planted(SMEP_IGNORED);
}

/* An implicit access to a descriptor or a task segment is the supervisor's (4.6.1). */
bool as_user(const struct processor *p, enum access access, const struct walk *now, const struct entry *entry)
{
	return p->modes[access] == USER && (now->user || (entry && entry->walk.user));
}

/* ---- changes ---- */

/* Whether some access may pass no more: U that is set takes the supervisor's fetches where there is SMEP. */
bool narrower(u64 before, u64 after)
{
	if (!(before & P))
		return false;
	if (!(after & P))
		return true;
	if (planted(WIDENING_COUNTS) || planted(SIZE_COUNTS) || planted(OTHER_BITS_COUNT))
		return before != after;
	return ((before ^ after) & (ADDRESS | PS | U)) || (before & ~after & W) || (after & ~before & NX);
}

enum lost what_is_lost(struct step was, struct step now)
{
	if (!(now.raw & P))
		return LOST_ABSENT;
	if ((was.raw ^ now.raw) & (ADDRESS | PS))
		return LOST_FRAME;
	if (was.raw & ~now.raw & W)
		return LOST_WRITE;
	if (was.raw & ~now.raw & U)
		return LOST_USER;
	return now.raw & ~was.raw & NX ? LOST_EXECUTE : LOST_OTHER;
}

/*
 * Which thread of the guest a processor executes, by what kernels leave alone between a system call and its end: the
 * address space, whose tables may come in a pair of pages, and in 64-bit code the base of thread-local storage.  One
 * that is moved to another processor meanwhile is taken for another.
 */
u64 thread_of(const struct processor *p)
{
	u64 pair = planted(ROOTS_WITHOUT_PAIRS) ? 0 : PAGE, space = (load(p->state, CR3) & ADDRESS & ~pair) | p->number;
	return space ^ (p->c.efer & EFER_LMA && !planted(THREADS_WITHOUT_FS) ? base(p->state, FS) * 0x9e3779b97f4a7c15ull : 0);
}

void set_state(struct cause *cause, const struct processor *p)
{
	cause->cr0 = p->c.cr0;
	cause->cr3 = p->c.cr3;
	cause->cr4 = p->c.cr4;
	cause->efer = p->c.efer;
}

void before_look(struct processor *p) { p->c.efer = load(p->state, EFER); }

/* ---- PDPTE registers ---- */

/* PAE: the PDPTEs that were loaded with CR3, which nothing else renews (4.4.1). */
bool by_register(struct processor *p, u64 address, const struct walk *now, enum access access, bool user,
			struct walk *way, struct entry **from, enum cached *kind)
{
	struct entry *entry = &p->registers[address >> 30 & 3];
	struct step was = entry->walk.path[0];
	if (format_of(p).levels != 3 || !(was.raw & P) || !now->steps || was.raw == now->path[0].raw ||
	    planted(NO_REGISTERS))
		return false;
	*way = (struct walk){ ALL_RIGHTS, .steps = 1, .path = { was } };
	go_down(p, address, was.raw & ADDRESS, 1, way);
	*from = entry;
	*kind = REGISTER;
	return is_stale(p, way, now, address, access, user);
}

static void load_registers(struct processor *p, enum how how)
{
	end_stale(p, REGISTERS, ANY_SPACE, how);
	for (unsigned i = 0; i < 4; i++) {
		u64 at = (root_of(p)) + 8 * i, raw;
		struct step step = { at, entry_at(at, 8, &raw) ? raw : 0 };
		p->registers[i] = (struct entry){
			.key = i, .seen = changes_seen, .walk = { .steps = 1, .path = { step } },
		};
	}
}

/* ---- flushes (4.10.4.1) ---- */

/* All, or all that is not global. */
void drop_all(struct processor *p, bool global, enum how how)
{
	bool structures = !(how == MOV_CR3 && planted(CR3_SPARES_STRUCTURES));
	drop_kinds(p, TRANSLATIONS | (global ? GLOBALS : 0) | (structures ? STRUCTURES : 0), ANY_SPACE, how);
}

/* A page with its address, of any size and global too, and every entry above a page. */
void drop_page(struct processor *p, u64 address)
{
	struct entry *entry = cached(p, address);
	report->totals.invlpg++;
	if (planted(INVLPG_DROPS_NOTHING))
		return;
	if (planted(INVLPG_DROPS_ALL))
		drop_all(p, true, INVLPG);
	bool spared = entry && ((entry->walk.global && planted(INVLPG_SPARES_GLOBAL)) ||
				(entry->walk.shift > 12 && planted(INVLPG_SPARES_LARGE)));
	if (!spared)
		drop_page_of(p, address, ANY_SPACE, INVLPG);
	if (!planted(INVLPG_SPARES_STRUCTURES))
		drop_kinds(p, STRUCTURES, ANY_SPACE, INVLPG);
}

/* Bits whose change loads the PDPTEs, as paging that begins does (4.4.1). */
static u64 loading_in_cr0(void)
{
	return (planted(CD_KEEPS_REGISTERS) ? 0 : CR0_CD) | (planted(NW_KEEPS_REGISTERS) ? 0 : CR0_NW) |
	       (planted(WP_LOADS_REGISTERS) ? CR0_WP : 0);
}

static u64 loading_in_cr4(void)
{
	return (planted(PAE_KEEPS_REGISTERS) ? 0 : CR4_PAE) | (planted(PGE_KEEPS_REGISTERS) ? 0 : CR4_PGE) |
	       (planted(PSE_KEEPS_REGISTERS) ? 0 : CR4_PSE) | (planted(SMEP_KEEPS_REGISTERS) ? 0 : CR4_SMEP);
}

static void enter_mode(struct processor *p)
{
	enum mode mode = !p->c.paging ? BARE : (p->c.flags & HF_CPL) == 3 ? USER : KERNEL;
	set_modes(p, mode, mode);
}

/* After MOV to a control register, and where one has changed without (4.10.4.1). */
void note_control(struct processor *p, bool written_cr3)
{
	u64 cr0 = load(p->state, CR0), cr3 = load(p->state, CR3), cr4 = load(p->state, CR4);
	u64 turned0 = cr0 ^ p->c.cr0, turned4 = cr4 ^ p->c.cr4;
	bool paging = cr0 & CR0_PG && !(flags_of(p->state) & (HF_SMM | HF_GUEST));
	bool task = cr3 != p->c.cr3 && !written_cr3;
	lock();
	p->c.efer = load(p->state, EFER);
	bool smep = turned4 & cr4 & CR4_SMEP && !planted(SMEP_DROPS_NOTHING), spares = planted(SMEP_SPARES_GLOBAL);
	bool all = (p->c.paging && !paging && !planted(PG_DROPS_NOTHING)) || (turned4 & CR4_PGE && !planted(PGE_DROPS_NOTHING)) ||
		   (turned4 & CR4_PAE && !planted(PAE_DROPS_NOTHING)) || (smep && !spares);
	bool some = (written_cr3 && !planted(CR3_DROPS_NOTHING)) || (task && !planted(TASK_SWITCH_DROPS_NOTHING)) || smep ||
		    planted(ANY_CONTROL_DROPS);
	bool loads = (written_cr3 && !planted(REGISTERS_STAY)) || (task && !planted(TASK_SWITCH_KEEPS_REGISTERS)) ||
		     (paging != p->c.paging && !planted(PG_KEEPS_REGISTERS)) || turned0 & loading_in_cr0() || turned4 & loading_in_cr4();
	if (all || some)
		drop_all(p, all || (written_cr3 && planted(CR3_DROPS_GLOBAL)), written_cr3 || task ? MOV_CR3 : CONTROL);
	report->totals.mov_cr3 += written_cr3;
	report->totals.control += all;
	report->totals.unfollowed |= !!(cr4 & CR4_PCIDE);
	report->totals.paged += paging && !p->paged;
	p->paged |= paging;
	p->c.cr0 = cr0;
	p->c.cr3 = cr3;
	p->c.cr4 = cr4;
	p->c.paging = paging;
	enter_mode(p);
	if (paging && loads && format_of(p).levels == 3)
		load_registers(p, written_cr3 || task ? MOV_CR3 : CONTROL);
	outdate(p);
	unlock();
}

/* ---- page faults (4.7) ---- */

/* The handler begins: the error code is on its stack, and above it the address of what faulted. */
static void note_fault(struct processor *p, u64 pc)
{
	u64 address = p->c.cr2 = load(p->state, CR2), code, from;
	unsigned size = p->c.efer & EFER_LMA ? 8 : 4;
	u64 stack = gpr(p->state, 4) + (size == 4 ? base(p->state, SS) : 0);
	p->c.handler = pc;
	if (!p->c.paging)
		return;
	lock();
	report->totals.faults++;
	if (read_linear(p, stack, size, &code) && read_linear(p, stack + size, size, &from) && code < 1u << 16)
		denied(p, address, code & 16 ? FETCH : code & 2 ? WRITE : READ, code & 4, from);
	if (!planted(FAULT_DROPS_NOTHING)) {
		for (struct entry *entry; (entry = cached(p, address));)
			drop(entry, FAULT);
		outdate(p);
		for (unsigned level = 1; level < format_of(p).levels && !planted(FAULT_SPARES_STRUCTURES); level++) {
			struct entry *entry = above(p, address, level);
			if (entry)
				drop(entry, FAULT);
		}
	}
	unlock();
}

/* ---- the state of a processor ---- */

void start_state(struct processor *p) { p->c.cr2 = load(p->state, CR2); }

static void note_mode(struct processor *p, u32 flags)
{
	u32 turned = flags ^ p->c.flags;
	p->c.flags = flags;
	if (turned & (HF_PE | HF_LMA | HF_SMM | HF_GUEST))
		note_control(p, false);
	enter_mode(p);
	if (p->modes[FETCH] == USER)
		note_user(p);
}

void note_state(struct processor *p, u64 pc)
{
	u32 flags = flags_of(p->state);
	if ((flags ^ p->c.flags) & WATCHED)
		note_mode(p, flags);
	if (load(p->state, CR3) != p->c.cr3)
		note_control(p, false);
	if (load(p->state, CR2) != p->c.cr2 || (pc == p->c.handler && !planted(SAME_FAULT_IGNORED)))
		note_fault(p, pc);
}
