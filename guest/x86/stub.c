/*
 * The guest program: waits for a command on COM1, executes the batch of probes that the harness left in
 * memory (protocol.h), under the tables and control registers that the batch names, and reports.
 *
 * Between batches it runs under its own identity tables, with four levels.  A batch leaves long mode,
 * enters it again with the entry tables (that is where the level count changes), moves to the alias of the
 * stub in the window, and there loads the tested state: at no moment does it need an address of the tested
 * space outside the window.
 */
#include <stdbool.h>
#include <stddef.h>

#pragma GCC visibility push(hidden)	/* addresses relative to RIP, none through a table */

#include "cpu.h"
#include "protocol.h"

/* stub.S */
extern struct frame {
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
} frame;
extern const char exception_stack_top[], handlers[];
extern const char supervisor_accesses[], user_accesses[], user_accesses_end[];
extern const char supervisor_jump[], user_jump[];
uint64_t attempt_supervisor(uint64_t address, uint64_t value, uint64_t rip, uint64_t rflags);
uint64_t attempt_user(uint64_t address, uint64_t value, uint64_t rip, uint64_t rflags);
void reenter_long_mode(uint64_t cr3, uint64_t cr4);
uint64_t own_cr3(void);
void call_at(uint64_t offset, void (*function)(void));
void load_descriptor_registers(const void *gdtr, const void *idtr);

struct batch batch;
struct machine_info machine_info;

/* ---- single instructions ---- */

static inline void out(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" :: "a"(value), "Nd"(port));
}

static inline uint8_t in(uint16_t port)
{
	uint8_t value;
	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void write_msr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" :: "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

#define CONTROL_REGISTER(n)						\
static inline uint64_t read_cr##n(void)					\
{									\
	uint64_t value;							\
	asm volatile("mov %%cr" #n ", %0" : "=r"(value) :: "memory");	\
	return value;							\
}									\
static inline void write_cr##n(uint64_t value)				\
{									\
	asm volatile("mov %0, %%cr" #n :: "r"(value) : "memory");	\
}
CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)

static inline void write_rflags(uint64_t value)
{
	asm volatile("push %0\n\tpopfq" :: "r"(value) : "cc", "memory");
}

static inline struct cpuid cpuid(uint32_t leaf)
{
	struct cpuid r;
	asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(0));
	return r;
}

/* ---- console: a 16550 at COM1 ---- */

/* Received bytes interrupt, so that a waiting guest sleeps instead of spinning on a processor of the host. */
static void init_console(void)
{
	out(COM1_LCR, 0x03);			/* 8 bits, no parity */
	out(COM1_FCR, 0x01);			/* FIFO, a single byte interrupts */
	out(COM1_MCR, 0x0b);			/* DTR, RTS, OUT2: interrupts reach the controller */
	out(COM1_IER, 0x01);			/* interrupt when bytes were received */
	out(PIC, 0x11);				/* initialise: three words follow */
	out(PIC_DATA, EXCEPTIONS);		/* first vector */
	out(PIC_DATA, 0x04);			/* the second controller is at IRQ 2 */
	out(PIC_DATA, 0x01);			/* 8086 mode */
	out(PIC_DATA, 0xff & ~(1 << COM1_IRQ));	/* only COM1 */
	out(PIC2_DATA, 0xff);
	*(volatile uint32_t *)APIC_SPURIOUS = 0x1ff;	/* on; vector 255 */
	*(volatile uint32_t *)APIC_LINT0 = 0x700;	/* the controller interrupts through it */
}

static void put(char c)
{
	while (!(in(COM1_LSR) & LSR_EMPTY))
		;
	out(COM1, c);
}

static void print(const char *text)
{
	while (*text)
		put(*text++);
}

static void print_hex(uint64_t value)
{
	for (int shift = 60; shift >= 0; shift -= 4) {
		unsigned digit = value >> shift & 0xf;
		put(digit < 10 ? '0' + digit : 'a' + digit - 10);
	}
}

static void print_decimal(uint64_t value)
{
	if (value >= 10)
		print_decimal(value / 10);
	put('0' + value % 10);
}

static void print_nonce(const char *word)
{
	print(word);
	print(" ");
	print_hex(batch.nonce);
}

static char get(void)
{
	while (!(in(COM1_LSR) & LSR_RECEIVED))
		asm volatile("sti\n\thlt\n\tcli" ::: "memory");
	return in(COM1);
}

/* One line without its end, as a string; the rest of a longer one is dropped, which makes it no command. */
static void read_line(char *line, unsigned size)
{
	unsigned length = 0;
	for (char c = get(); c != '\n' && c != '\r'; c = get())
		if (length < size - 1)
			line[length++] = c;
	line[length] = 0;
}

/* ---- descriptors ---- */

struct gate {
	uint16_t offset_low, selector;
	uint8_t stack, type;
	uint16_t offset_middle;
	uint32_t offset_high, reserved;
};

struct __attribute__((packed)) task {
	uint32_t reserved0;
	uint64_t rsp[3], reserved1, stack[7], reserved2;
	uint16_t reserved3, ports;
};

struct __attribute__((packed)) table_register {
	uint16_t limit;
	uint64_t base;
};

/* the order is that of the selectors in cpu.h; stub.S loads it first */
uint64_t gdt[] = {
	0,
	0x00af9b000000ffff,	/* CODE64 */
	0x00cf93000000ffff,	/* DATA */
	0x00cf9b000000ffff,	/* CODE32 */
	0x00cff3000000ffff,	/* USER_DATA */
	0x00affb000000ffff,	/* USER_CODE64 */
	0, 0,			/* TASK */
};
static struct gate idt[VECTORS];
static struct task task;

/* Loads GDT, IDT and TSS at the addresses that the code runs at: it is called again after each move. */
static void load_descriptors(void)
{
	uint64_t base = (uint64_t)&task;
	for (unsigned vector = 0; vector < VECTORS; vector++) {
		uint64_t handler = (uint64_t)handlers + vector * HANDLER_BYTES;
		idt[vector] = (struct gate) {
			.offset_low = handler, .offset_middle = handler >> 16, .offset_high = handler >> 32,
			.selector = CODE64, .stack = 1, .type = 0x8e,
		};
	}
	task.stack[0] = (uint64_t)exception_stack_top;
	task.ports = sizeof task;						/* no port for CPL 3 */
	gdt[TASK / 8] = (sizeof task - 1) | (base & 0xffffff) << 16 | 0x89ull << 40	/* available TSS */
		| (base >> 24 & 0xff) << 56;
	gdt[TASK / 8 + 1] = base >> 32;
	load_descriptor_registers(&(struct table_register){ sizeof gdt - 1, (uint64_t)gdt },
				  &(struct table_register){ sizeof idt - 1, (uint64_t)idt });
}

/* ---- unexpected exceptions ---- */

/* As `unexpected` in stub.S pushes them. */
struct registers {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
	struct frame frame;
};

static void print_register(const char *name, uint64_t value)
{
	print(name);
	print_hex(value);
}

__attribute__((noreturn)) void panic(const struct registers *r)
{
	print_register("panic vector=", r->frame.vector);
	print_register(" error=", r->frame.error);
	print_register(" rip=", r->frame.rip);
	print_register(" cs=", r->frame.cs);
	print_register(" rflags=", r->frame.rflags);
	print_register(" rsp=", r->frame.rsp);
	print_register(" cr0=", read_cr0());
	print_register(" cr2=", read_cr2());
	print_register(" cr3=", read_cr3());
	print_register(" cr4=", read_cr4());
	print_register(" rax=", r->rax);
	print_register(" rbx=", r->rbx);
	print_register(" rcx=", r->rcx);
	print_register(" rdx=", r->rdx);
	print_register(" rsi=", r->rsi);
	print_register(" rdi=", r->rdi);
	print_register(" rbp=", r->rbp);
	print_register(" r8=", r->r8);
	print_register(" r9=", r->r9);
	print_register(" r10=", r->r10);
	print_register(" r11=", r->r11);
	print_register(" r12=", r->r12);
	print_register(" r13=", r->r13);
	print_register(" r14=", r->r14);
	print_register(" r15=", r->r15);
	print("\n");
	for (;;)
		asm volatile("cli\n\thlt");
}

/* ---- probes ---- */

/* The whole of RAM, while a batch runs. */
static inline volatile uint64_t *physical(uint64_t window, uint64_t address)
{
	return (volatile uint64_t *)(window + address);
}

static inline void flush(const struct job *job, uint64_t cr3)
{
	if (job->flush == FLUSH_PAGE) {
		asm volatile("invlpg (%0)" :: "r"(job->address) : "memory");
	} else if (job->flush == FLUSH_ALL) {
		write_cr3(cr3);
	} else if (job->flush == FLUSH_GLOBAL) {
		uint64_t cr4 = read_cr4();
		write_cr4(cr4 ^ CR4_PGE);
		write_cr4(cr4);
	}
}

/* Where the code of the access lies: a fetch has none but the instruction at its address. */
static inline uint64_t routine(const struct job *job)
{
	if (job->access == ACCESS_FETCH)
		return job->address;
	unsigned index = 2 * (job->access == ACCESS_WRITE) + (job->size != 1);
	return (uint64_t)(job->user ? user_accesses : supervisor_accesses) + index * ROUTINE_BYTES;
}

/* Whether an exception means that the instruction at the address was not even fetched.  The fault may be
   taken at the address or already at the branch to it (a non-canonical one). */
static inline bool fetch_failed(uint64_t address)
{
	bool by_access = frame.vector == PAGE_FAULT || frame.vector == PROTECTION || frame.vector == STACK_FAULT;
	return by_access && (frame.rip == address || frame.rip == (uint64_t)supervisor_jump
			     || frame.rip == (uint64_t)user_jump);
}

/* A read or write from CPL 3 comes back by the #UD behind it: that is its success. */
static inline bool user_access_done(void)
{
	return frame.vector == INVALID_OPCODE && frame.rip >= (uint64_t)user_accesses
		&& frame.rip < (uint64_t)user_accesses_end;
}

static inline void access(const struct job *job, struct result *result)
{
	uint64_t rflags = RFLAGS_FIXED | (job->ac ? RFLAGS_AC : 0);
	bool fetch = job->access == ACCESS_FETCH;

	if (read_cr2() != CR2_UNTOUCHED)
		write_cr2(CR2_UNTOUCHED);
	result->data = (job->user ? attempt_user : attempt_supervisor)(job->address, job->value, routine(job), rflags);
	if (job->ac)
		write_rflags(RFLAGS_FIXED);	/* not CLAC: the local KVM does not execute it */
	result->cr2 = read_cr2();
	if (frame.vector == VECTOR_NONE || (!fetch && user_access_done())) {
		result->vector = VECTOR_NONE;
		result->error = 0;
		result->rip = 0;
		result->completed = 1;
	} else {
		result->vector = frame.vector;
		result->error = frame.error;
		result->rip = frame.rip;
		result->completed = fetch && !fetch_failed(job->address);
	}
}

static inline void no_access(struct result *result)
{
	result->data = 0;
	result->cr2 = CR2_UNTOUCHED;
	result->vector = VECTOR_NONE;
	result->error = 0;
	result->rip = 0;
	result->completed = 1;
}

static inline void probe(const struct job *job, struct result *result, uint64_t window, uint64_t cr3)
{
	for (unsigned i = 0; i < job->patched; i++)
		*physical(window, job->where[i]) = job->word[i];
	flush(job, cr3);
	if (job->access == ACCESS_NONE)
		no_access(result);
	else
		access(job, result);
	for (unsigned i = 0; i < job->watched; i++)
		result->after[i] = *physical(window, job->where[i]);
}

/* ---- batches ---- */

static void enter_tested_state(void)
{
	load_descriptors();
	write_cr0(batch.cr0);
	write_cr4(batch.cr4);
	if (batch.cr4 & CR4_PKE)
		asm volatile("wrpkru" :: "a"((uint32_t)batch.pkru), "c"(0), "d"(0));
	if (batch.cr4 & CR4_PKS)
		write_msr(MSR_PKRS, batch.pkrs);
	write_msr(MSR_EFER, batch.efer);
	write_cr3(batch.cr3);
}

static void leave_tested_state(void)
{
	write_msr(MSR_EFER, EFER_OWN | EFER_LMA);
	write_cr3(batch.entry_cr3);
	write_cr4(CR4_PAE | (batch.cr4 & CR4_LA57));
	write_cr0(CR0_OWN);
}

static void run_jobs(void)
{
	enter_tested_state();
	uint64_t window = batch.window, cr3 = batch.cr3, count = batch.count;
	const struct job *job = (const void *)physical(window, batch.jobs);
	struct result *result = (void *)physical(window, batch.results);
	for (uint64_t i = 0; i < count; i++)
		probe(&job[i], &result[i], window, cr3);
	leave_tested_state();
	batch.done = count;
	batch.done_nonce = batch.nonce;
}

static bool equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static void stay_parked(void)
{
	char line[32];

	enter_tested_state();
	print_nonce("parked");
	print("\n");
	for (read_line(line, sizeof line); !equal(line, "leave"); read_line(line, sizeof line))
		print("error the guest is parked: the only command is leave\n");
	leave_tested_state();
}

/* Calls the function at its alias in the window, under the entry tables, with the batch's level count.
   When it returns, the tables are in use no more: only then may the harness be told, who will rewrite them. */
static void call_in_window(void (*function)(void))
{
	reenter_long_mode(batch.entry_cr3, CR4_PAE | (batch.cr4 & CR4_LA57));
	call_at(batch.window, function);
	load_descriptors();
	reenter_long_mode(own_cr3(), CR4_PAE);
}

/* ---- commands ---- */

/* The argument of a command, if the line is that command; else NULL. */
static const char *argument(const char *line, const char *command)
{
	for (; *command; line++, command++)
		if (*line != *command)
			return NULL;
	return *line == ' ' ? line + 1 : NULL;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_nonce(const char *text)
{
	uint64_t value = 0;
	unsigned length = 0;
	for (; *text; text++, length++) {
		int digit = hex_digit(*text);
		if (digit < 0)
			return false;
		value = value << 4 | digit;
	}
	return length == 16 && value == batch.nonce;
}

static void obey(const char *line)
{
	const char *nonce;

	if (equal(line, "help")) {
		print("commands: run NONCE, park NONCE, leave, help; NONCE is the batch's, in 16 hexadecimal digits\n");
	} else if (equal(line, "leave")) {
		print("error nothing to leave: the guest is not parked\n");
	} else if ((nonce = argument(line, "run")) || (nonce = argument(line, "park"))) {
		if (!is_nonce(nonce)) {
			print_nonce("error this is not the nonce of the batch in memory, which is");
			print("\n");
		} else if (*line == 'p') {
			call_in_window(stay_parked);
			print_nonce("left");
			print("\n");
		} else {
			call_in_window(run_jobs);
			print_nonce("done");
			print(" ");
			print_decimal(batch.done);
			print("\n");
		}
	} else {
		print("error unknown command: try help\n");
	}
}

static void read_machine_info(void)
{
	struct cpuid extended = cpuid(0x80000000);

	machine_info.leaf_0 = cpuid(0);
	machine_info.leaf_1 = cpuid(1);
	if (machine_info.leaf_0.eax >= 7)
		machine_info.leaf_7 = cpuid(7);
	machine_info.leaf_80000000 = extended;
	if (extended.eax >= 0x80000001)
		machine_info.leaf_80000001 = cpuid(0x80000001);
	if (extended.eax >= 0x80000008)
		machine_info.leaf_80000008 = cpuid(0x80000008);
}

__attribute__((noreturn)) void start(void)
{
	char line[32];

	load_descriptors();
	init_console();
	read_machine_info();
	print("ready ");
	print_decimal(PROTOCOL_VERSION);
	print("\n");
	for (;;) {
		read_line(line, sizeof line);
		obey(line);
	}
}
