/*
 * The guest program: waits for a command on the serial port, executes the batch of probes that the harness left in
 * memory (protocol.h), under the trees that the batch names, and reports.
 *
 * It runs as hypervisor, which translates nothing, and comes to know every interrupt.  Privileged accesses to data are
 * made with only data translated (MSR.IR=0), so that of the tested trees nothing is its own but, for accesses in problem
 * state, the page of their code.
 */
#include "cpu.h"
#include "serial.h"

#include "commands.h"
#include "console.h"
#include "protocol.h"

#include <stdbool.h>

/* access.S */
extern const char accesses[];
uint64_t attempt(uint64_t address, uint64_t value, uint64_t pc, uint64_t msr);

/* What lies at `accesses`, ROUTINE_BYTES each. */
enum routine { LOAD_1, LOAD_4, LOAD_8, STORE_1, STORE_4, STORE_8 };

/* What an interrupt has left, as access.S stores it; `stack` is not 0 while one is expected. */
struct { uint64_t stack, vector, srr0, srr1, dar, dsisr, hsrr0, hsrr1; } frame;

struct batch batch;
struct machine_info machine_info;

#define READ(spr)		({ uint64_t value_; asm volatile("mfspr %0, %1" : "=r"(value_) : "i"(spr)); value_; })
#define WRITE(spr, value)	asm volatile("mtspr %0, %1" :: "i"(spr), "r"((uint64_t)(value)) : "memory")
#define ISYNC()			asm volatile("isync" ::: "memory")

#define MSR_OWN		0x9000000000001000	/* SF, HV, ME */
#define MSR_EE		0x8000
#define MSR_PR		0x4000
#define MSR_IR		0x20
#define MSR_DR		0x10

#define LPCR_PECE_DEE	0x8000		/* the decrementer wakes */
#define LPCR_UPRT	0x400000
#define LPCR_HR		0x100000

/* ---- probes ---- */

static inline volatile uint64_t *at(uint64_t real)
{
	return (volatile uint64_t *)real;
}

/* tlbie with PRS=1 and R=1: what is process-scoped, of radix trees. */
#define TLBIE(rb, rs, ric)	asm volatile("tlbie %0, %1, " #ric ", 1, 1" :: "r"((uint64_t)(rb)), "r"((uint64_t)(rs)) : "memory")

static inline void flush(const struct job *job)
{
	static const uint8_t sizes[] = { 0, 5, 1, 2 };	/* AP of 4K, 64K, 2M and 1G, of which tlbie names one */
	uint64_t process = (job->address >> 62 ? 0 : batch.pid) << 32;
	uint64_t page = job->address & 0x000ffffffffff000;

	asm volatile("ptesync" ::: "memory");
	switch (job->flush) {
	case FLUSH_PAGE:
		for (unsigned i = 0; i < sizeof sizes; i++)
			TLBIE(page | sizes[i] << 5, process, 0);
		break;
	case FLUSH_PROCESS: TLBIE(0x400, process, 2); break;
	case FLUSH_ALL: TLBIE(0xc00, 0, 2); break;
	default: return;
	}
	asm volatile("eieio\n\ttlbsync\n\tptesync" ::: "memory");
}

static inline void note_end(struct result *result, uint64_t data)
{
	result->data = data;
	result->vector = result->srr0 = result->srr1 = result->dar = result->dsisr = 0;
	result->completed = 1;
}

static inline void note_interrupt(struct result *result)
{
	bool hypervisor = frame.srr0 == 0 && frame.srr1 == 0;

	result->data = result->completed = 0;
	result->vector = frame.vector;
	result->srr0 = hypervisor ? frame.hsrr0 : frame.srr0;
	result->srr1 = hypervisor ? frame.hsrr1 : frame.srr1;
	result->dar = frame.dar;
	result->dsisr = frame.dsisr;
}

/* In problem state interrupts are enabled and everything is translated, whatever is said. */
static inline uint64_t msr(const struct job *job, uint64_t translated)
{
	return MSR_OWN | (job->user ? MSR_PR | MSR_EE | MSR_IR | MSR_DR : translated);
}

static inline void access_data(const struct job *job, struct result *result)
{
	bool store = job->access == ACCESS_WRITE;
	uint64_t from = job->user ? batch.window : (uint64_t)accesses;
	uint64_t pc = from + ((store ? STORE_1 : LOAD_1) + (job->size >> 2)) * ROUTINE_BYTES;
	uint64_t found = attempt(job->address, job->value, pc, msr(job, MSR_DR));

	if (frame.vector == VECTOR_SYSTEM_CALL)
		note_end(result, store ? 0 : found);
	else
		note_interrupt(result);
}

static inline void access_code(const struct job *job, struct result *result)
{
	asm volatile("icbi 0, %0\n\tsync\n\tisync" :: "r"(accesses) : "memory");
	uint64_t found = attempt(0, 0, job->address, msr(job, MSR_IR | MSR_DR));
	bool failed = (frame.vector == VECTOR_INSTRUCTION_STORAGE || frame.vector == VECTOR_INSTRUCTION_SEGMENT)
		&& frame.srr0 == job->address;

	note_interrupt(result);
	result->completed = !failed;
	result->data = failed ? 0 : found;
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
	else
		access_data(job, result);
#define WATCH(i) result->after[i] = *at(job->where[i])
	FOR_WORDS(job->watched, WATCH)
}

/* ---- the tested state ---- */

#define VALID		(1ull << 63)
#define LEAF		(1ull << 62)
#define HOST_RADIX	(1ull << 63)
#define TREE		0x40000000000000ad	/* 52 bits, a root of 13 */

/* The smallest tables: 4 KiB each, 256 entries of two doublewords. */
static uint64_t partitions[512] __attribute__((aligned(4096)));
static uint64_t processes[512] __attribute__((aligned(4096)));
/* The tree of LPID 0, by which the process table is found: the first GiB, as it is. */
static uint64_t host_root[8192] __attribute__((aligned(65536)));
static uint64_t host_gigabytes[512] __attribute__((aligned(4096)));

static void lead_to_the_trees(void)
{
	host_root[0] = VALID | (uint64_t)host_gigabytes | 9;
	host_gigabytes[0] = VALID | LEAF | 0x187;	/* R, C, and all rights */
	partitions[0] = HOST_RADIX | TREE | (uint64_t)host_root;
	partitions[1] = (uint64_t)processes;
	WRITE(SPR_PTCR, (uint64_t)partitions);
	WRITE(SPR_LPIDR, 0);
	WRITE(SPR_LPCR, LPCR_UPRT | LPCR_HR | LPCR_PECE_DEE);
	ISYNC();
}

static void forget_translations(void)
{
	asm volatile("ptesync" ::: "memory");
	TLBIE(0xc00, 0, 2);
	asm volatile("eieio\n\ttlbsync\n\tptesync\n\tisync" ::: "memory");
}

static void enter_tested_state(void)
{
	processes[0] = batch.kernel;
	processes[2 * PROCESS] = batch.user;
	WRITE(SPR_PIDR, batch.pid);
	WRITE(SPR_AMR, batch.amr);
	WRITE(SPR_IAMR, batch.iamr);
	WRITE(SPR_DEC, 0x7fffffff);
	ISYNC();
	forget_translations();
}

static void leave_tested_state(void)
{
	WRITE(SPR_AMR, 0);
	WRITE(SPR_IAMR, 0);
	ISYNC();
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

void park_batch(void)
{
	enter_tested_state();
	wait_for_leave();
	leave_tested_state();
}

/* The decrementer counts 512 MHz: half a millisecond.  No interrupt is taken where the stub runs. */
void doze(void)
{
	WRITE(SPR_DEC, 1 << 18);
	WRITE(SPR_PSSCR, 0);
	asm volatile("stop" ::: "memory");
}

/* ---- start ---- */

/* By a write through the second GiB of the tree of LPID 0, which is the first once more, without R and C. */
static bool sets_marks(void)
{
	static uint64_t nothing;
	uint64_t code = (uint64_t)accesses + STORE_8 * ROUTINE_BYTES;

	host_gigabytes[1] = VALID | LEAF | 0x7;
	processes[2 * PROCESS] = TREE | (uint64_t)host_root;
	WRITE(SPR_PIDR, PROCESS);
	forget_translations();
	attempt((1ull << 30) + (uint64_t)&nothing, 0, code, MSR_OWN | MSR_DR);
	host_gigabytes[1] = 0;
	forget_translations();
	return frame.vector == VECTOR_SYSTEM_CALL;
}

static void read_machine_info(void)
{
	machine_info.pvr = READ(SPR_PVR);
	machine_info.sets_marks = sets_marks();
	WRITE(SPR_AMOR, -1);
	WRITE(SPR_UAMOR, -1);
	WRITE(SPR_AMR, -1);
	machine_info.amr = READ(SPR_AMR);
	WRITE(SPR_IAMR, -1);
	machine_info.iamr = READ(SPR_IAMR);
	WRITE(SPR_AMR, 0);
	WRITE(SPR_IAMR, 0);
}

static void print_register(const char *name, uint64_t value)
{
	print(name);
	print_hex(value);
}

/* An interrupt that no probe provoked. */
__attribute__((noreturn)) void panic(uint64_t vector)
{
	print_register("panic vector=", vector);
	print_register(" srr0=", READ(SPR_SRR0));
	print_register(" srr1=", READ(SPR_SRR1));
	print_register(" dar=", READ(SPR_DAR));
	print_register(" dsisr=", READ(SPR_DSISR));
	print_register(" hsrr0=", READ(SPR_HSRR0));
	print("\n");
	for (;;)
		doze();
}

__attribute__((noreturn)) void start(void)
{
	serial_init();
	lead_to_the_trees();
	read_machine_info();
	serve();
}
