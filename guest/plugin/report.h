/*
 * What the plugin tells, in memory that another process shares: it can be read at any time, also after QEMU was killed.
 *
 * Every field is a 64-bit number.  The names of the fields stand in the memory too, in the order of the structures, so
 * that they are declared once, here and in arch.h.
 */
#ifndef REPORT_H
#define REPORT_H
#include <stdint.h>
#include "arch.h"

#define MAGIC		0x3173656873756c66	/* "flushes1" */
#define SENTENCE	512
#define NAMES		4096
#define MOST_CAUSES	1024
#define MOST_STEPS	5	/* entries of a walk */

enum state { STARTED, WATCHING, REFUSED };

/* Totals.  `interface` is the version of QEMU's plugin interface, `major` to `micro` its own.  `processors` executed something, `paged` ones turned paging on.  `uses` counts stale uses of either kind, `late` those of them that no later flush excuses. */
#define TOTALS(X) \
	X(state) X(interface) X(major) X(minor) X(micro) X(processors) X(paged) X(blocks) X(stores) X(narrowed) \
	ARCH_TOTALS(X) X(faults) X(entries) X(uses) X(late) X(denied) X(unexplained) \
	X(causes) X(lost_causes) X(unfollowed) X(forgotten)

enum lost { LOST_ABSENT, LOST_FRAME, LOST_READ, LOST_WRITE, LOST_USER, LOST_EXECUTE, LOST_ROOT, LOST_OTHER };
enum access { READ, WRITE, FETCH };
enum cached { TRANSLATION, STRUCTURE, REGISTER };	/* a leaf, an entry above it, a PDPTE register of PAE */
enum how { ARCH_HOWS, FAULT, RESTORED, UNTOLD };

#define UNKNOWN		(~0ull)		/* the author of a change that no store was seen of */

/*
 * Uses that are alike.  Up to and with `denied_kind` the fields tell one cause from another; then counts, of which those
 * behind `entries` are in the order of `enum how`; the rest is one use, the first, or the first late one.
 */
#define KEY(X) \
	X(author_pc) X(level) X(lost) X(access) X(user) X(same_processor) X(cached) X(denied_kind)
#define COUNTS(X) \
	X(uses) X(late) X(entries) ARCH_BY(X) X(by_fault) X(by_restoring) X(by_unknown)
#define EXAMPLE(X) \
	X(author) X(processor) X(address) X(pc) ARCH_STATE(X) X(physical) \
	X(entry) X(before) X(after) \
	X(old_steps) X(old_at0) X(old_at1) X(old_at2) X(old_at3) X(old_at4) \
	X(old_raw0) X(old_raw1) X(old_raw2) X(old_raw3) X(old_raw4) \
	X(new_steps) X(new_at0) X(new_at1) X(new_at2) X(new_at3) X(new_at4) \
	X(new_raw0) X(new_raw1) X(new_raw2) X(new_raw3) X(new_raw4)

#define FIELD(name) uint64_t name;
struct totals { TOTALS(FIELD) };
struct cause { KEY(FIELD) COUNTS(FIELD) EXAMPLE(FIELD) };

struct report {
	uint64_t magic;
	char sentence[SENTENCE];	/* why the plugin refuses, or gave up */
	char names[NAMES];		/* of the totals, then after a semicolon of a cause */
	struct totals totals;
	struct cause causes[MOST_CAUSES];
};

#define NAME(name) #name " "
#define ALL_NAMES TOTALS(NAME) ";" KEY(NAME) COUNTS(NAME) EXAMPLE(NAME)
_Static_assert(sizeof ALL_NAMES <= NAMES, "the names of the fields have no room");
#endif
