/*
 * The guest program: waits for a command on the serial port, executes the batch of probes that the harness left in
 * memory (protocol.h), under the tables that the batch names, and reports.
 *
 * It runs at EL2, which translates nothing, and comes to know every exception of EL1 and EL0.  So of the tested space
 * nothing is its own but one page, which EL1 and EL0 execute, with the accesses and the vectors of EL1.
 */
#include "serial.h"

#include "commands.h"
#include "console.h"
#include "protocol.h"

#include <stdbool.h>

/* access.S */
extern const char accesses[], translators[];
uint64_t attempt(uint64_t address, uint64_t value, uint64_t pc, uint64_t spsr);

/* What lies behind the vectors at `accesses`, ROUTINE_BYTES each; those of one kind by their size. */
enum routine {
	LOAD_1, LOAD_4, LOAD_8, STORE_1, STORE_4, STORE_8, LOAD_T_1, LOAD_T_4, LOAD_T_8, STORE_T_1, STORE_T_4, STORE_T_8,
	SWAP_4, SWAP_8, EXCLUSIVE_4, EXCLUSIVE_8, DOZE,
};

/* What lies at `translators`. */
enum translator { EL1_READ, EL1_WRITE, EL0_READ, EL0_WRITE, EL1_READ_PAN, EL1_WRITE_PAN };

/* What an exception has left, as access.S stores it. */
struct { uint64_t esr, far, elr; } frame;

struct batch batch;
struct machine_info machine_info;

#define READ(name)		({ uint64_t value_; asm volatile("mrs %0, " #name : "=r"(value_)); value_; })
#define WRITE(name, value)	asm volatile("msr " #name ", %0" :: "r"((uint64_t)(value)) : "memory")
#define ISB()			asm volatile("isb" ::: "memory")

/* ---- probes ---- */

static inline volatile uint64_t *at(uint64_t physical)
{
	return (volatile uint64_t *)physical;
}

static uint64_t asid;	/* of the batch, in bits 63:48 */

#define TLBI(operation, argument)	asm volatile("tlbi " #operation ", %0" :: "r"((uint64_t)(argument)) : "memory")

static inline void flush(const struct job *job)
{
	uint64_t page = job->address >> 12 & 0xfffffffffff;

	asm volatile("dsb ishst" ::: "memory");
	switch (job->flush) {
	case FLUSH_PAGE: TLBI(vaae1, page); break;
	case FLUSH_ALL: asm volatile("tlbi vmalle1" ::: "memory"); break;
	case FLUSH_PAGE_ASID: TLBI(vae1, asid | page); break;
	case FLUSH_ASID: TLBI(aside1, asid); break;
	case FLUSH_LEAF: TLBI(vaale1, page); break;
	case FLUSH_LEAF_ASID: TLBI(vale1, asid | page); break;
	}
	asm volatile("dsb ish\n\tisb" ::: "memory");
}

static inline void note_end(struct result *result, uint64_t data)
{
	result->data = data;
	result->far = result->elr = result->esr = 0;
	result->completed = 1;
}

static inline void note_exception(struct result *result)
{
	result->data = result->completed = 0;
	result->far = frame.far;
	result->elr = frame.elr;
	result->esr = frame.esr;
}

static inline uint64_t class_of(uint64_t esr)
{
	return esr >> EC_SHIFT & 0x3f;
}

static inline uint64_t in_window(enum routine routine)
{
	return batch.window + VECTORS_BYTES + routine * ROUTINE_BYTES;
}

static inline uint64_t spsr(const struct job *job)
{
	return (job->user ? SPSR_EL0 : SPSR_EL1) | (job->pan ? SPSR_PAN : 0) | (job->uao ? SPSR_UAO : 0);
}

static inline void access_data(const struct job *job, struct result *result)
{
	static const uint8_t first[] = {
		[ACCESS_READ] = LOAD_1, [ACCESS_WRITE] = STORE_1,
		[ACCESS_READ_UNPRIVILEGED] = LOAD_T_1, [ACCESS_WRITE_UNPRIVILEGED] = STORE_T_1,
		[ACCESS_SWAP] = SWAP_4 - 1, [ACCESS_EXCLUSIVE] = EXCLUSIVE_4 - 1,
	};
	uint64_t found = attempt(job->address, job->value, in_window(first[job->access] + (job->size >> 2)), spsr(job));
	bool stored = job->access == ACCESS_WRITE || job->access == ACCESS_WRITE_UNPRIVILEGED;

	if (class_of(frame.esr) == EC_SVC)
		note_end(result, stored ? 0 : found);
	else
		note_exception(result);
}

/* The tag of the address, if it had one, is gone when the program counter has it. */
static inline bool reached(uint64_t address)
{
	uint64_t class = class_of(frame.esr);
	return (class != EC_FETCH_EL0 && class != EC_FETCH_EL1) || (frame.elr ^ address) << 8 != 0;
}

static inline void access_code(const struct job *job, struct result *result)
{
	asm volatile("ic iallu\n\tdsb ish\n\tisb" ::: "memory");
	uint64_t found = attempt(0, 0, job->address, spsr(job));

	note_exception(result);
	if (reached(job->address)) {
		result->data = found;
		result->completed = 1;
	}
}

static inline void translate(const struct job *job, struct result *result)
{
	bool write = job->access == TRANSLATE_WRITE;
	enum translator which = (job->user ? EL0_READ : job->pan ? EL1_READ_PAN : EL1_READ) + write;
	uint64_t (*translator)(uint64_t) = (void *)(translators + which * TRANSLATOR_BYTES);

	frame.esr = 0;
	if (job->pan)
		asm volatile(".arch_extension pan\n\tmsr pan, #1" ::: "memory");
	uint64_t found = translator(job->address);
	if (job->pan)
		asm volatile(".arch_extension pan\n\tmsr pan, #0" ::: "memory");
	if (frame.esr)
		note_exception(result);
	else
		note_end(result, found);
}

static inline void probe(const struct job *job, struct result *result)
{
#define PATCH(i) *at(job->where[i]) = job->word[i]
	FOR_WORDS(job->patched, PATCH)
	flush(job);
	if (job->access == ACCESS_NONE)
		note_end(result, 0);
	else if (job->access == ACCESS_FETCH)
		access_code(job, result);
	else if (job->access >= TRANSLATE_READ)
		translate(job, result);
	else
		access_data(job, result);
#define WATCH(i) result->after[i] = *at(job->where[i])
	FOR_WORDS(job->watched, WATCH)
}

/* ---- the tested state ---- */

static void forget_translations(void)
{
	ISB();
	asm volatile("tlbi vmalle1\n\tdsb ish\n\tisb" ::: "memory");
}

static void enter_tested_state(void)
{
	asid = (batch.tcr & TCR_A1 ? batch.ttbr1 : batch.ttbr0) & 0xffff000000000000;
	WRITE(ttbr0_el1, batch.ttbr0);
	WRITE(ttbr1_el1, batch.ttbr1);
	WRITE(tcr_el1, batch.tcr);
	WRITE(mair_el1, batch.mair);
	WRITE(vbar_el1, batch.window & ~(uint64_t)NO_WINDOW);
	ISB();
	WRITE(sctlr_el1, batch.sctlr);
	forget_translations();
}

static void leave_tested_state(void)
{
	WRITE(sctlr_el1, SCTLR_OFF);
	forget_translations();
}

void execute_batch(void)
{
	const struct job *job = (const struct job *)batch.jobs;
	struct result *result = (struct result *)batch.results;
	uint64_t count = batch.count;

	enter_tested_state();
	for (uint64_t i = 0; i < count; i++)
		probe(&job[i], &result[i]);
	leave_tested_state();
	batch.done = count;
	batch.done_nonce = batch.nonce;
}

static bool parked;

void park_batch(void)
{
	enter_tested_state();
	parked = batch.window != NO_WINDOW;
	wait_for_leave();
	parked = false;
	leave_tested_state();
}

/* Parked it sleeps at EL1, so that a debugger sees the processor translate; the interrupt brings it back. */
void doze(void)
{
	if (!parked) {
		asm volatile("wfi" ::: "memory");
		return;
	}
	WRITE(hcr_el2, HCR_RW | HCR_IMO);
	attempt(0, 0, in_window(DOZE), SPSR_EL1);
	WRITE(hcr_el2, HCR_RW);
	ISB();
}

/* ---- start ---- */

static void read_machine_info(void)
{
	machine_info.mmfr[0] = READ(id_aa64mmfr0_el1);
	machine_info.mmfr[1] = READ(id_aa64mmfr1_el1);
	machine_info.mmfr[2] = READ(S3_0_C0_C7_2);
	machine_info.mmfr[3] = READ(S3_0_C0_C7_3);
	machine_info.mmfr[4] = READ(S3_0_C0_C7_4);
	machine_info.isar0 = READ(id_aa64isar0_el1);
	WRITE(sctlr_el1, -1);
	machine_info.sctlr = READ(sctlr_el1);
	WRITE(sctlr_el1, SCTLR_OFF);
}

static void print_register(const char *name, uint64_t value)
{
	print(name);
	print_hex(value);
}

/* An exception that no probe provoked. */
__attribute__((noreturn)) void panic(void)
{
	print_register("panic esr_el2=", READ(esr_el2));
	print_register(" elr_el2=", READ(elr_el2));
	print_register(" far_el2=", READ(far_el2));
	print_register(" spsr_el2=", READ(spsr_el2));
	print("\n");
	for (;;)
		asm volatile("wfi");
}

__attribute__((noreturn)) void start(void)
{
	serial_init();
	read_machine_info();
	serve();
}
