/*
 * What the cases of all architectures have in common.  An architecture's cases.c says before what a `word` is, an entry;
 * SLOTS, of a table; BASE, where the pages of the cases begin; LARGE, how much an entry of `above` spans; `put`, for the
 * console; `read` and `flush_page`, for what the other processor is asked to do.
 */
#ifndef CASES_H
#define CASES_H
#include <stdbool.h>
#include <stdint.h>

enum { PAGE = 4096 };
#define ALWAYS static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(4096)))

static ALIGNED word tables[8][SLOTS];
static ALIGNED uint8_t frames[8][PAGE];

/* The pages of the cases: the first table's, then those that span a whole table. */
#define BIG(n) (BASE + (n) * LARGE)
static word *above;	/* the table whose entries span LARGE each, from BASE on */

static volatile uintptr_t next;	/* page of the case that runs */
#define HERE (BASE + next * PAGE)

static void print(const char *text) { while (*text) put(*text++); }
static void print_number(uint64_t value)
{
	for (int i = 60; i >= 0; i -= 4)
		put("0123456789abcdef"[value >> i & 15]);
}

static void is(const char *verdict, const char *name, uintptr_t address)
{
	print("case ");
	print(name);
	print(" ");
	print_number(address);
	print(" ");
	print(verdict);
	print("\n");
}

#define CASE(verdict, name, ...) do { __VA_ARGS__; is(verdict, name, HERE); next++; } while (0)
#define BIG_CASE(verdict, name, n, ...) CASE_AT(verdict, name, BIG(n), __VA_ARGS__)
#define CASE_AT(verdict, name, address, ...) do { __VA_ARGS__; is(verdict, name, address); } while (0)

ALWAYS void store(word *slot, word entry) { *(volatile word *)slot = entry; }
ALWAYS void read(uintptr_t address) { (void)*(volatile uint8_t *)address; }
ALWAYS void read_wide(uintptr_t address) { (void)*(volatile uint32_t *)address; }
ALWAYS void write(uintptr_t address) { *(volatile uint8_t *)address = 7; }
ALWAYS void call(uintptr_t address) { ((void (*)(void))(address + 0x800))(); }

/* ---- the other processor ---- */

enum order { NOT_THERE, READS, FLUSHES, DONE };
static volatile enum order order;

__attribute__((unused)) static void obey(void)
{
	order = DONE;
	for (;;) {
		if (order == READS)
			read(HERE);
		else if (order == FLUSHES)
			flush_page(HERE);
		else
			continue;
		order = DONE;
	}
}

static void wait_for_other(void)
{
	while (order != DONE)
		asm volatile("" ::: "memory");
}

static void have_other(enum order what)
{
	order = what;
	wait_for_other();
}
#endif
