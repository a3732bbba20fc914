/*
 * What a processor may have cached of the guest's tables, by the rules of the manual, and whether it is still so.
 *
 * What no manual says alone, and each says otherwise, is in the architecture's folder: arch.h, and rules.c, which has
 * the functions of the second half of this file.
 */
#ifndef SHADOW_H
#define SHADOW_H
#include "qemu.h"
#include "arch.h"
#include "report.h"

#define PAGE		4096ull
#define MOST_PROCESSORS	64
#define RECENT		1024	/* pages of each kind of access that need no look */
#define MOST_STALE	256	/* stale entries of a processor whose end is told */
#define MOST_CACHED	(1 << 16)	/* entries of a processor's cache, of which the oldest are forgotten */

/* A page frame.  `copy` is what was in it when the guest's changes of it were last seen. */
struct frame {
	u8 *host;
	u8 *copy;
	u32 quiet;	/* stores since a walk came by */
	u8 watch;	/* enum watch */
	u8 width;	/* bytes of an entry */
	bool absent;	/* there is no RAM */
};
enum watch { UNWATCHED, WALKED, CHANGED };

struct format { unsigned levels, width, bits; };	/* of tables: bytes of an entry, bits of an index */

struct step { u64 at, raw; };

struct walk {
	bool ok, readable, writable, user, executable, global, dirty;
	u8 shift, steps;	/* of the page, log2 of bytes */
	u64 physical;		/* of the page */
	struct step path[MOST_STEPS];
};
#define ALL_RIGHTS .readable = true, .writable = true, .user = true, .executable = true

/* A translation, or a way down to a table (`walk.ok` is false); valid while its generation is the processor's. */
struct entry {
	u64 key, generation, seen;	/* number of changes there had been when it was cached */
	u64 born;			/* number of entries that the processor had cached before */
	u32 space;			/* the identifier of its address space, or EVERY_SPACE */
	u32 cause;			/* 1 + index of the cause that it is a stale use of */
	bool untold;			/* its end is not going to be told */
	struct walk walk;
};
enum { SPACES = 1 << 16, EVERY_SPACE = SPACES };	/* ASIDs; of what is global */

struct cache { struct entry *entries; size_t size, used; };

/* An entry with a cause: its key and space, or the number of a register. */
struct stale { enum cached cached; u32 space; u64 key; };

/* Pages that were looked at since anything changed: no store, no flush, no control register. */
struct recent { u64 page, stamp, physical; struct frame *frame; };

/* An instruction that flushes. */
struct special { enum what what; unsigned length; u8 bytes[16]; u64 pc; };

/* The last narrowing of an entry, by its address; or what was written last to a processor's root. */
struct change { u64 at, before, after, pc, number, thread, blocks; unsigned author; };

/* How an access is translated: not at all, or as the kernel's or the user's. */
enum mode { BARE, KERNEL, USER, MODES };

struct processor {
	/* What every block and access reads. */
	const u8 *state;
	u64 stamp;	/* grows when `recent` is out of date: by others too */
	struct recent *recent[3];	/* of each kind of access, in the mode that it is in */
	u64 blocks;
	u64 offset;	/* of the addresses that a block has now to those it was translated at */
	bool pending;	/* `special` was executed, and is to be taken over */
	struct control c;

	enum mode modes[3];	/* of each kind of access */
	bool checked, paged;	/* paged: paging was on once */
	unsigned number;
	u64 told_blocks;
	struct special special;
	struct recent pages[MODES][3][RECENT];
	u64 generation, global_generation, structure_generation;
	u64 *spaces;	/* flushes of one address space alone, by its identifier */
	u64 born, sizes;	/* shifts of pages that were cached, a bit each */
	struct cache translations, structures;
	struct entry registers[4];	/* PDPTEs of PAE as they were loaded: walks of one step */
	struct change root;
	u64 back;	/* how many changes there had been when it was last in user mode */
	struct stale stale[MOST_STALE];
	size_t stales;
};

extern struct processor *processors[MOST_PROCESSORS];
extern struct report *report;
extern u64 deadline, changes_seen;

/* A rule that is broken on purpose, in the build for tests alone. */
#ifdef PLANTS
enum plant {
	NO_PLANT, NO_FRAME, NO_WRITE, NO_USER, NO_EXECUTE, DIRTY_IGNORED, NO_STRUCTURES, NO_SECOND_PAGE, NO_FETCH, NO_DENIED,
	WIDENING_COUNTS, SIZE_COUNTS, OTHER_BITS_COUNT, NO_LATE, NO_DEADLINE, ALWAYS_LATE, ROOT_COUNTS, SIZE_STAYS, OLD_PLACE,
	NO_SECOND_FETCH, NOT_TAKEN_OVER, PASSED_WITHOUT_WALK, STRUCTURES_WITH_RIGHTS, LESS_TAKEN_OVER, QUIET_FOLLOWED,
	ARCH_PLANTS
};
extern int plant;
#define planted(what) (plant == (what))
#else
#define planted(what) 0
#endif

void refuse(const char *sentence);
void lock(void);
void unlock(void);

/* The rest is called with the lock held, but for what says otherwise. */
struct frame *frame_of(u64 physical);	/* without the lock */
bool entry_at(u64 physical, unsigned width, u64 *raw);
bool read_linear(const struct processor *p, u64 address, unsigned size, u64 *word);
u64 key_of(u64 address, unsigned shift);
unsigned shift_at(struct format format, unsigned level);
void go_down(const struct processor *p, u64 address, u64 table, int level, struct walk *walk);
struct walk walk_now(const struct processor *p, u64 address);
struct entry *cached(struct processor *p, u64 address);
struct entry *above(struct processor *p, u64 address, unsigned level);	/* an entry above pages, NULL if there is none */
bool is_stale(const struct processor *p, const struct walk *was, const struct walk *now, u64 address, enum access access,
	      bool user);
void drop(struct entry *entry, enum how how);
enum { TRANSLATIONS = 1, GLOBALS = 2, STRUCTURES = 4, REGISTERS = 8 };
enum { ANY_SPACE = -1 };
void drop_kinds(struct processor *p, unsigned kinds, int space, enum how how);
void drop_page_of(struct processor *p, u64 address, int space, enum how how);
void end_stale(struct processor *p, unsigned kinds, int space, enum how how);
void outdate(struct processor *p);
void set_modes(struct processor *p, enum mode data, enum mode fetch);
void denied(struct processor *p, u64 address, enum access access, bool user, u64 pc);
void note_user(struct processor *p);	/* this and what follows takes the lock */
void look(struct processor *p, u64 address, enum access access, u64 pc);
void stored(struct processor *p, struct frame *frame, u64 physical, unsigned size, u64 pc);
void stored_anywhere(struct processor *p, u64 address, unsigned size, u64 pc);
u64 physical_at(struct processor *p, u64 address);
bool tells_stale(struct processor *p, u64 pc);

/* ---- what the architecture says: rules.c ---- */

/* What an entry is.  Rights, and of a leaf the page, go into the walk. */
enum kind { NONE, POINTER, LEAF };
enum kind take(const struct processor *p, struct format format, unsigned level, u64 raw, u64 address, struct walk *walk);
u64 table_of(struct format format, u64 raw);	/* where a pointer leads */
struct format format_of(const struct processor *p);
u64 root_of(const struct processor *p);
u32 space_of(const struct processor *p);
bool is_cached_above(struct format format, unsigned level);	/* whether an entry there is kept like others above pages */
bool permits(const struct processor *p, const struct walk *walk, enum access access, bool user);
bool as_user(const struct processor *p, enum access access, const struct walk *now, const struct entry *entry);
bool narrower(u64 before, u64 after);
enum lost what_is_lost(struct step was, struct step now);
u64 thread_of(const struct processor *p);
bool by_register(struct processor *p, u64 address, const struct walk *now, enum access access, bool user, struct walk *way,
		 struct entry **from, enum cached *kind);
void set_state(struct cause *cause, const struct processor *p);	/* what report.h has of ARCH_STATE */
void before_look(struct processor *p);	/* takes over what may have changed without an instruction that was seen */

/* instructions.c: which are looked at, and what they have done once they were executed */
enum what what_is(const u8 *bytes);
void note_special(struct processor *p, const struct special *special);	/* before it is executed */
void settle(struct processor *p);	/* once the next block or instruction begins */
bool is_checked_at(const struct processor *p);	/* whether registers can be checked in this state */

/* The state of a processor whose block begins. */
void start_state(struct processor *p);
void note_state(struct processor *p, u64 pc);	/* block.h says when */
#endif
