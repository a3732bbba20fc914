/* The probes, and the tested state that they run under: once for long mode and once for the 32-bit modes. */
#include "instructions.h"

#pragma GCC visibility push(hidden)

#include "console.h"
#include "descriptors.h"
#include "probes.h"

#include <stdbool.h>

/* access64.S, access32.S */
extern const char supervisor_accesses[], user_accesses[];
uintptr_t attempt_supervisor(uintptr_t address, uintptr_t value, uintptr_t routine, uintptr_t flags);
uintptr_t attempt_user(uintptr_t address, uintptr_t value, uintptr_t routine, uintptr_t flags);
#ifdef __x86_64__
uintptr_t attempt_on_shadow_stack(uintptr_t address, uintptr_t value, uintptr_t routine, uintptr_t flags);
extern const uint64_t exception_shadow_token[], shadow_token[];
#endif

/* What lies at supervisor_accesses and user_accesses, ROUTINE_BYTES each; CALL and what follows it only at the former. */
enum routine {
	READ_1, READ_4, READ_8, WRITE_1, WRITE_4, WRITE_8, JUMP, PUSH, LOAD_SEGMENT,
	SHADOW_READ, SHADOW_WRITE, USER_SHADOW_WRITE,
#ifdef __x86_64__
	RETURN, CALL,
#endif
	LOAD_CR3, CHANGE_PGE, LOAD_LDT, CHANGE_CR0, CHANGE_CR3, CHANGE_CR4,
};

#ifdef __x86_64__
#define EFER_BETWEEN	(EFER_OWN | EFER_LMA)	/* while the entry tables are loaded */
#define NARROW		false
#else
#define EFER_BETWEEN	EFER_LEGACY
#define NARROW		(!(batch.first.cr4 & CR4_PAE))
#endif

/* Where C finds a physical address, while a batch runs. */
static inline void *physical(uint64_t address)
{
#ifdef __x86_64__
	return (void *)(batch.window + address);
#else
	return (void *)(uintptr_t)address;	/* in the segment of the window */
#endif
}

/* ---- words: 4 bytes in 32-bit paging, else 8; `ram` is where C finds the physical address 0 ---- */

typedef uint32_t __attribute__((may_alias)) narrow_word;
typedef uint64_t __attribute__((may_alias)) wide_word;

static inline void store(char *ram, uint64_t address, uint64_t word, bool narrow)
{
	if (narrow)
		*(narrow_word *)(ram + address) = word;
	else
		*(wide_word *)(ram + address) = word;
}

static inline uint64_t load(char *ram, uint64_t address, bool narrow)
{
	if (narrow)
		return *(narrow_word *)(ram + address);
	return *(wide_word *)(ram + address);
}

/* ---- the control state ---- */

static struct control loaded;	/* what the registers hold */
#define UNKNOWN		~0ull	/* no value of a register */

/* PKRU can only be written while CR4 has PKE. */
static inline void load_keys(const struct control *next, uintptr_t cr4)
{
	if (cr4 & CR4_PKE && loaded.pkru != next->pkru)
		asm volatile("wrpkru" :: "a"((uint32_t)next->pkru), "c"(0), "d"(0));
	if (cr4 & CR4_PKS && loaded.pkrs != next->pkrs)
		write_msr(MSR_PKRS, next->pkrs);
}

/*
 * Loads what differs, so that one bit changes by one instruction.  Rights of keys that are on their way out are loaded
 * too: they must play no part then.  What is loaded is noted at the end: between the registers there are states in
 * which Bochs lets the supervisor store nothing, as PKE and WP of the next with PKRU of the last one.
 */
static __attribute__((noinline)) void load_control(const struct control *next)
{
	if (loaded.cr0 != next->cr0)
		write_cr0(next->cr0);
	load_keys(next, loaded.cr4);
	if (loaded.cr4 != next->cr4)
		write_cr4(next->cr4);
	load_keys(next, next->cr4 & ~loaded.cr4);
	if (loaded.efer != next->efer)
		write_msr(MSR_EFER, next->efer);
	uint64_t had = loaded.cr4 | next->cr4;
	if (had & CR4_PKE)
		loaded.pkru = next->pkru;
	if (had & CR4_PKS)
		loaded.pkrs = next->pkrs;
	loaded.cr0 = next->cr0;
	loaded.cr4 = next->cr4;
	loaded.efer = next->efer;
}

/* ---- shadow stacks ---- */

typedef uintptr_t attempt(uintptr_t address, uintptr_t value, uintptr_t routine, uintptr_t flags);

/* The user's shadow stack begins at the address. */
static inline attempt *on_user_shadow_stack(const struct job *job)
{
	write_msr(MSR_PL3_SSP, job->address);
	return attempt_user;
}

#ifdef __x86_64__
static uint64_t shadow_stacks_of_ist[8];

/* The user's are enabled throughout: nothing of CPL 3 calls or returns.  The supervisor's are for its own probes. */
static void lay_shadow_stacks(void)
{
	if (!((batch.first.cr4 | batch.then.cr4) & CR4_CET))
		return;
	shadow_stacks_of_ist[EXCEPTION_STACK] = (uintptr_t)exception_shadow_token;
	write_msr(MSR_SSP_TABLE, (uintptr_t)shadow_stacks_of_ist);
	write_msr(MSR_PL0_SSP, (uintptr_t)shadow_token);
	write_msr(MSR_U_CET, CET_SHADOW_STACKS);
}

/* How the access is attempted. */
static inline attempt *way(const struct job *job)
{
	if (job->access < ACCESS_SHADOW_READ || job->access == ACCESS_USER_SHADOW_WRITE)
		return job->user ? attempt_user : attempt_supervisor;
	return job->user ? on_user_shadow_stack(job) : attempt_on_shadow_stack;
}
#else
static void lay_shadow_stacks(void)
{
	if ((batch.first.cr4 | batch.then.cr4) & CR4_CET)
		write_msr(MSR_U_CET, CET_SHADOW_STACKS);
}

static inline attempt *way(const struct job *job)
{
	if (job->access == ACCESS_SHADOW_READ)
		return on_user_shadow_stack(job);
	return job->user ? attempt_user : attempt_supervisor;
}
#endif

/* ---- one probe ---- */

/* Runs a routine of the supervisor's own needs; false, if it ends in an exception. */
static inline bool survives(enum routine routine, uintptr_t value)
{
	attempt_supervisor(0, value, (uintptr_t)supervisor_accesses + routine * ROUTINE_BYTES, RFLAGS_FIXED);
	return frame.vector == VECTOR_NONE;
}

static inline bool flush(const struct job *job)
{
	if (job->flush == FLUSH_PAGE || job->flush >= FLUSH_CR0) {	/* bits of CR0 may be changed and drop nothing */
#ifdef __x86_64__
		asm volatile("invlpg (%0)" :: "r"(job->address) : "memory");
#else
		asm volatile("invlpg %%gs:(%0)" :: "r"((uintptr_t)job->address) : "memory");
#endif
	}
	if (job->flush == FLUSH_PAGE)
		return true;
	if (job->flush == FLUSH_ALL)
		return survives(LOAD_CR3, batch.cr3);
	if (job->flush == FLUSH_GLOBAL)
		return survives(CHANGE_PGE, 0);
	if (job->flush >= FLUSH_INVPCID_ADDRESS && job->flush <= FLUSH_INVPCID_REST) {
		struct { uint64_t pcid, address; } of = { 0, job->address };
		uintptr_t type = job->flush - FLUSH_INVPCID_ADDRESS;
		asm volatile("invpcid %0, %1" :: "m"(of), "r"(type) : "memory");
		return true;
	}
	if (job->flush >= FLUSH_CR0)
		return survives(CHANGE_CR0 + (job->flush - FLUSH_CR0), job->value);
	return true;
}

static inline bool lay_descriptor_table(uintptr_t address)
{
	describe(LDT, SYSTEM_LDT, address, sizeof(uint64_t));
	return survives(LOAD_LDT, LDT);
}

/* The base of the segment that was loaded; afterwards there is neither the segment nor its table. */
static inline uint64_t take_segment(void)
{
	uint64_t base = read_msr(MSR_FS_BASE);
	asm volatile("mov %0, %%fs\n\tlldt %w0" :: "r"(0));
	return base;
}

static uintptr_t user_routines;	/* linear address of user_accesses where CPL 3 executes it */

/* Where the code of the access lies. */
static inline uintptr_t routine(const struct job *job)
{
	enum routine index = job->access == ACCESS_READ ? READ_1 + (job->size >> 2)
		: job->access == ACCESS_WRITE ? WRITE_1 + (job->size >> 2)
		: job->access == ACCESS_FETCH ? JUMP
		: PUSH + (job->access - ACCESS_PUSH);
	return (job->user ? user_routines : (uintptr_t)supervisor_accesses) + index * ROUTINE_BYTES;
}

/* Whether the access was made, although it came to an exception. */
static inline bool made_before_exception(const struct job *job, bool in_routine)
{
	bool by_access = frame.vector == PAGE_FAULT || frame.vector == PROTECTION || frame.vector == STACK_FAULT;
	if (job->access == ACCESS_FETCH)	/* it may fail at the address or already at the jump */
		return !(by_access && (in_routine || frame.ip == (uintptr_t)job->address));
	if (job->access == ACCESS_DESCRIPTOR)	/* a descriptor that is none: the exception names its selector */
		return (frame.vector == NOT_PRESENT || frame.vector == PROTECTION || frame.vector == STACK_FAULT)
			&& frame.error == (LDT_FIRST & ~3u);
	return false;
}

static inline void access(const struct job *job, struct result *result)
{
	uintptr_t at = routine(job), flags = RFLAGS_FIXED | (job->ac ? RFLAGS_AC : 0);

	uintptr_t first = job->address + (job->access == ACCESS_CALL ? sizeof(uint64_t) : 0);
	uintptr_t found = way(job)(first, job->value, at, flags);
	if (job->ac)
		write_flags(RFLAGS_FIXED);	/* not CLAC: the local KVM does not execute it */
	bool in_routine = frame.ip - at < ROUTINE_BYTES;
	if (frame.vector == INVALID_OPCODE && in_routine)
		frame.vector = VECTOR_NONE;	/* the end of a routine outside CPL 0 */
	if (job->access == ACCESS_RETURN && frame.vector == CONTROL_PROTECTION && frame.error == NEAR_RETURN)
		frame.vector = VECTOR_NONE;
	result->completed = frame.vector == VECTOR_NONE || made_before_exception(job, in_routine);
	result->data = job->access == ACCESS_DESCRIPTOR ? take_segment() : found;
}

/* CR2 before an access to the address: CR2_UNTOUCHED, cut to the register, which is never near the address. */
static inline uintptr_t untouched(uint64_t address)
{
#ifdef __x86_64__
	(void)address;
	return CR2_UNTOUCHED;
#else
	return (uint32_t)CR2_UNTOUCHED ^ (~address & 0x80000000);
#endif
}

static inline void report(struct result *result, uintptr_t cr2_before)
{
	uintptr_t cr2 = read_cr2();
	result->cr2 = cr2 == cr2_before ? CR2_UNTOUCHED : cr2;
	result->vector = frame.vector;
	result->error = frame.vector == VECTOR_NONE ? 0 : frame.error;
	result->rip = frame.vector == VECTOR_NONE ? 0 : frame.ip;
}

static inline void probe(char *ram, const struct job *job, struct result *result, bool narrow)
{
#define PATCH(i) store(ram, job->where[i], job->word[i], narrow)
	FOR_WORDS(job->patched, PATCH)
	if (__builtin_expect(job->control, CONTROL_KEPT))
		load_control(job->control == CONTROL_FIRST ? &batch.first : &batch.then);
	uintptr_t cr2 = untouched(job->address);
	if (read_cr2() != cr2)
		write_cr2(cr2);
	result->data = 0;
	result->completed = 0;
	frame.vector = VECTOR_NONE;
	if (flush(job)) {
		if (job->access == ACCESS_NONE)
			result->completed = 1;
		else if (job->access != ACCESS_DESCRIPTOR || lay_descriptor_table(job->address))
			access(job, result);
	}
	report(result, cr2);
#define WATCH(i) result->after[i] = load(ram, job->where[i], narrow)
	FOR_WORDS(job->watched, WATCH)
}

/* ---- the tested state ---- */

static void enter_tested_state(void)
{
	load_descriptors();
#ifdef __i386__
	asm volatile("mov %0, %%gs" :: "r"(USER_DATA));	/* access32.S */
#endif
	user_routines = linear(user_accesses) + (uintptr_t)(batch.user_window - batch.window);
	loaded = (struct control){ UNKNOWN, batch.first.cr4 & CR4_FORMAT, UNKNOWN, UNKNOWN, UNKNOWN };
	load_control(&batch.first);
	write_cr3(batch.cr3);
	lay_shadow_stacks();
}

static void leave_tested_state(void)
{
	write_msr(MSR_EFER, EFER_BETWEEN);
	write_cr3(batch.entry_cr3);
	write_cr4(batch.first.cr4 & CR4_FORMAT);
	write_cr0(CR0_OWN);
}

void run_jobs(void)
{
	enter_tested_state();
	const struct job *job = physical(batch.jobs);
	struct result *result = physical(batch.results);
	uintptr_t count = batch.count;
	bool narrow = NARROW;
	char *ram = physical(0);
	for (uintptr_t i = 0; i < count; i++)
		probe(ram, &job[i], &result[i], narrow);
	leave_tested_state();
	batch.done = count;
	batch.done_nonce = batch.nonce;
}

void stay_parked(void)
{
	enter_tested_state();
	wait_for_leave();
	leave_tested_state();
}
