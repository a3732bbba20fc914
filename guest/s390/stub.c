/*
 * The guest program: waits for a command on the console, executes the batch of probes that the harness left in memory
 * (protocol.h), under the tables that the batch names, and reports.
 *
 * It runs with translation off, in supervisor state, and takes every interruption itself.  Data of the tested space is
 * the secondary space's, code of it the home space's, and what the stub executes is in neither: so of the tested space
 * nothing is its own.
 */
#include "serial.h"

#include "commands.h"
#include "console.h"
#include "protocol.h"

#include <stdbool.h>

struct psw { uint64_t mask, address; };

/* access.S */
extern const char accesses[];
uint64_t attempt(uint64_t address, uint64_t value, const struct psw *psw);
uint32_t sleep(const struct psw *psw);

#define ROUTINE_BYTES 8		/* from one of the accesses to the next */

/* What an interruption has left, as access.S stores it. */
struct { struct psw old; uint32_t code, unused; uint64_t teid; } frame;

struct batch batch;
struct machine_info machine_info;

static uint64_t own_cr0;

static inline void load_cr0(uint64_t value)
{
	asm volatile("lctlg %%c0, %%c0, %0" :: "Q"(value) : "memory");
}

/* ---- the console ---- */

struct sccb { uint16_t length; uint8_t function, control[3]; uint16_t response; };

struct event { uint16_t length; uint8_t type, flags; uint16_t reserved; };

struct text_sccb {
	struct sccb head;
	struct event event;
	char text[SCCB_BYTES - sizeof(struct sccb) - sizeof(struct event)];
} __attribute__((packed));

struct mask_sccb {
	struct sccb head;
	uint16_t reserved, mask_length;
	uint32_t program_receives, program_sends, sends, receives;
} __attribute__((packed));

static union { struct text_sccb text; struct mask_sccb mask; } out __attribute__((aligned(SCCB_BYTES)));
static struct text_sccb in __attribute__((aligned(SCCB_BYTES)));
static unsigned pending;	/* characters in `out` */
static unsigned taken, held;	/* of the characters in `in`, those that were taken, and how many there are */

/* Condition code 2 is that another command is under way. */
static void service_call(uint32_t command, void *sccb)
{
	unsigned busy;

	do {
		/* SERVC, by its code: assemblers do not know it */
		asm volatile(".insn rre, 0xb2200000, %1, %2\n\tipm %0\n\tsrl %0, 28"
			: "=&d"(busy) : "d"(command), "d"(sccb) : "cc", "memory");
	} while (busy == 2);
}

void serial_init(void)
{
	out.mask.head.length = sizeof out.mask;
	out.mask.mask_length = sizeof out.mask.receives;
	out.mask.program_receives = out.mask.program_sends = SCLP_ASCII_MASK;
	service_call(SCLP_WRITE_EVENT_MASK, &out);
}

/* A line at a time: each call is an exit from the guest. */
void serial_put(char c)
{
	out.text.text[pending++] = c;
	if (c != '\n' && pending < sizeof out.text.text)
		return;
	out.text.head = (struct sccb){ .length = sizeof out.text.head + sizeof out.text.event + pending };
	out.text.event = (struct event){ .length = sizeof out.text.event + pending, .type = SCLP_ASCII_DATA };
	pending = 0;
	service_call(SCLP_WRITE_EVENT_DATA, &out);
}

/*
 * The service signal stays pending until it is taken, so that none between the two calls is missed.  Each call ends in
 * one as well: the parameter says whether there is an event, and without one there is nothing to read.
 */
char serial_get(void)
{
	static const struct psw wait = { PSW_EXTERNAL | PSW_WAIT | PSW_64, 0 };

	while (taken == held) {
		in.head = (struct sccb){ .length = sizeof in };
		service_call(SCLP_READ_EVENT_DATA, &in);
		if (in.head.response == SCLP_READ && in.event.length > sizeof in.event) {
			taken = 1;	/* the first says that text follows */
			held = in.event.length - sizeof in.event;
		} else {
			load_cr0(own_cr0 | CR0_SERVICE_SIGNAL);
			while (!(sleep(&wait) & SCLP_EVENT_PENDING))
				;
			load_cr0(own_cr0);
		}
	}
	return in.text[taken++];
}

/* ---- probes ---- */

static inline uint64_t *at(uint64_t absolute)
{
	return (uint64_t *)absolute;
}

static inline void flush(const struct job *job)
{
	if (job->flush == FLUSH_ALL) {
		asm volatile("ptlb" ::: "memory");
	} else if (job->flush == FLUSH_PAGE) {
		uint64_t *entry = at(job->where[job->entry]), word = *entry;
		/* The operands are the origin of the page table, 2 KiB, and the address for its index. */
		asm volatile("ipte %0, %1" :: "d"((uint64_t)entry & -2048ul), "d"(job->address) : "memory");
		*entry = word;
	}
}

/* So that one which is not stored is seen.  Under low-address protection the stub cannot store there either. */
static inline void clear_teid(void)
{
	if (!(batch.cr0 & CR0_LOW_ADDRESS_PROTECTION))
		asm volatile("stg %0, %1(0)" :: "d"((uint64_t)NO_TEID), "i"(LOW_TEID) : "memory");
}

static inline void access(const struct job *job, struct result *result)
{
	struct psw psw = { PSW_DAT | PSW_64 | (job->user ? PSW_PROBLEM : 0), job->address };
	uint64_t found;

	if (job->access == ACCESS_FETCH) {
		psw.mask |= PSW_HOME;
	} else {
		psw.mask |= PSW_SECONDARY;
		psw.address = (uint64_t)accesses + (job->access - ACCESS_LOAD) * ROUTINE_BYTES;
	}
	clear_teid();
	found = attempt(job->address, job->value, &psw);
	result->code = frame.code;
	result->completed = frame.code == CODE_NONE;
	if (!result->completed)
		result->teid = frame.teid;
	result->address = frame.old.address;
	if (result->completed && job->access != ACCESS_STORE)
		result->data = found;
}

static inline void set_key(uint64_t frame, uint64_t key)
{
	asm volatile("sske %0, %1" :: "d"(key), "d"(frame));
}

static inline uint8_t key_of(uint64_t frame)
{
	uint64_t key = 0;

	asm volatile("iske %0, %1" : "+d"(key) : "d"(frame));
	return key;
}

static inline void probe(const struct job *job, struct result *result)
{
#define PATCH(i) *at(job->where[i]) = job->word[i]
	FOR_WORDS(job->patched, PATCH)
	flush(job);
	result->data = result->teid = result->address = 0;
	result->completed = result->key = 0;
	result->code = CODE_NONE;
	if (job->keyed)
		set_key(job->frame, 0);
	if (job->access != ACCESS_NONE)
		access(job, result);
	if (job->keyed)
		result->key = key_of(job->frame);
#define WATCH(i) result->after[i] = *at(job->where[i])
	FOR_WORDS(job->watched, WATCH)
}

/* ---- the tested state ---- */

static void enter_tested_state(void)
{
	asm volatile("lctlg %%c7, %%c7, %0" :: "Q"(batch.asce) : "memory");
	asm volatile("lctlg %%c13, %%c13, %0" :: "Q"(batch.asce) : "memory");
	load_cr0(own_cr0 | batch.cr0);
	asm volatile("ptlb" ::: "memory");
}

static void leave_tested_state(void)
{
	load_cr0(own_cr0);
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
	leave_tested_state();	/* what waits for a line changes control register 0 */
	wait_for_leave();
}

/* ---- start ---- */

static void read_machine_info(void)
{
	register uint64_t last asm("0") = FACILITY_WORDS - 1;

	asm volatile("stfle %0" : "=Q"(machine_info.facilities), "+d"(last) :: "cc", "memory");
	asm volatile("stidp %0" : "=Q"(machine_info.cpu));
}

static void print_register(const char *name, uint64_t value)
{
	print(name);
	print_hex(value);
}

/* An interruption that no probe provoked; `assigned` are the assigned storage locations. */
__attribute__((noreturn)) void panic(const char *assigned)
{
	static const struct psw stopped = { PSW_WAIT | PSW_64, 0 };

	print_register("panic code=", *(const uint16_t *)(assigned + LOW_PROGRAM_CODE));
	print_register(" psw=", *(const uint64_t *)(assigned + LOW_PROGRAM_OLD + 8));
	print_register(" mask=", *(const uint64_t *)(assigned + LOW_PROGRAM_OLD));
	print_register(" teid=", *(const uint64_t *)(assigned + LOW_TEID));
	print("\n");
	for (;;)
		asm volatile("lpswe %0" :: "Q"(stopped));
}

__attribute__((noreturn)) void start(void)
{
	asm volatile("stctg %%c0, %%c0, %0" : "=Q"(own_cr0));
	own_cr0 &= ~(uint64_t)CR0_SERVICE_SIGNAL;
	load_cr0(own_cr0);
	serial_init();
	read_machine_info();
	serve();
}
