/* What a processor may have cached of the guest's tables, by the rules of the manual, and whether it is still so. */
#ifndef SHADOW_H
#define SHADOW_H
#include "qemu.h"
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

struct step { u64 at, raw; };

struct walk {
	bool ok, writable, user, executable, global, dirty;
	u8 shift, steps;	/* of the page, log2 of bytes */
	u64 physical;		/* of the page */
	struct step path[MOST_STEPS];
};

/* A translation, or a way down to a table (`walk.ok` is false); valid while its generation is the processor's. */
struct entry {
	u64 key, generation, seen;	/* number of narrowings there had been when it was cached */
	u64 born;			/* number of entries that the processor had cached before */
	u32 cause;			/* 1 + index of the cause that it is a stale use of */
	bool untold;			/* its end is not going to be told */
	struct walk walk;
};

struct cache { struct entry *entries; size_t size, used; };

/* An entry with a cause: its key, or the number of a register. */
struct stale { enum cached cached; u64 key; };

/* Pages that were looked at since anything changed: no store, no flush, no control register. */
struct recent { u64 page, stamp, physical; struct frame *frame; };

/* An instruction that flushes. */
enum what { NOTHING, MOVES_CR2, MOVES_CR3, MOVES_CONTROL, INVALIDATES_PAGE, INVALIDATES_PCID };
struct special { enum what what; unsigned length; u8 bytes[16]; u64 pc; };

struct processor {
	/* What every block and access reads. */
	const u8 *state;
	u64 stamp;	/* grows when `recent` is out of date: by others too */
	struct recent (*recent)[RECENT];	/* those of the mode that it is in */
	u64 blocks, cr2, cr3, handler;	/* where page faults are handled */
	u64 offset;	/* of the addresses that a block has now to those it was translated at */
	u32 flags;
	bool pending;	/* `special` was executed, and is to be taken over */

	bool paging, user, checked, paged;	/* paged: paging was on once */
	unsigned number;
	u64 told_blocks;
	u64 cr0, cr4, efer;
	struct special special;
	u64 operand;	/* of INVLPG */
	struct recent kernel[3][RECENT], users[3][RECENT];
	u64 generation, global_generation, structure_generation;
	u64 born, sizes;	/* shifts of pages that were cached, a bit each */
	struct cache translations, structures;
	struct entry registers[4];	/* PDPTEs of PAE as they were loaded: walks of one step */
	struct stale stale[MOST_STALE];
	size_t stales;
};

extern struct processor *processors[MOST_PROCESSORS];
extern struct report *report;
extern u64 deadline;

/* A rule that is broken on purpose, in the build for tests alone. */
#ifdef PLANTS
enum plant {
	NO_PLANT, INVLPG_DROPS_NOTHING, INVLPG_DROPS_ALL, INVLPG_SPARES_GLOBAL, INVLPG_SPARES_STRUCTURES, INVLPG_SPARES_LARGE,
	INVLPG_WITHOUT_SEGMENT, CR3_DROPS_NOTHING, CR3_DROPS_GLOBAL, CR3_SPARES_STRUCTURES, PGE_DROPS_NOTHING, PG_DROPS_NOTHING,
	SMEP_DROPS_NOTHING, TASK_SWITCH_DROPS_NOTHING, FAULT_DROPS_NOTHING, FAULT_SPARES_STRUCTURES, GLOBAL_WITHOUT_PGE,
	NO_FRAME, NO_WRITE, NO_USER, NO_EXECUTE, WP_IGNORED, DIRTY_IGNORED, NO_STRUCTURES, NO_REGISTERS, REGISTERS_STAY,
	NO_SECOND_PAGE, NO_FETCH, NO_DENIED, WIDENING_COUNTS, SIZE_COUNTS, OTHER_BITS_COUNT, NO_LATE, NO_DEADLINE, ALWAYS_LATE,
	ROOT_COUNTS, SIZE_STAYS, OLD_PLACE, MOV_CR2_FAULTS, WP_LOADS_REGISTERS, SMEP_KEEPS_REGISTERS, SMEP_SPARES_GLOBAL, NO_SECOND_FETCH,
	THREADS_WITHOUT_FS, ROOTS_WITHOUT_PAIRS, PAE_DROPS_NOTHING, PSE36_IGNORED, NOT_TAKEN_OVER, PASSED_WITHOUT_WALK,
	CD_KEEPS_REGISTERS, NW_KEEPS_REGISTERS, PG_KEEPS_REGISTERS, PAE_KEEPS_REGISTERS, PGE_KEEPS_REGISTERS, PSE_KEEPS_REGISTERS,
	TASK_SWITCH_KEEPS_REGISTERS, SMEP_IGNORED, PDPTES_ARE_CACHED, STRUCTURES_WITH_RIGHTS, LESS_TAKEN_OVER, SAME_FAULT_IGNORED,
	ANY_CONTROL_DROPS, QUIET_FOLLOWED,
};
extern int plant;
#define planted(what) (plant == (what))
#else
#define planted(what) 0
#endif

struct frame *frame_of(u64 physical);
void look(struct processor *p, u64 address, enum access access, u64 pc);
void stored(struct processor *p, struct frame *frame, u64 physical, unsigned size, u64 pc);
void stored_anywhere(struct processor *p, u64 address, unsigned size, u64 pc);
u64 physical_at(struct processor *p, u64 address);
void drop_page(struct processor *p, u64 address);
void drop_all(struct processor *p, bool global, enum how how);
void note_control(struct processor *p, bool written_cr3);
void note_fault(struct processor *p, u64 pc);
void note_user(struct processor *p);
bool tells_stale(struct processor *p, u64 pc);
void lock(void);
void unlock(void);
#endif
