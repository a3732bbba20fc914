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
#include "shadow.h"

#define EXPORT __attribute__((visibility("default")))
#define WATCHED (HF_CPL | HF_PE | HF_LMA | HF_SMM | HF_GUEST)

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

static void refuse(const char *sentence)
{
	snprintf(report->sentence, SENTENCE, "%s", sentence);
	report->totals.state = REFUSED;
}

/* ---- INVLPG's operand ---- */

static const u8 *skip_prefixes(const u8 *byte, int *segment, bool *address_size)
{
	for (;; byte++)
		switch (*byte) {
		case 0x26: *segment = ES; break;
		case 0x2e: *segment = CS; break;
		case 0x36: *segment = SS; break;
		case 0x3e: *segment = DS; break;
		case 0x64: *segment = FS; break;
		case 0x65: *segment = GS; break;
		case 0x67: *address_size = true; break;
		case 0x66: case 0xf0: case 0xf2: case 0xf3: break;
		default: return byte;
		}
}

static int segment_of(int named, int base_register)
{
	return named >= 0 ? named : base_register == 4 || base_register == 5 ? SS : DS;
}

static u64 operand16(const u8 *state, const u8 *modrm, int named)
{
	static const int first[] = { 3, 3, 5, 5, 6, 7, 5, 3 }, second[] = { 6, 7, 6, 7, -1, -1, -1, -1 };
	int mod = *modrm >> 6, rm = *modrm & 7;
	int16_t offset = 0;
	bool absolute = mod == 0 && rm == 6;
	if (mod == 1)
		offset = (int8_t)modrm[1];
	else if (mod == 2 || absolute)
		memcpy(&offset, modrm + 1, 2);
	u64 sum = offset;
	if (!absolute)
		sum += gpr(state, first[rm]) + (second[rm] < 0 ? 0 : gpr(state, second[rm]));
	return (sum & 0xffff) + base(state, segment_of(named, absolute ? 3 : first[rm]));
}

/* The linear address of the memory operand of an instruction whose opcode has two bytes (volume 2A, 2.1.5). */
static u64 operand(const u8 *state, const struct special *special, u64 next)
{
	u32 flags = flags_of(state);
	bool long_mode = flags & HF_CS64, short_address = false;
	int named = -1, rex = 0, base_register = -1;
	const u8 *byte = skip_prefixes(special->bytes, &named, &short_address);
	if (long_mode && (*byte & 0xf0) == 0x40)
		rex = *byte++;
	const u8 *modrm = byte + 2;
	if (!long_mode && !!(flags & HF_CS32) == short_address)
		return operand16(state, modrm, named);
	int mod = *modrm >> 6, rm = *modrm & 7;
	const u8 *rest = modrm + 1;
	u64 sum = 0;
	int32_t offset = 0;
	bool wide = mod == 2;
	if (rm == 4) {
		int index = (*rest >> 3 & 7) | (rex & 2) << 2, scale = *rest >> 6;
		base_register = *rest++ & 7;
		if (index != 4)
			sum += gpr(state, index) << scale;
		if (mod == 0 && base_register == 5)
			wide = true, base_register = -1;
	} else if (mod == 0 && rm == 5) {
		wide = true;
		sum = long_mode ? next : 0;
	} else {
		base_register = rm;
	}
	if (base_register >= 0)
		sum += gpr(state, base_register | (rex & 1) << 3);
	if (mod == 1)
		offset = (int8_t)*rest;
	else if (wide)
		memcpy(&offset, rest, 4);
	sum += offset;
	if (!long_mode || short_address)
		sum = (u32)sum;
	int segment = segment_of(named, rex & 1 ? -1 : base_register);
	if (planted(INVLPG_WITHOUT_SEGMENT) || (long_mode && segment != FS && segment != GS))
		return sum;
	sum += base(state, segment);
	return long_mode ? sum : (u32)sum;
}

/* ---- instructions ---- */

static enum what moves_to(int control_register)
{
	switch (control_register) {
	case 2: return MOVES_CR2;
	case 3: return MOVES_CR3;
	case 8: return NOTHING;
	default: return MOVES_CONTROL;
	}
}

/* In 32-bit code 0x40 to 0x4f are instructions of one byte, so that nothing is mistaken. */
static enum what what_is(const u8 *byte)
{
	int segment = -1;
	bool address_size = false;
	byte = skip_prefixes(byte, &segment, &address_size);
	bool rex_r = (*byte & 0xf4) == 0x44;
	if ((*byte & 0xf0) == 0x40)
		byte++;
	if (byte[0] != 0x0f)
		return NOTHING;
	if (byte[1] == 0x22)
		return moves_to((byte[2] >> 3 & 7) | rex_r << 3);
	if (byte[1] == 0x01 && byte[2] < 0xc0)
		return (byte[2] >> 3 & 7) == 7 ? INVALIDATES_PAGE : (byte[2] >> 3 & 7) == 6 ? MOVES_CONTROL : NOTHING;
	if (byte[1] == 0x38 && byte[2] == 0x82)
		return INVALIDATES_PCID;
	return NOTHING;
}

/* Before it is executed.  Up to 7.2 registers may be QEMU's own here, and are read when the block has ended. */
static void on_special(unsigned cpu, void *data)
{
	struct processor *p = processors[cpu];
	const struct special *special = data;
	if (!p || p->user)
		return;
	p->special = *special;
	p->pending = true;
	if (special->what == INVALIDATES_PAGE && interface >= WITH_REGISTERS)
		p->operand = operand(p->state, special, special->pc + p->offset + special->length);
	if (p->paging && !registers_checked && flags_of(p->state) & HF_CS64) {
		const char *wrong = check_registers(p->state);
		registers_checked = true;
		if (wrong)
			refuse(wrong);
	}
}

static void settle(struct processor *p)
{
	const struct special *special = &p->special;
	p->pending = false;
	if (special->what == INVALIDATES_PAGE) {
		if (interface < WITH_REGISTERS)
			p->operand = operand(p->state, special, special->pc + special->length);
		lock();
		drop_page(p, p->operand);
		unlock();
	} else if (special->what == INVALIDATES_PCID) {
		lock();		/* TCG has none: should it have one some day, this is at least nothing false */
		drop_all(p, true, CONTROL);
		unlock();
	} else if (special->what == MOVES_CR2) {
		if (!planted(MOV_CR2_FAULTS))	/* no page fault, which is told by its change */
			p->cr2 = load(p->state, CR2);
	} else {
		note_control(p, special->what == MOVES_CR3);
	}
}

/* ---- blocks ---- */

static struct processor *start(unsigned cpu)
{
	struct processor *p = calloc(1, sizeof *p);
	p->state = processor_state(cpu);
	p->number = cpu;
	p->stamp = p->generation = p->global_generation = p->structure_generation = 1;
	p->recent = p->kernel;
	p->cr2 = load(p->state, CR2);
	lock();
	processors[cpu] = p;
	report->totals.processors++;
	unlock();
	return p;
}

static void note_mode(struct processor *p, u32 flags)
{
	u32 turned = flags ^ p->flags;
	p->flags = flags;
	p->user = (flags & HF_CPL) == 3;
	p->recent = p->user ? p->users : p->kernel;
	if (turned & (HF_PE | HF_LMA | HF_SMM | HF_GUEST))
		note_control(p, false);
	if (p->user && p->paging)
		note_user(p);
}

enum { LOW_MEMORY = 1 << 20, MOST_ASTRAY = 16, CHECKED_OF = 64 };

/* Whether the walk of what is executed leads to where QEMU executes it: so RIP, CR3, the walk and RAM are right. */
static void check(struct processor *p, u64 pc, const struct block *block)
{
	static unsigned astray;
	u64 physical = physical_at(p, pc);
	if (!block->host || physical < LOW_MEMORY || physical == UNKNOWN)	/* what is below moves on a PC */
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
static inline u64 begin_of(const struct processor *p, const struct block *block, u32 flags)
{
	if (interface < WITH_REGISTERS)
		return block->pc;
	return load(p->state, EIP) + (flags & HF_CS64 ? 0 : base(p->state, CS));
}

/* What is to be looked at when a block begins, in the order in which it happened. */
static __attribute__((noinline)) void begin_block(struct processor *p, const struct block *block)
{
	if (p->pending)
		settle(p);
	u32 flags = flags_of(p->state);
	if ((flags ^ p->flags) & WATCHED)
		note_mode(p, flags);
	if (load(p->state, CR3) != p->cr3)
		note_control(p, false);
	u64 pc = begin_of(p, block, flags), last = block->last + p->offset;
	if (load(p->state, CR2) != p->cr2 || (pc == p->handler && !planted(SAME_FAULT_IGNORED)))
		note_fault(p, pc);
	if (planted(NO_FETCH))
		return;
	if (!is_recent(p, FETCH, pc)) {
		look(p, pc, FETCH, pc);
		if (p->paging && is_recent(p, FETCH, pc) && (!p->checked || !(p->blocks % CHECKED_OF)))
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
	u32 flags = flags_of(p->state);
	u64 pc = begin_of(p, block, flags);
	p->blocks++;
	p->offset = pc - block->pc;
	bool usual = !p->pending && !((flags ^ p->flags) & WATCHED) && load(p->state, CR3) == p->cr3 &&
		     load(p->state, CR2) == p->cr2 && pc != p->handler && is_recent(p, FETCH, pc) &&
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
	for (size_t i = 0; i < count; i++) {
		void *insn = qemu_plugin_tb_get_insn(translated, i);
		u64 pc = qemu_plugin_insn_vaddr(insn);
		struct special found = { .pc = pc };
		if (!i)
			*block = (struct block){ .pc = pc, .host = qemu_plugin_insn_haddr(insn) };
		found.length = instruction_bytes(insn, found.bytes, sizeof found.bytes);
		block->last = pc + found.length - 1;
		found.what = what_is(found.bytes);
		if (found.what != NOTHING) {
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
	if (!info->system_emulation || strcmp(info->target, "x86_64"))
		wrong = "this QEMU is not qemu-system-x86_64";
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
