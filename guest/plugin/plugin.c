/*
 * The callbacks: which instructions, accesses and blocks are looked at.
 *
 * An instruction that flushes ends its block.  What it did is taken over at the next block's begin on that processor:
 * QEMU has done it by then, and the registers are in memory.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "block.h"
#include "shadow.h"

#define EXPORT __attribute__((visibility("default")))

struct block { u64 pc, last; const u8 *host; };	/* its first address, its last, and where the first byte stands */

static bool registers_checked;

/* ---- what belongs to translated code, as long as QEMU keeps that ---- */

struct piece { struct piece *next; u64 content[]; };
static struct piece *pieces;

static void *piece_of(size_t size)
{
	struct piece *piece = malloc(sizeof *piece + size);
	lock();
	piece->next = pieces;
	pieces = piece;
	unlock();
	return piece->content;
}

/* QEMU has dropped all that it translated; no processor runs meanwhile. */
static void on_flush(void)
{
	while (pieces) {
		struct piece *next = pieces->next;
		free(pieces);
		pieces = next;
	}
}

/* ---- instructions that flush ---- */

static void take_over(struct processor *p)
{
	p->pending = false;
	settle(p);
}

/* Before it is executed. */
static void on_special(unsigned cpu, void *data)
{
	struct processor *p = processors[cpu];
	if (!p || p->modes[FETCH] == USER)
		return;
	if (p->pending)
		take_over(p);
	p->special = *(const struct special *)data;
	p->pending = true;
	note_special(p, &p->special);
	if (!registers_checked && is_checked_at(p)) {
		const char *wrong = check_registers(p->state);
		registers_checked = true;
		if (wrong)
			refuse(wrong);
	}
}

/* Before the instruction that comes next in the same block. */
static void on_next(unsigned cpu, void *data)
{
	struct processor *p = processors[cpu];
	(void)data;
	if (p && p->pending)
		take_over(p);
}

/* ---- blocks ---- */

static struct processor *start(unsigned cpu)
{
	struct processor *p = calloc(1, sizeof *p);
	p->state = processor_state(cpu);
	p->number = cpu;
	p->stamp = p->generation = p->global_generation = p->structure_generation = 1;
	p->spaces = calloc(SPACES, sizeof *p->spaces);
	set_modes(p, BARE, BARE);
	start_state(p);
	lock();
	processors[cpu] = p;
	report->totals.processors++;
	unlock();
	return p;
}

enum { MOST_ASTRAY = 16, CHECKED_OF = 64 };

/* Whether the walk of what is executed leads to where QEMU executes it: so the registers, the walk and RAM are right. */
static void check(struct processor *p, u64 pc, const struct block *block)
{
	static unsigned astray;
	u64 physical = physical_at(p, pc);
	if (!block->host || physical < LOW_MEMORY || physical == UNKNOWN)
		return;
	lock();
	const u8 *page = host_page(physical & -PAGE);
	unlock();
	if (page + physical % PAGE != block->host) {
		if (!p->checked || ++astray > MOST_ASTRAY)
			refuse("the walk of what is executed does not lead to where QEMU executes it");
	} else if (!p->checked && !tells_stale(p, pc)) {
		refuse("a walk with another frame is not found to be stale");
	} else if (report->totals.state == STARTED) {
		report->totals.state = WATCHING;
	}
	p->checked = true;
}

static inline bool is_recent(const struct processor *p, enum access access, u64 address)
{
	const struct recent *recent = &p->recent[access][address / PAGE % RECENT];
	return recent->page == address / PAGE && recent->stamp == p->stamp;
}

/* A block serves all addresses of its page where QEMU has CF_PCREL, as the versions have that read registers. */
static inline u64 begin_of(const struct processor *p, const struct block *block)
{
	return interface < WITH_REGISTERS ? block->pc : program_counter(p);
}

/* What is to be looked at when a block begins, in the order in which it happened. */
static __attribute__((noinline)) void begin_block(struct processor *p, const struct block *block)
{
	if (p->pending)
		take_over(p);
	u64 pc = begin_of(p, block), last = block->last + p->offset;
	note_state(p, pc);
	if (planted(NO_FETCH))
		return;
	if (!is_recent(p, FETCH, pc)) {
		look(p, pc, FETCH, pc);
		if (p->modes[FETCH] != BARE && is_recent(p, FETCH, pc) && (!p->checked || !(p->blocks % CHECKED_OF)))
			check(p, pc, block);
	}
	if ((pc ^ last) / PAGE && !is_recent(p, FETCH, last) && !planted(NO_SECOND_FETCH))
		look(p, last, FETCH, pc);
}

static __attribute__((noinline)) void first_block(unsigned cpu, const struct block *block)
{
	if (cpu >= MOST_PROCESSORS)
		return;
	struct processor *p = start(cpu);
	begin_block(p, block);
}

/* Most blocks are as those before: each is called for, and so what is rare stands apart. */
static void on_block(unsigned cpu, void *data)
{
	struct processor *p = processors[cpu];
	const struct block *block = data;
	if (__builtin_expect(!p, 0)) {
		first_block(cpu, block);
		return;
	}
	u64 pc = begin_of(p, block);
	p->blocks++;
	p->offset = pc - block->pc;
	bool usual = !p->pending && is_as_before(p, pc) && is_recent(p, FETCH, pc) &&
		     is_recent(p, FETCH, block->last + p->offset);
	if (__builtin_expect(!usual, 0))
		begin_block(p, block);
}

/* ---- accesses ---- */

static void reach(struct processor *p, u64 address, unsigned size, enum access access, u64 pc)
{
	struct recent *recent = &p->recent[access][address / PAGE % RECENT];
	if (__builtin_expect(recent->page != address / PAGE || recent->stamp != p->stamp, 0)) {
		look(p, address, access, pc);
		if (access != WRITE)
			return;
		bool known = recent->page == address / PAGE && (recent->stamp == p->stamp || planted(OLD_PLACE));
		if (!known) {	/* a stale use: the store may have gone to either frame */
			stored_anywhere(p, address, size, pc);
			return;
		}
	}
	if (access == WRITE && __builtin_expect(recent->frame->watch, 0))
		stored(p, recent->frame, recent->physical | address % PAGE, size, pc);
}

enum { WIDEST = 64 };	/* bytes of an access */

/* What QEMU has a function for, which would be called at each access of 7.2: it is where the answers are compared. */
static inline bool is_store(u32 info) { return info >> 17 & 1; }

static __attribute__((noinline)) void accessed(struct processor *p, u32 info, u64 address, u64 pc, enum access access)
{
	unsigned size = 1u << qemu_plugin_mem_size_shift(info), first = PAGE - address % PAGE;
	pc += p->offset;
	if (is_store(info) != qemu_plugin_mem_is_store(info))
		refuse("QEMU says of an access otherwise than is known here whether it is a store");
	if (size <= first) {
		reach(p, address, size, access, pc);
		return;
	}
	reach(p, address, first, access, pc);
	if (!planted(NO_SECOND_PAGE))
		reach(p, address + first, size - first, access, pc);
}

static inline void on_access(unsigned cpu, u32 info, u64 address, u64 pc, enum access access)
{
	struct processor *p = processors[cpu];
	if (__builtin_expect(!p, 0))
		return;
	const struct recent *recent = &p->recent[access][address / PAGE % RECENT];
	bool usual = recent->page == address / PAGE && recent->stamp == p->stamp && address % PAGE <= PAGE - WIDEST &&
		     (access == READ || !recent->frame->watch);
	if (__builtin_expect(!usual, 0))
		accessed(p, info, address, pc, access);
}

static void on_load(unsigned cpu, u32 info, u64 address, void *pc) { on_access(cpu, info, address, (u64)pc, READ); }
static void on_store(unsigned cpu, u32 info, u64 address, void *pc) { on_access(cpu, info, address, (u64)pc, WRITE); }
static void on_either(unsigned cpu, u32 info, u64 address, void *pc)
{
	on_access(cpu, info, address, (u64)pc, is_store(info) ? WRITE : READ);
}

/* ---- translation ---- */

static void on_translation(void *translated)
{
	size_t count = qemu_plugin_tb_n_insns(translated);
	struct block *block = piece_of(sizeof *block);
	bool flushes = false;
	for (size_t i = 0; i < count; i++) {
		void *insn = qemu_plugin_tb_get_insn(translated, i);
		u64 pc = qemu_plugin_insn_vaddr(insn);
		struct special found = { .pc = pc };
		if (!i)
			*block = (struct block){ .pc = pc, .host = qemu_plugin_insn_haddr(insn) };
		found.length = instruction_bytes(insn, found.bytes, sizeof found.bytes);
		block->last = pc + found.length - 1;
		found.what = what_is(found.bytes);
		if (flushes)	/* not each ends its block */
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_next, WITHOUT_REGISTERS, NULL);
		flushes = found.what != NOTHING;
		if (flushes) {
			struct special *special = piece_of(sizeof *special);
			*special = found;
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_special, READS_REGISTERS, special);
		}
		if (interface >= WITH_REGISTERS) {
			qemu_plugin_register_vcpu_mem_cb(insn, on_load, WITHOUT_REGISTERS, LOADS, (void *)pc);
			qemu_plugin_register_vcpu_mem_cb(insn, on_store, WITHOUT_REGISTERS, STORES, (void *)pc);
		} else {	/* 7.2 calls those of loads for stores too */
			qemu_plugin_register_vcpu_mem_cb(insn, on_either, WITHOUT_REGISTERS, BOTH, (void *)pc);
		}
	}
	qemu_plugin_register_vcpu_tb_exec_cb(translated, on_block, WITHOUT_REGISTERS, block);
}

/* ---- the start ---- */

static u64 argument(int argc, char **argv, const char *name)
{
	size_t length = strlen(name);
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], name, length) && argv[i][length] == '=')
			return strtoull(argv[i] + length + 1, NULL, 0);
	return 0;
}

static bool share_report(int file)
{
	if (ftruncate(file, sizeof *report))
		return false;
	report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (report == MAP_FAILED)
		return false;
	memcpy(report->names, ALL_NAMES, sizeof ALL_NAMES);
	report->magic = MAGIC;
	return true;
}

EXPORT int qemu_plugin_install(u64 id, const struct qemu_info *info, int argc, char **argv)
{
	interface = info->version.cur;
	deadline = argument(argc, argv, "deadline");
	if (!share_report(argument(argc, argv, "report")))
		return 1;
	report->totals.interface = interface;
#ifdef PLANTS
	plant = argument(argc, argv, "plant");
#endif
	const char *wrong = find_insides();
	if (!wrong)
		qemu_release(&report->totals.major, &report->totals.minor, &report->totals.micro);
	if (!info->system_emulation || !strstr(TARGETS, info->target))
		wrong = "this QEMU is not " PROGRAM;
	else if (!is_known(interface))
		wrong = "it is known with QEMU 7.2 to 8.2 and 9.1 to 11.1, whose plugin interface is another one than this QEMU's";
	else if (info->max_vcpus > MOST_PROCESSORS)
		wrong = "its machine may have more than 64 processors";
	if (wrong) {
		refuse(wrong);
		return 1;
	}
	register_callbacks(id, on_translation, on_flush);
	return 0;
}
