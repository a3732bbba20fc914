/* See shadow.h and README.md.  Sections are those of the Intel SDM, volume 3A. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "shadow.h"

#define CR0_WP		(1ull << 16)
#define CR0_NW		(1ull << 29)
#define CR0_CD		(1ull << 30)
#define CR0_PG		(1ull << 31)
#define CR4_PSE		(1ull << 4)
#define CR4_PAE		(1ull << 5)
#define CR4_PGE		(1ull << 7)
#define CR4_LA57	(1ull << 12)
#define CR4_PCIDE	(1ull << 17)
#define CR4_SMEP	(1ull << 20)
#define EFER_LMA	(1ull << 10)
#define EFER_NXE	(1ull << 11)

#define P		1ull
#define W		2ull
#define U		4ull
#define A		(1ull << 5)
#define D		(1ull << 6)
#define PS		(1ull << 7)
#define G		(1ull << 8)
#define NX		(1ull << 63)
#define ADDRESS		0x000ffffffffff000ull

#define QUIET		4096	/* stores into a frame that no walk comes by, after which it is a table no more */
#define MOST_LOGGED	(1 << 16)
#define MOST_THREADS	(1 << 12)

struct processor *processors[MOST_PROCESSORS];
struct report *report;
u64 deadline;
#ifdef PLANTS
int plant;
#endif

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
void lock(void) { pthread_mutex_lock(&mutex); }
void unlock(void) { pthread_mutex_unlock(&mutex); }

static u64 hash(u64 word) { return word * 0x9e3779b97f4a7c15ull >> 20; }

/* ---- memory ---- */

enum { CHUNK = 512, CHUNKS = 1 << 19 };	/* frames below 1 TiB */
static struct frame *chunks[CHUNKS];
static struct frame outside = { .absent = true };

struct frame *frame_of(u64 physical)
{
	u64 number = physical / PAGE, chunk = number / CHUNK;
	if (chunk >= CHUNKS)
		return &outside;
	struct frame *frames = __atomic_load_n(&chunks[chunk], __ATOMIC_ACQUIRE);
	if (!frames) {
		struct frame *fresh = calloc(CHUNK, sizeof *fresh);
		if (__atomic_compare_exchange_n(&chunks[chunk], &frames, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			frames = fresh;
		else
			free(fresh);
	}
	return &frames[number % CHUNK];
}

/* What was allocated; QEMU ends where nothing was. */
static void *allocated(void *memory)
{
	if (!memory) {
		snprintf(report->sentence, SENTENCE, "there is no memory left for what is cached");
		report->totals.state = REFUSED;
		_exit(1);
	}
	return memory;
}

static u8 *host_of(struct frame *frame, u64 physical)
{
	if (!frame->host && !frame->absent) {
		frame->host = host_page(physical & -PAGE);
		frame->absent = !frame->host;
	}
	return frame->host;
}

static u64 word_at(const u8 *page, u64 offset, unsigned width)
{
	return width == 8 ? *(const volatile u64 *)(page + offset) : *(const volatile u32 *)(page + offset);
}

/* An entry of a table, which is watched from now on. */
static bool entry_at(u64 physical, unsigned width, u64 *raw)
{
	struct frame *frame = frame_of(physical);
	u8 *page = host_of(frame, physical);
	if (!page)
		return false;
	if (!frame->watch || frame->width != width) {
		if (!frame->copy)
			frame->copy = allocated(malloc(PAGE));
		memcpy(frame->copy, page, PAGE);
		frame->width = width;
	}
	frame->watch = WALKED;
	frame->quiet = 0;
	*raw = word_at(page, physical % PAGE, width);
	return true;
}

/* ---- walks (4.3 to 4.5) ---- */

struct format { unsigned levels, width, bits; };

static struct format format_of(const struct processor *p)
{
	if (p->efer & EFER_LMA)
		return (struct format){ p->cr4 & CR4_LA57 ? 5 : 4, 8, 9 };
	if (p->cr4 & CR4_PAE)
		return (struct format){ 3, 8, 9 };
	return (struct format){ 2, 4, 10 };
}

static unsigned shift_at(struct format format, unsigned level) { return 12 + format.bits * level; }
static bool is_pdpte(struct format format, unsigned level) { return format.levels == 3 && level == 2; }

static bool is_leaf(const struct processor *p, struct format format, unsigned level, u64 raw)
{
	if (!level)
		return true;
	if (!(raw & PS) || is_pdpte(format, level))
		return false;
	return format.width == 8 ? level <= 2 : level == 1 && p->cr4 & CR4_PSE;
}

static u64 leaf_address(struct format format, unsigned shift, u64 raw)
{
	u64 address = raw & ADDRESS & -(1ull << shift);
	if (format.width == 4 && shift > 12 && !planted(PSE36_IGNORED))
		address |= (raw >> 13 & 0xff) << 32;
	return address;
}

/* Goes down from a table at `level`, with what the steps above it left of the rights. */
static void go_down(const struct processor *p, u64 address, u64 table, int level, struct walk *walk)
{
	struct format format = format_of(p);
	for (; level >= 0; level--) {
		unsigned shift = shift_at(format, level);
		bool pdpte = is_pdpte(format, level);
		u64 index = address >> shift & (pdpte ? 3 : (1u << format.bits) - 1), raw;
		u64 where = table + index * format.width;
		if (!entry_at(where, format.width, &raw))
			return;
		walk->path[walk->steps++] = (struct step){ where, raw };
		if (!(raw & P))
			return;
		if (!pdpte) {
			walk->writable &= !!(raw & W);
			walk->user &= !!(raw & U);
			walk->executable &= !(raw & NX) || !(p->efer & EFER_NXE);
		}
		if (is_leaf(p, format, level, raw)) {
			walk->ok = true;
			walk->shift = shift;
			walk->physical = leaf_address(format, shift, raw);
			walk->global = raw & G && (p->cr4 & CR4_PGE || planted(GLOBAL_WITHOUT_PGE));
			walk->dirty = raw & D;
			return;
		}
		table = raw & ADDRESS;
	}
}

static struct walk walk_now(const struct processor *p, u64 address)
{
	struct format format = format_of(p);
	struct walk walk = { .writable = true, .user = true, .executable = true };
	u64 root = format.levels == 3 ? p->cr3 & 0xffffffe0 : p->cr3 & ADDRESS;
	go_down(p, address, root, format.levels - 1, &walk);
	return walk;
}

static u64 physical_of(const struct walk *walk, u64 address)
{
	return walk->physical | (address & ((1ull << walk->shift) - 1));
}

/* Whether rights let an access pass (4.6.1); what depends on AC and on protection keys is let pass. */
static bool permits(const struct processor *p, const struct walk *walk, enum access access, bool user)
{
	if (!walk->ok)
		return false;
	if (user && !walk->user && !planted(NO_USER))
		return false;
	if (access == WRITE && !walk->writable && (user || p->cr0 & CR0_WP || planted(WP_IGNORED)) && !planted(NO_WRITE))
		return false;
	if (access != FETCH)
		return true;
	if (!walk->executable && !planted(NO_EXECUTE))
		return false;
	return user || !walk->user || !(p->cr4 & CR4_SMEP) || planted(SMEP_IGNORED);
}

/* ---- what is cached ---- */

static u64 key_of(u64 address, unsigned shift) { return (address >> shift << shift) | shift; }

static bool valid(const struct processor *p, const struct entry *entry)
{
	return entry && entry->generation &&
	       entry->generation == (entry->walk.global ? p->global_generation : p->generation);
}

static struct entry *slot(struct cache *cache, u64 key, bool add)
{
	for (size_t i = hash(key);; i++) {
		struct entry *entry = &cache->entries[i & (cache->size - 1)];
		if (entry->key == key)
			return entry;
		if (!entry->key) {
			if (!add)
				return NULL;
			cache->used++;
			entry->key = key;
			return entry;
		}
	}
}

/* Makes room, and forgets what was dropped, and the oldest where there is too much. */
static void renew(struct processor *p, struct cache *cache, bool structures)
{
	struct cache old = *cache;
	size_t live = 0;
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < old.size; i++) {
			struct entry *entry = &old.entries[i];
			if (structures ? entry->generation != p->structure_generation : !valid(p, entry))
				continue;
			if (!pass)
				live++;
			else if (live > MOST_CACHED && entry->born + MOST_CACHED < p->born)
				report->totals.forgotten++;
			else
				*slot(cache, entry->key, true) = *entry;
		}
		if (!pass) {
			size_t most = live < MOST_CACHED ? live : MOST_CACHED;
			for (cache->size = 1024; cache->size < most * 4; cache->size *= 2)
				;
			cache->entries = allocated(calloc(cache->size, sizeof *cache->entries));
			cache->used = 0;
		}
	}
	free(old.entries);
}

static struct entry *added(struct processor *p, struct cache *cache, u64 key)
{
	if (cache->used * 2 >= cache->size)
		renew(p, cache, cache == &p->structures);
	struct entry *entry = slot(cache, key, true);
	entry->seen = report->totals.narrowed;
	entry->born = p->born++;
	entry->cause = 0;
	entry->untold = false;
	return entry;
}

static struct entry *cached(struct processor *p, u64 address)
{
	for (u64 sizes = p->translations.size ? p->sizes : 0; sizes; sizes &= sizes - 1) {
		struct entry *entry = slot(&p->translations, key_of(address, __builtin_ctzll(sizes)), false);
		if (valid(p, entry))
			return entry;
	}
	return NULL;
}

static void ended(struct entry *entry, enum how how)
{
	if (entry->cause && !entry->untold)
		(&report->causes[entry->cause - 1].by_invlpg)[how]++;
	entry->cause = 0;
	entry->untold = false;
}

static struct entry *entry_of(struct processor *p, struct stale stale)
{
	if (stale.cached == REGISTER)
		return &p->registers[stale.key];
	return slot(stale.cached == STRUCTURE ? &p->structures : &p->translations, stale.key, false);
}

enum { TRANSLATIONS = 1, GLOBALS = 2, STRUCTURES = 4, REGISTERS = 8 };

static unsigned kind_of(struct stale stale, const struct entry *entry)
{
	if (stale.cached == TRANSLATION)
		return entry->walk.global ? GLOBALS : TRANSLATIONS;
	return stale.cached == STRUCTURE ? STRUCTURES : REGISTERS;
}

/* Tells the end of stale entries of some kinds, and keeps the list of the others. */
static void end_stale(struct processor *p, unsigned kinds, enum how how)
{
	size_t left = 0;
	for (size_t i = 0; i < p->stales; i++) {
		struct entry *entry = entry_of(p, p->stale[i]);
		if (!entry || !entry->cause)
			continue;
		if (kind_of(p->stale[i], entry) & kinds)
			ended(entry, how);
		else
			p->stale[left++] = p->stale[i];
	}
	p->stales = left;
}

/* Has the end of an entry told, where there is room. */
static void list_stale(struct processor *p, struct entry *entry, enum cached cached)
{
	if (p->stales == MOST_STALE)
		end_stale(p, 0, UNTOLD);
	if (p->stales < MOST_STALE) {
		p->stale[p->stales++] = (struct stale){ cached, entry->key };
		return;
	}
	report->causes[entry->cause - 1].by_unknown++;
	entry->untold = true;
}

/* All entries above a page that can be cached (4.10.3). */
static void keep_structures(struct processor *p, u64 address, const struct walk *walk)
{
	struct format format = format_of(p);
	for (unsigned i = 0; i + 1 < walk->steps; i++) {
		unsigned level = format.levels - 1 - i;
		u64 key = key_of(address, shift_at(format, level));
		struct entry *entry = p->structures.size ? slot(&p->structures, key, false) : NULL;
		if ((is_pdpte(format, level) && !planted(PDPTES_ARE_CACHED)) || (entry && entry->generation == p->structure_generation))
			continue;
		entry = added(p, &p->structures, key);
		entry->generation = p->structure_generation;
		entry->walk = (struct walk){ .writable = true, .user = true, .executable = true, .steps = i + 1 };
		for (unsigned k = 0; k <= i; k++) {
			u64 raw = walk->path[k].raw;
			entry->walk.path[k] = walk->path[k];
			if (is_pdpte(format, format.levels - 1 - k) || planted(STRUCTURES_WITH_RIGHTS))
				continue;
			entry->walk.writable &= !!(raw & W);
			entry->walk.user &= !!(raw & U);
			entry->walk.executable &= !(raw & NX) || !(p->efer & EFER_NXE);
		}
	}
}

static void keep(struct processor *p, u64 address, const struct walk *walk)
{
	struct entry *entry = added(p, &p->translations, key_of(address, walk->shift));
	entry->walk = *walk;
	entry->generation = walk->global ? p->global_generation : p->generation;
	p->sizes |= 1ull << walk->shift;
	keep_structures(p, address, walk);
}

static void outdate(struct processor *p) { __atomic_add_fetch(&p->stamp, 1, __ATOMIC_RELAXED); }

static void outdate_all(void)
{
	for (unsigned i = 0; i < MOST_PROCESSORS; i++)
		if (processors[i])
			outdate(processors[i]);
}

/* 4.10.4.1: a page with its address, of any size and global too, and every entry above a page. */
static void drop_address(struct processor *p, u64 address, enum how how)
{
	struct entry *entry;
	while ((entry = cached(p, address))) {
		if (how == INVLPG && entry->walk.global && planted(INVLPG_SPARES_GLOBAL))
			break;
		if (how == INVLPG && entry->walk.shift > 12 && planted(INVLPG_SPARES_LARGE))
			break;
		ended(entry, how);
		entry->generation = 0;
	}
	outdate(p);
}

void drop_page(struct processor *p, u64 address)
{
	report->totals.invlpg++;
	if (planted(INVLPG_DROPS_NOTHING))
		return;
	if (planted(INVLPG_DROPS_ALL))
		drop_all(p, true, INVLPG);
	drop_address(p, address, INVLPG);
	if (planted(INVLPG_SPARES_STRUCTURES))
		return;
	end_stale(p, STRUCTURES, INVLPG);
	p->structure_generation++;
}

void drop_all(struct processor *p, bool global, enum how how)
{
	bool structures = !(how == MOV_CR3 && planted(CR3_SPARES_STRUCTURES));
	end_stale(p, TRANSLATIONS | (global ? GLOBALS : 0) | (structures ? STRUCTURES : 0), how);
	p->generation++;
	if (global)
		p->global_generation++;
	if (structures)
		p->structure_generation++;
	outdate(p);
}

/* ---- changes ---- */

/* The last narrowing of an entry, by its address. */
struct change { u64 at, before, after, pc, number, thread, blocks; unsigned author; };
static struct change changes[MOST_LOGGED];

/* Threads that went back to user mode, and how many narrowings there had been then. */
static struct { u64 thread, number; } back[MOST_THREADS];

static struct change *change_of(u64 at) { return &changes[hash(at) % MOST_LOGGED]; }

/*
 * Which thread of the guest a processor executes, by what kernels leave alone between a system call and its end: the
 * address space, whose tables may come in a pair of pages, and in 64-bit code the base of thread-local storage.  One
 * that is moved to another processor meanwhile is taken for another.
 */
static u64 thread_of(const struct processor *p)
{
	u64 pair = planted(ROOTS_WITHOUT_PAIRS) ? 0 : PAGE, space = (load(p->state, CR3) & ADDRESS & ~pair) | p->number;
	return space ^ (p->efer & EFER_LMA && !planted(THREADS_WITHOUT_FS) ? base(p->state, FS) * 0x9e3779b97f4a7c15ull : 0);
}

void note_user(struct processor *p)
{
	u64 thread = thread_of(p), number = report->totals.narrowed;
	unsigned i = hash(thread) % MOST_THREADS;
	if (back[i].thread == thread && back[i].number == number)
		return;
	lock();
	back[i].thread = thread;
	back[i].number = number;
	unlock();
}

/* Whether some access may pass no more: U that is set takes the supervisor's fetches where there is SMEP. */
static bool narrower(u64 before, u64 after)
{
	if (!(before & P))
		return false;
	if (!(after & P))
		return true;
	if (planted(WIDENING_COUNTS) || planted(SIZE_COUNTS) || planted(OTHER_BITS_COUNT))
		return before != after;
	return ((before ^ after) & (ADDRESS | PS | U)) || (before & ~after & W) || (after & ~before & NX);
}

static void log_change(struct processor *p, u64 at, u64 before, u64 after, u64 pc)
{
	*change_of(at) = (struct change){
		at, before, after, pc, ++report->totals.narrowed, thread_of(p), p->blocks, p->number,
	};
}

/* After a store into a frame that walks came by: QEMU calls when the memory holds it. */
void stored(struct processor *p, struct frame *frame, u64 physical, unsigned size, u64 pc)
{
	lock();
	report->totals.stores++;
	unsigned width = frame->width;
	u64 end = physical + size;
	for (u64 at = physical & -(u64)width; frame->watch && at < end && at / PAGE == physical / PAGE; at += width) {
		u8 *seen = frame->copy + at % PAGE;
		u64 before = word_at(seen, 0, width), after = word_at(frame->host, at % PAGE, width);
		if (before == after)
			continue;
		memcpy(seen, &after, width);
		if (!narrower(before, after))
			continue;
		log_change(p, at, before, after, pc);
		if (frame->watch == WALKED) {
			frame->watch = CHANGED;
			outdate_all();
		}
	}
	if (frame->watch && ++frame->quiet > QUIET && !planted(QUIET_FOLLOWED)) {
		frame->watch = UNWATCHED;
		free(frame->copy);
		frame->copy = NULL;
		outdate_all();
	}
	unlock();
}

/* ---- stale uses ---- */

/* The change that took from an entry what is cached: one after it was cached, by other than A and D. */
static const struct change *guilty(const struct entry *entry, struct step was)
{
	const struct change *change = change_of(was.at);
	if (change->at != was.at || change->number <= entry->seen || !((change->after ^ was.raw) & ~(A | D)))
		return NULL;
	return change;
}

/*
 * Which step of a walk has lost something; the last where none has.  Where an entry stands does not count: a global
 * page is used under other roots, whose tables may be shared from any level on.
 */
static unsigned first_lost(const struct walk *was, const struct walk *now)
{
	for (unsigned i = 0; i < now->steps && i < was->steps; i++)
		if (narrower(was->path[i].raw, now->path[i].raw) ||
		    (planted(ROOT_COUNTS) && was->path[i].at != now->path[i].at))
			return i;
	return now->steps ? now->steps - 1u : 0;
}

static enum lost what_is_lost(struct step was, struct step now)
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
 * Whether no later flush excuses the change: its author has gone back to user mode, or has run on for so long that it
 * will not flush any more.
 */
static bool is_late(const struct change *change)
{
	if (!change || planted(NO_LATE))
		return false;
	if (planted(ALWAYS_LATE))
		return true;
	unsigned i = hash(change->thread) % MOST_THREADS;
	if (back[i].thread == change->thread && back[i].number >= change->number)
		return true;
	return processors[change->author]->blocks - change->blocks > deadline && !planted(NO_DEADLINE);
}

struct use {
	struct processor *p;
	u64 address, pc;
	enum access access;
	bool user, denied;
	enum cached cached;
	struct entry *entry;	/* what is cached */
	const struct walk *was, *now;
};

static void set_path(u64 *steps, const struct walk *walk)
{
	*steps = walk->steps;
	for (unsigned i = 0; i < MOST_STEPS; i++) {
		steps[1 + i] = i < walk->steps ? walk->path[i].at : 0;
		steps[1 + MOST_STEPS + i] = i < walk->steps ? walk->path[i].raw : 0;
	}
}

static void set_example(struct cause *cause, const struct use *use, struct step was, struct step now,
			const struct change *change)
{
	struct processor *p = use->p;
	cause->author = change ? change->author : UNKNOWN;
	cause->processor = p->number;
	cause->address = use->address;
	cause->pc = use->pc;
	cause->cr0 = p->cr0;
	cause->cr3 = p->cr3;
	cause->cr4 = p->cr4;
	cause->efer = p->efer;
	cause->physical = physical_of(use->was, use->address);
	cause->entry = was.at;
	cause->before = was.raw;
	cause->after = now.raw;
	set_path(&cause->old_steps, use->was);
	set_path(&cause->new_steps, use->now);
}

enum { KEYS = offsetof(struct cause, uses) / sizeof(uint64_t) };

static struct cause *cause_like(const u64 *key)
{
	static u32 places[MOST_CAUSES * 4];
	u64 mix = 0;
	for (int i = 0; i < KEYS; i++)
		mix = hash(mix ^ key[i]) + i;
	for (u64 i = mix;; i++) {
		u32 *place = &places[i % (MOST_CAUSES * 4)];
		if (*place && !memcmp(&report->causes[*place - 1], key, KEYS * sizeof *key))
			return &report->causes[*place - 1];
		if (*place)
			continue;
		if (report->totals.causes == MOST_CAUSES)
			return NULL;
		*place = report->totals.causes + 1;
		struct cause *cause = &report->causes[*place - 1];
		memcpy(cause, key, KEYS * sizeof *key);
		report->totals.causes++;
		return cause;
	}
}

static void count_use(const struct use *use)
{
	struct processor *p = use->p;
	struct totals *totals = &report->totals;
	unsigned lost = first_lost(use->was, use->now);
	struct step was = use->was->path[lost], now = lost < use->now->steps ? use->now->path[lost] : was;
	const struct change *change = guilty(use->entry, was);
	struct format format = format_of(p);
	u64 key[KEYS] = {
		change ? change->pc : UNKNOWN, format.levels - 1 - lost, what_is_lost(was, now), use->access, use->user,
		change && change->author == p->number, use->cached, use->denied,
	};
	struct cause *cause = cause_like(key);
	totals->uses++;
	totals->denied += use->denied;
	if (!cause) {
		totals->lost_causes++;
		totals->late += is_late(change);
		return;
	}
	u32 number = cause - report->causes + 1;
	if (use->entry->cause != number) {
		bool listed = use->entry->cause && !use->entry->untold;
		ended(use->entry, UNTOLD);
		use->entry->cause = number;
		cause->entries++;
		totals->entries++;
		if (!listed)
			list_stale(p, use->entry, use->cached);
	}
	bool late = is_late(change);
	if (!cause->uses || (late && !cause->late))
		set_example(cause, use, was, now, change);
	cause->uses++;
	cause->late += late;
	totals->late += late;
}

static bool same_place(const struct walk *was, const struct walk *now, u64 address)
{
	return planted(NO_FRAME) || physical_of(was, address) == physical_of(now, address);
}

/* Whether what is cached lets an access pass that the tables do not, or leads it elsewhere. */
static bool is_stale(const struct processor *p, const struct walk *was, const struct walk *now, u64 address,
		     enum access access, bool user)
{
	if (planted(WIDENING_COUNTS) && now->ok && now->user != was->user)
		return true;
	if (planted(SIZE_COUNTS) && now->ok && now->shift != was->shift)
		return true;
	if (planted(OTHER_BITS_COUNT) && now->ok && was->ok && now->path[now->steps - 1].raw != was->path[was->steps - 1].raw)
		return true;
	return permits(p, was, access, user) &&
	       !(permits(p, now, access, user) && same_place(was, now, address));
}

/* The way that a processor may go from an entry above the page that it has cached. */
static bool by_structure(struct processor *p, u64 address, const struct walk *now, enum access access, bool user,
			 struct walk *way, struct entry **from, enum cached *kind)
{
	struct format format = format_of(p);
	for (unsigned i = 0; i < format.levels - 1u && i < now->steps && !planted(NO_STRUCTURES); i++) {
		unsigned level = format.levels - 1 - i;
		struct entry *entry = p->structures.size ?
			slot(&p->structures, key_of(address, shift_at(format, level)), false) : NULL;
		if (!entry || entry->generation != p->structure_generation)
			continue;
		struct step was = entry->walk.path[i];
		if (was.at == now->path[i].at && !((was.raw ^ now->path[i].raw) & ~(A | D)))
			continue;
		*way = entry->walk;
		go_down(p, address, was.raw & ADDRESS, level - 1, way);
		*from = entry;
		*kind = STRUCTURE;
		if (is_stale(p, way, now, address, access, user))
			return true;
	}
	return false;
}

/* PAE: the PDPTEs that were loaded with CR3, which nothing else renews (4.4.1). */
static bool by_register(struct processor *p, u64 address, const struct walk *now, enum access access, bool user,
			struct walk *way, struct entry **from, enum cached *kind)
{
	struct entry *entry = &p->registers[address >> 30 & 3];
	struct step was = entry->walk.path[0];
	if (format_of(p).levels != 3 || !(was.raw & P) || !now->steps || was.raw == now->path[0].raw ||
	    planted(NO_REGISTERS))
		return false;
	*way = (struct walk){ .writable = true, .user = true, .executable = true, .steps = 1, .path = { was } };
	go_down(p, address, was.raw & ADDRESS, 1, way);
	*from = entry;
	*kind = REGISTER;
	return is_stale(p, way, now, address, access, user);
}

static void look_above(struct processor *p, u64 address, const struct walk *now, enum access access, bool user,
		       u64 pc, bool denied)
{
	struct walk way;
	struct use use = { p, address, pc, access, user, denied, TRANSLATION, NULL, &way, now };
	if (by_register(p, address, now, access, user, &way, &use.entry, &use.cached) ||
	    by_structure(p, address, now, access, user, &way, &use.entry, &use.cached))
		count_use(&use);
}

/* What the tables give now may be cached in place of what gives no more. */
static bool covers(const struct walk *now, const struct walk *was)
{
	return now->shift == was->shift && ((now->writable >= was->writable && now->user >= was->user &&
	       now->executable >= was->executable) || planted(LESS_TAKEN_OVER));
}

/* The page is walked again: one that has another size now takes an entry of its own. */
static void refresh(struct processor *p, struct entry *entry, u64 address, const struct walk *now, enum how how)
{
	if (now->shift != entry->walk.shift && !planted(SIZE_STAYS)) {
		drop_address(p, address, how);
		keep(p, address, now);
		return;
	}
	bool global = entry->walk.global;
	ended(entry, how);
	entry->walk = *now;
	entry->walk.global = global;
	entry->seen = report->totals.narrowed;
}

static void remember(struct processor *p, u64 address, enum access access, u64 physical)
{
	struct recent *recent = &p->recent[access][address / PAGE % RECENT];
	*recent = (struct recent){ address / PAGE, p->stamp, physical & -PAGE, frame_of(physical) };
}

/* An access that passed, with a translation that is cached: whether that is still what the tables say. */
static void compare(struct processor *p, struct entry *entry, u64 address, const struct walk *now, enum access access,
		    bool user, u64 pc)
{
	/* It faulted, or the entry was walked again to set D (4.8). */
	bool again = (!permits(p, &entry->walk, access, user) && !planted(PASSED_WITHOUT_WALK)) ||
		     (access == WRITE && !entry->walk.dirty && !planted(DIRTY_IGNORED));
	if (again) {
		if (now->ok)
			refresh(p, entry, address, now, FAULT);
	} else if (is_stale(p, &entry->walk, now, address, access, user)) {
		struct use use = { p, address, pc, access, user, false, TRANSLATION, entry, &entry->walk, now };
		count_use(&use);
		return;
	} else if (covers(now, &entry->walk) && !planted(NOT_TAKEN_OVER)) {
		refresh(p, entry, address, now, RESTORED);
	}
	if (now->ok)
		remember(p, address, access, physical_of(now, address));
}

static void tell_blocks(struct processor *p)
{
	report->totals.blocks += p->blocks - p->told_blocks;
	p->told_blocks = p->blocks;
}

void look(struct processor *p, u64 address, enum access access, u64 pc)
{
	if (!p->paging) {
		remember(p, address, access, address);
		return;
	}
	lock();
	tell_blocks(p);
	p->efer = load(p->state, EFER);
	struct walk now = walk_now(p, address);
	struct entry *entry = cached(p, address);
	/* An implicit access to a descriptor or a task segment is the supervisor's (4.6.1). */
	bool user = p->user && (now.user || (entry && entry->walk.user));
	if (entry) {
		compare(p, entry, address, &now, access, user, pc);
	} else if (now.ok) {
		look_above(p, address, &now, access, user, pc, false);
		keep(p, address, &now);
		remember(p, address, access, physical_of(&now, address));
	} else {
		report->totals.unexplained++;
	}
	unlock();
}

/* A store by a translation that is stale went to the one frame or to the other. */
void stored_anywhere(struct processor *p, u64 address, unsigned size, u64 pc)
{
	lock();
	struct walk now = walk_now(p, address);
	struct entry *entry = cached(p, address);
	u64 places[2] = {
		now.ok ? physical_of(&now, address) : UNKNOWN, entry ? physical_of(&entry->walk, address) : UNKNOWN,
	};
	unlock();
	for (int i = 0; i < 2; i++)
		if (places[i] != UNKNOWN && frame_of(places[i])->watch)
			stored(p, frame_of(places[i]), places[i], size, pc);
}

/* Where the tables lead from an address now; UNKNOWN where nowhere. */
u64 physical_at(struct processor *p, u64 address)
{
	lock();
	struct walk now = walk_now(p, address);
	unlock();
	return now.ok ? physical_of(&now, address) : UNKNOWN;
}

/* ---- page faults (4.7) ---- */

static bool read_linear(struct processor *p, u64 address, unsigned size, u64 *word)
{
	struct walk walk = walk_now(p, address);
	if (!walk.ok || address % PAGE + size > PAGE)
		return false;
	u64 physical = physical_of(&walk, address);
	u8 *page = host_of(frame_of(physical), physical);
	if (!page)
		return false;
	*word = word_at(page, physical % PAGE, size);
	return true;
}

/* The handler begins: the error code is on its stack, and above it the address of what faulted. */
void note_fault(struct processor *p, u64 pc)
{
	u64 address = p->cr2 = load(p->state, CR2), code, from;
	unsigned size = p->efer & EFER_LMA ? 8 : 4;
	u64 stack = gpr(p->state, 4) + (size == 4 ? base(p->state, SS) : 0);
	p->handler = pc;
	if (!p->paging)
		return;
	lock();
	report->totals.faults++;
	struct walk now = walk_now(p, address);
	struct entry *entry = cached(p, address);
	if (read_linear(p, stack, size, &code) && read_linear(p, stack + size, size, &from) && code < 1u << 16 &&
	    !planted(NO_DENIED)) {
		enum access access = code & 16 ? FETCH : code & 2 ? WRITE : READ;
		bool user = code & 4;
		struct use use = { p, address, from, access, user, true, TRANSLATION, entry, NULL, &now };
		if (entry && !(access == WRITE && !entry->walk.dirty) &&
		    is_stale(p, &entry->walk, &now, address, access, user)) {
			use.was = &entry->walk;
			count_use(&use);
		} else if (!entry && !permits(p, &now, access, user)) {
			look_above(p, address, &now, access, user, from, true);
		}
	}
	if (!planted(FAULT_DROPS_NOTHING)) {
		struct format format = format_of(p);
		drop_address(p, address, FAULT);
		for (unsigned level = 1; level < format.levels && p->structures.size && !planted(FAULT_SPARES_STRUCTURES);
		     level++) {
			struct entry *above = slot(&p->structures, key_of(address, shift_at(format, level)), false);
			if (!above)
				continue;
			ended(above, FAULT);
			above->generation = 0;
		}
	}
	unlock();
}

/* ---- control registers ---- */

static void load_registers(struct processor *p, enum how how)
{
	end_stale(p, REGISTERS, how);
	for (unsigned i = 0; i < 4; i++) {
		u64 at = (p->cr3 & 0xffffffe0) + 8 * i, raw;
		struct step step = { at, entry_at(at, 8, &raw) ? raw : 0 };
		p->registers[i] = (struct entry){
			.key = i, .seen = report->totals.narrowed, .walk = { .steps = 1, .path = { step } },
		};
	}
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

/* After MOV to a control register, and where one has changed without (4.10.4.1). */
void note_control(struct processor *p, bool written_cr3)
{
	u64 cr0 = load(p->state, CR0), cr3 = load(p->state, CR3), cr4 = load(p->state, CR4);
	u64 turned0 = cr0 ^ p->cr0, turned4 = cr4 ^ p->cr4;
	bool paging = cr0 & CR0_PG && !(flags_of(p->state) & (HF_SMM | HF_GUEST));
	bool task = cr3 != p->cr3 && !written_cr3;
	lock();
	p->efer = load(p->state, EFER);
	bool smep = turned4 & cr4 & CR4_SMEP && !planted(SMEP_DROPS_NOTHING), spares = planted(SMEP_SPARES_GLOBAL);
	bool all = (p->paging && !paging && !planted(PG_DROPS_NOTHING)) || (turned4 & CR4_PGE && !planted(PGE_DROPS_NOTHING)) ||
		   (turned4 & CR4_PAE && !planted(PAE_DROPS_NOTHING)) || (smep && !spares);
	bool some = (written_cr3 && !planted(CR3_DROPS_NOTHING)) || (task && !planted(TASK_SWITCH_DROPS_NOTHING)) || smep ||
		    planted(ANY_CONTROL_DROPS);
	bool loads = (written_cr3 && !planted(REGISTERS_STAY)) || (task && !planted(TASK_SWITCH_KEEPS_REGISTERS)) ||
		     (paging != p->paging && !planted(PG_KEEPS_REGISTERS)) || turned0 & loading_in_cr0() || turned4 & loading_in_cr4();
	if (all || some)
		drop_all(p, all || (written_cr3 && planted(CR3_DROPS_GLOBAL)), written_cr3 || task ? MOV_CR3 : CONTROL);
	report->totals.mov_cr3 += written_cr3;
	report->totals.control += all;
	report->totals.unfollowed |= !!(cr4 & CR4_PCIDE);
	report->totals.paged += paging && !p->paged;
	p->paged |= paging;
	p->cr0 = cr0;
	p->cr3 = cr3;
	p->cr4 = cr4;
	p->paging = paging;
	if (paging && loads && format_of(p).levels == 3)
		load_registers(p, written_cr3 || task ? MOV_CR3 : CONTROL);
	outdate(p);
	unlock();
}

/* ---- the self-test ---- */

/* Whether a walk of the page that is executed is stale where its frame is another, and is not as it stands. */
bool tells_stale(struct processor *p, u64 pc)
{
	lock();
	struct walk now = walk_now(p, pc), was = now;
	was.physical ^= 1ull << 40;
	bool found = now.ok && is_stale(p, &was, &now, pc, FETCH, p->user) && !is_stale(p, &now, &now, pc, FETCH, p->user);
	unlock();
	return found;
}
