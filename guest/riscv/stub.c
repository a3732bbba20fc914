/*
 * The guest program: waits for a command on the serial port, executes the batch of probes that the harness left in
 * memory (protocol.h), under the tables that the batch names, and reports.
 *
 * It runs in machine mode, whose addresses are physical, and takes every exception itself.  So of the tested space
 * nothing is its own but two pages, from which the supervisor's and the user's accesses are made; by MPRV, not even
 * those.
 */
#include "serial.h"

#include "commands.h"
#include "console.h"
#include "protocol.h"

#include <stdbool.h>

/* access.S */
extern const char accesses[], set_menvcfg[], set_menvcfgh[], set_senvcfg[];
uintptr_t attempt(uintptr_t address, uintptr_t value, uintptr_t pc, uintptr_t mstatus);
uintptr_t attempt_by_mprv(uintptr_t address, uintptr_t value, uintptr_t pc, uintptr_t mstatus);

#define WINDOW_PAGE 4096	/* from the supervisor's page of the window to the user's */

/* What lies at `accesses`, ROUTINE_BYTES each. */
enum routine { LOAD_1, LOAD_4, LOAD_X, STORE_1, STORE_4, STORE_X, SWAP_4, RESERVE_4, SWAP_8, RESERVE_8 };

/* What an exception has left: mcause, mtval and mepc, as access.S stores them. */
struct { uintptr_t cause, tval, epc; } frame;

struct batch batch;
struct machine_info machine_info;

#define READ_CSR(name)		({ uintptr_t value_; asm volatile("csrr %0, " #name : "=r"(value_)); value_; })
#define WRITE_CSR(name, value)	asm volatile("csrw " #name ", %0" :: "r"((uintptr_t)(value)) : "memory")

#define BITS_64		(__riscv_xlen == 64)
#define SATP_MODE	(BITS_64 ? 60 : 31)
#define SATP_ASID	(BITS_64 ? 44 : 22)
#define ASID_MASK	(BITS_64 ? 0xffff : 0x1ff)

/* ---- probes ---- */

typedef uintptr_t __attribute__((may_alias)) word;	/* an entry: 4 bytes in Sv32, else 8 */

static inline word *at(uint64_t physical)
{
	return (word *)(uintptr_t)physical;
}

static uintptr_t asid;		/* of the batch */
static uintptr_t own_mstatus;	/* without MPP, MPRV, SUM, MXR */

static inline void flush(const struct job *job)
{
	uintptr_t address = job->address;

	if (job->flush == FLUSH_PAGE)
		asm volatile("sfence.vma %0, zero" :: "r"(address) : "memory");
	else if (job->flush == FLUSH_ALL)
		asm volatile("sfence.vma" ::: "memory");
	else if (job->flush == FLUSH_PAGE_ASID)
		asm volatile("sfence.vma %0, %1" :: "r"(address), "r"(asid) : "memory");
	else if (job->flush == FLUSH_ASID)
		asm volatile("sfence.vma zero, %0" :: "r"(asid) : "memory");
}

/* Where the code of the access lies, from `accesses` on. */
static inline uintptr_t routine(const struct job *job)
{
	bool wide = job->size == 8;
	enum routine index = job->access == ACCESS_LOAD ? LOAD_1 + (job->size >> 2)
		: job->access == ACCESS_STORE ? STORE_1 + (job->size >> 2)
		: job->access == ACCESS_AMO ? (wide ? SWAP_8 : SWAP_4)
		: wide ? RESERVE_8 : RESERVE_4;
	return index * ROUTINE_BYTES;
}

/* What the access has loaded, of what its register holds. */
static inline uint64_t loaded(const struct job *job, uintptr_t found)
{
	if (job->access == ACCESS_STORE)
		return 0;
	return job->size == 1 ? (uint8_t)found : job->size == 4 ? (uint32_t)found : found;
}

static inline void note_end(struct result *result)
{
	result->completed = 1;
	result->cause = CAUSE_NONE;
	result->tval = result->epc = 0;
}

static inline void note_exception(struct result *result)
{
	result->cause = frame.cause;
	result->tval = frame.tval;
	result->epc = frame.epc;
}

static inline void access_data(const struct job *job, struct result *result, uintptr_t mstatus)
{
	uintptr_t there = routine(job), pc = job->mprv ? (uintptr_t)accesses + there
		: (uintptr_t)batch.window + (job->user ? WINDOW_PAGE : 0) + there;
	uintptr_t found = job->mprv ? attempt_by_mprv(job->address, job->value, pc, mstatus | MSTATUS_MPRV)
		: attempt(job->address, job->value, pc, mstatus);
	if (job->mprv)	/* QEMU 7.2 keeps translations made by MPRV when a trap sets MPP, until MPRV changes */
		WRITE_CSR(mstatus, own_mstatus | MSTATUS_MPP);
	uintptr_t end = job->mprv ? CAUSE_ECALL_MACHINE : job->user ? CAUSE_ECALL_USER : CAUSE_ECALL_SUPERVISOR;
	if (frame.cause == end) {
		result->data = loaded(job, found);
		note_end(result);
	} else {
		note_exception(result);
	}
}

static inline void access_code(const struct job *job, struct result *result, uintptr_t mstatus)
{
	asm volatile("fence.i" ::: "memory");
	uintptr_t found = attempt(0, 0, job->address, mstatus);
	bool failed = (frame.cause == CAUSE_FETCH_ACCESS || frame.cause == CAUSE_FETCH_PAGE)
		&& frame.epc == (uintptr_t)job->address;
	note_exception(result);
	result->completed = !failed;
	result->data = failed ? 0 : found;
}

static inline void access(const struct job *job, struct result *result)
{
	uintptr_t mstatus = own_mstatus | (job->user ? 0 : MSTATUS_MPP_S) | (job->sum ? MSTATUS_SUM : 0)
		| (job->mxr ? MSTATUS_MXR : 0);
	if (job->access == ACCESS_FETCH)
		access_code(job, result, mstatus);
	else
		access_data(job, result, mstatus);
}

static inline void probe(const struct job *job, struct result *result)
{
#define PATCH(i) *at(job->where[i]) = job->word[i]
	FOR_WORDS(job->patched, PATCH)
	flush(job);
	result->data = result->completed = 0;
	if (job->access == ACCESS_NONE)
		note_end(result);
	else
		access(job, result);
#define WATCH(i) result->after[i] = *at(job->where[i])
	FOR_WORDS(job->watched, WATCH)
}

/* ---- the tested state ---- */

/* Sets bits of a CSR that may not be there; what it held. */
static uint64_t exchange(const char *set, uintptr_t bits)
{
	return attempt(0, bits, (uintptr_t)set, own_mstatus | MSTATUS_MPP);
}

static void set_environment(uint64_t menvcfg, uint64_t senvcfg)
{
	exchange(set_menvcfg, menvcfg);
	if (!BITS_64)
		exchange(set_menvcfgh, menvcfg >> 32);
	exchange(set_senvcfg, senvcfg);
}

static void enter_tested_state(void)
{
	asid = batch.satp >> SATP_ASID & ASID_MASK;
	set_environment(batch.menvcfg, batch.senvcfg);
	WRITE_CSR(satp, batch.satp);
	asm volatile("sfence.vma" ::: "memory");
}

static void leave_tested_state(void)
{
	set_environment(0, 0);
	WRITE_CSR(satp, 0);
	asm volatile("sfence.vma" ::: "memory");
}

void execute_batch(void)
{
	const struct job *job = (const struct job *)(uintptr_t)batch.jobs;
	struct result *result = (struct result *)(uintptr_t)batch.results;
	uintptr_t count = batch.count;

	enter_tested_state();
	for (uintptr_t i = 0; i < count; i++)
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

/* ---- start ---- */

/* The bits that a CSR keeps when all are set, 0 where there is no such CSR. */
static uint64_t kept(const char *set)
{
	exchange(set, -1);
	if (frame.cause == CAUSE_ILLEGAL)
		return 0;
	return exchange(set, 0);
}

static void read_machine_info(uintptr_t device_tree)
{
	machine_info.xlen = __riscv_xlen;
	machine_info.misa = READ_CSR(misa);
	machine_info.device_tree = device_tree;
	for (uintptr_t mode = 0; mode <= UINTPTR_MAX >> SATP_MODE; mode++) {
		WRITE_CSR(satp, mode << SATP_MODE);
		if (READ_CSR(satp) >> SATP_MODE == mode)
			machine_info.modes |= 1u << mode;
	}
	WRITE_CSR(satp, (uintptr_t)ASID_MASK << SATP_ASID);
	for (uintptr_t bits = READ_CSR(satp) >> SATP_ASID & ASID_MASK; bits; bits >>= 1)
		machine_info.asid_bits++;
	WRITE_CSR(satp, 0);
	machine_info.menvcfg = kept(set_menvcfg);
	if (!BITS_64)
		machine_info.menvcfg |= kept(set_menvcfgh) << 32;
	machine_info.senvcfg = kept(set_senvcfg);
}

static void print_register(const char *name, uint64_t value)
{
	print(name);
	print_hex(value);
}

/* An exception that no probe provoked. */
__attribute__((noreturn)) void panic(void)
{
	print_register("panic mcause=", READ_CSR(mcause));
	print_register(" mepc=", READ_CSR(mepc));
	print_register(" mtval=", READ_CSR(mtval));
	print_register(" mstatus=", READ_CSR(mstatus));
	print_register(" satp=", READ_CSR(satp));
	print("\n");
	for (;;)
		asm volatile("wfi");
}

__attribute__((noreturn)) void start(uintptr_t device_tree)
{
	own_mstatus = READ_CSR(mstatus) & ~(uintptr_t)(MSTATUS_MPP | MSTATUS_MPRV | MSTATUS_SUM | MSTATUS_MXR);
	serial_init();
	read_machine_info(device_tree);
	serve();
}
