/*
 * The guest program: waits for a command on COM1, executes the batch of probes that the harness left in
 * memory (protocol.h), under the tables and control registers that the batch names, and reports.
 *
 * Between batches it runs in long mode, under its own identity tables, with four levels.  A batch leaves long
 * mode, enters the mode that it asks for with the entry tables, moves to the window, and there loads the tested
 * state: at no moment does it need an address of the tested space outside the window.
 */
#include "instructions.h"

#pragma GCC visibility push(hidden)

#include "commands.h"
#include "descriptors.h"
#include "probes.h"

#include <stdbool.h>

/* modes.S, access64.S */
void reenter_long_mode(uint64_t cr3, uint64_t cr4);
void call_in_legacy_mode(uint64_t cr3, uint64_t cr4, void (*function)(void));
uint64_t own_cr3(void);
void call_at(uint64_t offset, void (*function)(void));

struct batch batch;
struct machine_info machine_info;

/* ---- batches ---- */

/* Calls the function at its alias in the window, under the entry tables, with the batch's level count. */
static void call_in_long_mode(void (*function)(void))
{
	reenter_long_mode(batch.entry_cr3, batch.first.cr4 & CR4_FORMAT);
	call_at(batch.window, function);
	load_descriptors();
	reenter_long_mode(own_cr3(), CR4_PAE);
}

/* The same in 32-bit paging or PAE paging, where the segments move to the window. */
static void call_in_window_segments(void (*function)(void))
{
	gdt[WINDOW_CODE / 8] = based(gdt[CODE32 / 8], batch.window);
	gdt[WINDOW_DATA / 8] = based(gdt[DATA / 8], batch.window);
	gdt[RING1_CODE / 8] = gdt[WINDOW_CODE / 8] | 1ull << 45;	/* the DPL */
	call_in_legacy_mode(batch.entry_cr3, batch.first.cr4 & CR4_FORMAT, function);
	load_descriptors();
}

/* When it returns, the batch's tables are in use no more: only then may the harness be told, who will rewrite them. */
static void call_in_mode(void (*function)(void), void (*function_32)(void))
{
	if (batch.first.efer & EFER_LME)
		call_in_long_mode(function);
	else
		call_in_window_segments(function_32);
}

void execute_batch(void)
{
	call_in_mode(run_jobs, run_jobs_32);
}

void park_batch(void)
{
	call_in_mode(stay_parked, stay_parked_32);
}

/* ---- start ---- */

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

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct cpuid r;
	asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
	return r;
}

static void read_machine_info(void)
{
	struct cpuid extended = cpuid(0x80000000, 0);

	machine_info.leaf_0 = cpuid(0, 0);
	machine_info.leaf_1 = cpuid(1, 0);
	if (machine_info.leaf_0.eax >= 7)
		machine_info.leaf_7 = cpuid(7, 0);
	if (machine_info.leaf_7.eax >= 1)
		machine_info.leaf_7_1 = cpuid(7, 1);
	machine_info.leaf_80000000 = extended;
	if (extended.eax >= 0x80000001)
		machine_info.leaf_80000001 = cpuid(0x80000001, 0);
	if (extended.eax >= 0x80000008)
		machine_info.leaf_80000008 = cpuid(0x80000008, 0);
}

__attribute__((noreturn)) void start(void)
{
	load_descriptors();
	init_console();
	read_machine_info();
	serve();
}
