/* See shadow.h and README.md. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "shadow.h"

#define QUIET		4096	/* stores into a frame that no walk comes by, after which it is a table no more */
#define MOST_LOGGED	(1 << 16)
#define MOST_THREADS	(1 << 12)

struct processor *processors[MOST_PROCESSORS];
struct report *report;
u64 deadline, changes_seen;
#ifdef PLANTS
int plant;
#endif

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
void lock(void) { pthread_mutex_lock(&mutex); }
void unlock(void) { pthread_mutex_unlock(&mutex); }

void refuse(const char *sentence)
{
	snprintf(report->sentence, SENTENCE, "%s", sentence);
	report->totals.state = REFUSED;
}

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
		refuse("there is no memory left for what is cached");
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
bool entry_at(u64 physical, unsigned width, u64 *raw)
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

/* ---- walks ---- */

unsigned shift_at(struct format format, unsigned level) { return 12 + format.bits * level; }

/* Goes down from a table at `level`, with what the steps above it left of the rights. */
void go_down(const struct processor *p, u64 address, u64 table, int level, struct walk *walk)
{
	struct format format = format_of(p);
	for (; level >= 0; level--) {
		u64 index = address >> shift_at(format, level) & ((1u << format.bits) - 1), raw;
		u64 where = table + index * format.width;
		if (!entry_at(where, format.width, &raw))
			return;
		walk->path[walk->steps++] = (struct step){ where, raw };
		switch (take(p, format, level, raw, address, walk)) {
		case NONE:
			return;
		case LEAF:
			walk->ok = true;
			return;
		case POINTER:
			table = table_of(format, raw);
		}
	}
}

struct walk walk_now(const struct processor *p, u64 address)
{
	struct walk walk = { ALL_RIGHTS };
	go_down(p, address, root_of(p), format_of(p).levels - 1, &walk);
	return walk;
}

static u64 physical_of(const struct walk *walk, u64 address)
{
	return walk->physical | (address & ((1ull << walk->shift) - 1));
}

/* ---- what is cached ---- */

u64 key_of(u64 address, unsigned shift) { return (address >> shift << shift) | shift; }

/* Each flush of what an entry belongs to gives it another. */
static u64 generation_of(const struct processor *p, const struct entry *entry, bool structure)
{
	bool global = entry->space == EVERY_SPACE;
	u64 own = global ? 0 : p->spaces[entry->space];
	return own + (structure ? p->structure_generation : global ? p->global_generation : p->generation);
}

static bool valid(const struct processor *p, const struct entry *entry, bool structure)
{
	return entry && entry->generation && entry->generation == generation_of(p, entry, structure);
}

static struct entry *slot(struct cache *cache, u64 key, u32 space, bool add)
{
	for (size_t i = hash(key); cache->size; i++) {
		struct entry *entry = &cache->entries[i & (cache->size - 1)];
		if (entry->key == key && entry->space == space)
			return entry;
		if (!entry->key) {
			if (!add)
				return NULL;
			cache->used++;
			entry->key = key;
			entry->space = space;
			return entry;
		}
	}
	return NULL;
}

/* Makes room, and forgets what was dropped, and the oldest where there is too much. */
static void renew(struct processor *p, struct cache *cache, bool structures)
{
	struct cache old = *cache;
	size_t live = 0;
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < old.size; i++) {
			struct entry *entry = &old.entries[i];
			if (!valid(p, entry, structures))
				continue;
			if (!pass)
				live++;
			else if (live > MOST_CACHED && entry->born + MOST_CACHED < p->born)
				report->totals.forgotten++;
			else
				*slot(cache, entry->key, entry->space, true) = *entry;
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

static struct entry *added(struct processor *p, struct cache *cache, u64 key, bool global)
{
	if (cache->used * 2 >= cache->size)
		renew(p, cache, cache == &p->structures);
	struct entry *entry = slot(cache, key, global ? EVERY_SPACE : space_of(p), true);
	entry->seen = changes_seen;
	entry->born = p->born++;
	entry->cause = 0;
	entry->untold = false;
	return entry;
}

/* An entry for what is now the processor's address space, or for every one. */
static struct entry *found(struct processor *p, struct cache *cache, u64 key, bool structure)
{
	struct entry *entry = slot(cache, key, space_of(p), false);
	if (!valid(p, entry, structure))
		entry = slot(cache, key, EVERY_SPACE, false);
	return valid(p, entry, structure) ? entry : NULL;
}

struct entry *cached(struct processor *p, u64 address)
{
	for (u64 sizes = p->sizes; sizes; sizes &= sizes - 1) {
		struct entry *entry = found(p, &p->translations, key_of(address, __builtin_ctzll(sizes)), false);
		if (entry)
			return entry;
	}
	return NULL;
}

struct entry *above(struct processor *p, u64 address, unsigned level)
{
	return found(p, &p->structures, key_of(address, shift_at(format_of(p), level)), true);
}

static void ended(struct entry *entry, enum how how)
{
	if (entry->cause && !entry->untold)
		(&report->causes[entry->cause - 1].entries)[1 + how]++;
	entry->cause = 0;
	entry->untold = false;
}

static struct entry *entry_of(struct processor *p, struct stale stale)
{
	if (stale.cached == REGISTER)
		return &p->registers[stale.key];
	return slot(stale.cached == STRUCTURE ? &p->structures : &p->translations, stale.key, stale.space, false);
}

static unsigned kind_of(struct stale stale, const struct entry *entry)
{
	if (stale.cached == TRANSLATION)
		return entry->walk.global ? GLOBALS : TRANSLATIONS;
	return stale.cached == STRUCTURE ? STRUCTURES : REGISTERS;
}

/*
 * Tells the end of stale entries of some kinds, of one address space (where nothing is global) or of any, and keeps the
 * list of the others.
 */
void end_stale(struct processor *p, unsigned kinds, int space, enum how how)
{
	size_t left = 0;
	for (size_t i = 0; i < p->stales; i++) {
		struct entry *entry = entry_of(p, p->stale[i]);
		if (!entry || !entry->cause)
			continue;
		bool ends = kind_of(p->stale[i], entry) & kinds && (space == ANY_SPACE || entry->space == (u32)space);
		if (ends)
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
		end_stale(p, 0, ANY_SPACE, UNTOLD);
	if (p->stales < MOST_STALE) {
		p->stale[p->stales++] = (struct stale){ cached, entry->space, entry->key };
		return;
	}
	report->causes[entry->cause - 1].by_unknown++;
	entry->untold = true;
}

/* All entries above a page that can be cached. */
static void keep_structures(struct processor *p, u64 address, const struct walk *walk)
{
	struct format format = format_of(p);
	struct walk way = { ALL_RIGHTS };
	for (unsigned i = 0; i + 1 < walk->steps; i++) {
		unsigned level = format.levels - 1 - i;
		way.path[way.steps++] = walk->path[i];
		if (!planted(STRUCTURES_WITH_RIGHTS))
			take(p, format, level, walk->path[i].raw, address, &way);
		if (!is_cached_above(format, level) || above(p, address, level))
			continue;
		struct entry *entry = added(p, &p->structures, key_of(address, shift_at(format, level)), way.global);
		entry->walk = way;
		entry->generation = generation_of(p, entry, true);
	}
}

static void keep(struct processor *p, u64 address, const struct walk *walk)
{
	struct entry *entry = added(p, &p->translations, key_of(address, walk->shift), walk->global);
	entry->walk = *walk;
	entry->generation = generation_of(p, entry, false);
	p->sizes |= 1ull << walk->shift;
	keep_structures(p, address, walk);
}

void outdate(struct processor *p) { __atomic_add_fetch(&p->stamp, 1, __ATOMIC_RELAXED); }

static void outdate_all(void)
{
	for (unsigned i = 0; i < MOST_PROCESSORS; i++)
		if (processors[i])
			outdate(processors[i]);
}

void drop(struct entry *entry, enum how how)
{
	ended(entry, how);
	entry->generation = 0;
}

/* What is cached of a page, of any size: of one address space where it is not global, or all. */
void drop_page_of(struct processor *p, u64 address, int space, enum how how)
{
	for (u64 sizes = p->sizes; sizes; sizes &= sizes - 1) {
		u64 key = key_of(address, __builtin_ctzll(sizes));
		for (size_t i = hash(key);; i++) {
			struct entry *entry = &p->translations.entries[i & (p->translations.size - 1)];
			if (!entry->key)
				break;
			if (entry->key == key && (space == ANY_SPACE || entry->space == (u32)space))
				drop(entry, how);
		}
	}
	outdate(p);
}

/* All that is cached of some kinds: of one address space where it is not global, or all. */
void drop_kinds(struct processor *p, unsigned kinds, int space, enum how how)
{
	end_stale(p, kinds, space, how);
	if (space != ANY_SPACE) {
		p->spaces[space]++;
	} else {
		p->generation += !!(kinds & TRANSLATIONS);
		p->global_generation += !!(kinds & GLOBALS);
		p->structure_generation += !!(kinds & STRUCTURES);
	}
	outdate(p);
}

/* ---- changes ---- */

static struct change changes[MOST_LOGGED];	/* by the address of the entry */

/* Threads that went back to user mode, and how many changes there had been then. */
static struct { u64 thread, number; } back[MOST_THREADS];

static struct change *change_of(u64 at) { return &changes[hash(at) % MOST_LOGGED]; }

void note_user(struct processor *p)
{
	u64 thread = thread_of(p), number = changes_seen;
	unsigned i = hash(thread) % MOST_THREADS;
	p->back = number;
	if (back[i].thread == thread && back[i].number == number)
		return;
	lock();
	back[i].thread = thread;
	back[i].number = number;
	unlock();
}

static void log_change(struct processor *p, u64 at, u64 before, u64 after, u64 pc)
{
	report->totals.narrowed++;
	*change_of(at) = (struct change){ at, before, after, pc, ++changes_seen, thread_of(p), p->blocks, p->number };
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

/* Whether what is cached is of another root than the processor's, which was written after it was cached. */
static bool of_another_root(const struct processor *p, const struct entry *entry, const struct walk *was)
{
	return entry->space != EVERY_SPACE && p->root.number > entry->seen && was->path[0].at / PAGE != root_of(p) / PAGE;
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
	const struct processor *author = processors[change->author];
	if (change == &author->root && author->back >= change->number)	/* whichever thread it is */
		return true;
	unsigned i = hash(change->thread) % MOST_THREADS;
	if (back[i].thread == change->thread && back[i].number >= change->number)
		return true;
	return author->blocks - change->blocks > deadline && !planted(NO_DEADLINE);
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
	set_state(cause, p);
	cause->physical = physical_of(use->was, use->address);
	cause->entry = change == &p->root ? UNKNOWN : was.at;
	cause->before = change == &p->root ? change->before : was.raw;
	cause->after = change == &p->root ? change->after : now.raw;
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
	enum lost taken = what_is_lost(was, now);
	if (!change && of_another_root(p, use->entry, use->was)) {
		change = &p->root;
		taken = LOST_ROOT;
	}
	u64 key[KEYS] = {
		change ? change->pc : UNKNOWN, format.levels - 1 - lost, taken, use->access, use->user,
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
bool is_stale(const struct processor *p, const struct walk *was, const struct walk *now, u64 address, enum access access,
	      bool user)
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
		struct entry *entry = above(p, address, level);
		if (!entry)
			continue;
		struct step was = entry->walk.path[i];
		if (was.at == now->path[i].at && !((was.raw ^ now->path[i].raw) & ~(A | D)))
			continue;
		*way = entry->walk;
		go_down(p, address, table_of(format, was.raw), level - 1, way);
		*from = entry;
		*kind = STRUCTURE;
		if (is_stale(p, way, now, address, access, user))
			return true;
	}
	return false;
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
	       now->readable >= was->readable && now->executable >= was->executable) || planted(LESS_TAKEN_OVER));
}

/* The page is walked again: one that has another size now takes an entry of its own. */
static void refresh(struct processor *p, struct entry *entry, u64 address, const struct walk *now, enum how how)
{
	if (now->shift != entry->walk.shift && !planted(SIZE_STAYS)) {
		for (; entry; entry = cached(p, address))
			drop(entry, how);
		outdate(p);
		keep(p, address, now);
		return;
	}
	bool global = entry->walk.global;
	ended(entry, how);
	entry->walk = *now;
	entry->walk.global = global;
	entry->seen = changes_seen;
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
	/* It faulted, or the entry was walked again to set D. */
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
	if (p->modes[access] == BARE) {
		remember(p, address, access, address);
		return;
	}
	lock();
	tell_blocks(p);
	before_look(p);
	struct walk now = walk_now(p, address);
	struct entry *entry = cached(p, address);
	bool user = as_user(p, access, &now, entry);
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

/* ---- page faults ---- */

bool read_linear(const struct processor *p, u64 address, unsigned size, u64 *word)
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

/* A page fault: whether what is cached would have let the access pass. */
void denied(struct processor *p, u64 address, enum access access, bool user, u64 pc)
{
	struct walk now = walk_now(p, address);
	struct entry *entry = cached(p, address);
	struct use use = { p, address, pc, access, user, true, TRANSLATION, entry, NULL, &now };
	if (planted(NO_DENIED))
		return;
	if (entry && !(access == WRITE && !entry->walk.dirty) &&
	    is_stale(p, &entry->walk, &now, address, access, user)) {
		use.was = &entry->walk;
		count_use(&use);
	} else if (!entry && !permits(p, &now, access, user)) {
		look_above(p, address, &now, access, user, pc, true);
	}
}

/* ---- modes ---- */

void set_modes(struct processor *p, enum mode data, enum mode fetch)
{
	p->modes[READ] = p->modes[WRITE] = data;
	p->modes[FETCH] = fetch;
	for (int access = 0; access < 3; access++)
		p->recent[access] = p->pages[p->modes[access]][access];
}

/* ---- the self-test ---- */

/* Whether a walk of the page that is executed is stale where its frame is another, and is not as it stands. */
bool tells_stale(struct processor *p, u64 pc)
{
	bool user = p->modes[FETCH] == USER;
	lock();
	struct walk now = walk_now(p, pc), was = now;
	was.physical ^= 1ull << 40;
	bool found = now.ok && is_stale(p, &was, &now, pc, FETCH, user) && !is_stale(p, &now, &now, pc, FETCH, user);
	unlock();
	return found;
}
