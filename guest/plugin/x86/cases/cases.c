/*
 * Changes of tables with and without the flush that they need, one after the other.
 *
 * Each case has a page of its own and prints what the manual makes of it (Intel SDM, volume 3A, 4.10), as
 *
 *	case NAME ADDRESS legal|stale|late|denied
 *
 * legal   no use of the page is a stale one
 * stale   a use may have gone by what was cached, and a later flush could still have excused it
 * late    the same after this processor has been in user mode since the change
 * denied  an access faults that might have passed by what was cached
 *
 * MODE is 2 (32-bit), 3 (PAE), or 4 or 5 levels.  The command line says what runs: all cases, "2" with those for two
 * processors; "legal" some that are; "high", "many", "unlisted", "forgotten" and "reset" what their functions say.
 */
#include <stdbool.h>
#include <stdint.h>

#if MODE == 2
typedef uint32_t word;
enum { INDEX = 10 };
#else
typedef uint64_t word;
enum { INDEX = 9 };
#endif
enum { SLOTS = 1 << INDEX };
#if MODE >= 4
#define BASE 0x400000000000ull
#else
#define BASE 0x80000000ul
#endif
#define LARGE ((uintptr_t)PAGE << INDEX)

static void out8(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" :: "a"(value), "d"(port)); }
static void put(char letter) { out8(0x3f8, letter); }
static inline void flush_page(uintptr_t address) { asm volatile("invlpg (%0)" :: "r"(address) : "memory"); }
#include "cases.h"

enum { P = 1, W = 2, U = 4, A = 1 << 5, D = 1 << 6, PS = 1 << 7, G = 1 << 8 };
#if MODE > 2
#define NX (1ull << 63)
#endif
enum { WP = 1 << 16, NW = 1 << 29, CD = 1 << 30 };
enum { TSD = 1 << 2, PSE = 1 << 4, PGE = 1 << 7 };

extern word top[], upper[], pointers[], directory[];
extern uintptr_t recover, idt[];
extern uint64_t gdt[];
extern uint8_t other_begin[], other_end[];
void go_to_user(void);	/* and back */
void paging_off_and_on(void);
extern uintptr_t read_by_user;	/* what it reads there, unless 0 */
void on_page_fault(void);
void on_return(void);

#if MODE > 2
static ALIGNED word table2[512];
#endif
#if MODE >= 4
static ALIGNED word table3[512];
#endif

/* ---- the machine ---- */

ALWAYS void invlpg(uintptr_t address) { asm volatile("invlpg (%0)" :: "r"(address) : "memory"); }
ALWAYS void set_cr2(uintptr_t value) { asm volatile("mov %0, %%cr2" :: "r"(value) : "memory"); }
ALWAYS uintptr_t cr3(void) { uintptr_t value; asm volatile("mov %%cr3, %0" : "=r"(value)); return value; }
ALWAYS void set_cr3(uintptr_t value) { asm volatile("mov %0, %%cr3" :: "r"(value) : "memory"); }
ALWAYS uintptr_t cr4(void) { uintptr_t value; asm volatile("mov %%cr4, %0" : "=r"(value)); return value; }
ALWAYS void set_cr4(uintptr_t value) { asm volatile("mov %0, %%cr4" :: "r"(value) : "memory"); }
ALWAYS uintptr_t cr0(void) { uintptr_t value; asm volatile("mov %%cr0, %0" : "=r"(value)); return value; }
ALWAYS void set_cr0(uintptr_t value) { asm volatile("mov %0, %%cr0" :: "r"(value) : "memory"); }

/* An access that may fault. */
#if MODE >= 4
#define TO_RECOVER "lea 1f(%%rip), %%rax; mov %%rax, recover(%%rip); "
#define CLOBBERED "rax"
#else
#define TO_RECOVER "movl $1f, recover; "
#define CLOBBERED "eax"
#endif
ALWAYS void try_read(uintptr_t address)
{
	asm volatile(TO_RECOVER "cmpb $0, (%0); 1:" :: "r"(address) : CLOBBERED, "memory", "cc");
}
ALWAYS void try_write(uintptr_t address)
{
	asm volatile(TO_RECOVER "movb $7, (%0); 1:" :: "r"(address) : CLOBBERED, "memory");
}

/* User mode reads, or faults; `go_to_user` comes back in both cases. */
static void user_reads(uintptr_t address)
{
	extern char after_user_read[];
	recover = (uintptr_t)after_user_read;
	read_by_user = address;
	go_to_user();
	read_by_user = 0;
}

#if MODE >= 4
static void set_fs(uintptr_t base)
{
	asm volatile("wrmsr" :: "a"((uint32_t)base), "d"((uint32_t)(base >> 32)), "c"(0xc0000100));
}
#endif

static uint64_t segment_at(uintptr_t base, uint64_t type)
{
	return 103ull | (base & 0xffffffull) << 16 | type << 40 | (uint64_t)(base >> 24 & 0xff) << 56;
}

#if MODE < 4
static void set_fs(uintptr_t base)
{
	gdt[7] = segment_at(base, 0x93) | 0x00c0ull << 48;
	asm volatile("mov %w0, %%fs" :: "r"(0x38) : "memory");
}
#endif

static void gate(int vector, void (*handler)(void))
{
	uintptr_t where = (uintptr_t)handler;
	uint32_t *words = (uint32_t *)idt + vector * (sizeof(void *) / 2);
	words[0] = 8 << 16 | (where & 0xffff);
	words[1] = (where & 0xffff0000) | 0xee00;	/* a gate that user mode may use */
}

static uint32_t task[32];

static void make_gates(void)
{
	uintptr_t where = (uintptr_t)task;
	extern char idt_register[];
	static uint8_t interrupt_stack[4096];
#if MODE >= 4
	*(uint64_t *)&task[1] = (uintptr_t)interrupt_stack + sizeof interrupt_stack;
#else
	task[1] = (uintptr_t)interrupt_stack + sizeof interrupt_stack;
	task[2] = 0x10;
#endif
	gdt[8] = segment_at(where, 0x89);
	gate(14, on_page_fault);
	gate(0x80, on_return);
	asm volatile("lidt (%0)" :: "r"(idt_register));
	asm volatile("ltr %w0" :: "r"(0x40));
}

/* The first letter of the command line, to which a pointer is in what PVH starts with. */
extern uint32_t start_info;
static char wanted(void)
{
	enum { COMMAND_LINE = 24 };
	const char *text = (const char *)(uintptr_t)*(uint32_t *)(uintptr_t)(start_info + COMMAND_LINE);
	return text ? *text : 0;
}

/* ---- cases ---- */

#define FRAME(n) ((uintptr_t)frames[n])
ALWAYS void map(word frame, word rights) { store(&tables[0][next], frame | rights); }
ALWAYS void map0(word rights) { map(FRAME(0), rights); }
ALWAYS void map1(word rights) { map(FRAME(1), rights); }

/* QEMU's fw_cfg writes its signature, which is a present entry for a frame elsewhere (docs/specs/fw_cfg.rst). */
static void write_by_device(void *place)
{
	enum { SELECT = 8, READ = 2, LENGTH = 4 };
	static volatile uint32_t command[4];
	command[0] = __builtin_bswap32(SELECT | READ);
	command[1] = __builtin_bswap32(LENGTH);
	command[3] = __builtin_bswap32((uintptr_t)place);
	asm volatile("outl %0, %w1" :: "a"(0), "d"(0x514) : "memory");
	asm volatile("outl %0, %w1" :: "a"(__builtin_bswap32((uintptr_t)command)), "d"(0x518) : "memory");
}

static void unmaps(void)
{
	CASE("stale", "unmap", map0(P | W); read(HERE); map(0, 0); try_read(HERE));
	CASE("late", "unmap-user", map0(P | W); read(HERE); map(0, 0); go_to_user(); try_read(HERE));
	CASE("legal", "unmap-invlpg", map0(P | W); read(HERE); map(0, 0); invlpg(HERE); try_read(HERE); map1(P | W); read(HERE));
	CASE("legal", "absent-to-present", map(0, 0); try_read(HERE); map0(P | W); read(HERE));
	CASE("legal", "unmap-unused", map0(P | W); read(HERE); map(0, 0); go_to_user());
	CASE("legal", "unmap-and-map-again", map0(P | W); read(HERE); map(0, 0); map0(P | W); read(HERE));
	CASE("legal", "fault-drops", map0(P); read(HERE); map1(P); try_write(HERE); read(HERE));
	CASE("legal", "fault-drops-again", map(0, 0); try_read(HERE); map0(P); read(HERE); map1(P); try_write(HERE); read(HERE));
}

static void moves(void)
{
	CASE("stale", "move", map0(P | W); read(HERE); map1(P | W); read(HERE));
	CASE("late", "move-user", map0(P | W); read(HERE); map1(P | W); go_to_user(); read(HERE));
	CASE("stale", "move-flushed-later", map0(P | W); read(HERE); map1(P | W); read(HERE); invlpg(HERE); go_to_user();
	     read(HERE));
	CASE("legal", "move-invlpg", map0(P | W); read(HERE); map1(P | W); invlpg(HERE); go_to_user(); read(HERE));
	/* Without an author, so never late. */
	CASE("stale", "moved-by-device", map0(P | W); write(HERE); write_by_device(&tables[0][next]); invlpg(HERE + PAGE);
	     go_to_user(); try_write(HERE));
	CASE("legal", "move-cr3", map0(P | W); read(HERE); map1(P | W); set_cr3(cr3()); read(HERE));
	CASE("stale", "move-wp-and-tsd", map0(P | W); read(HERE); map1(P | W); set_cr0(cr0() & ~(uintptr_t)WP); set_cr0(cr0() | WP);
	     set_cr4(cr4() | TSD); set_cr4(cr4() & ~(uintptr_t)TSD); read(HERE));
	CASE("stale", "move-and-back-used", map0(P | W); read(HERE); map1(P | W); read(HERE); map0(P | W); read(HERE));
	CASE("legal", "move-and-back", map0(P | W); read(HERE); map1(P | W); map0(P | W); read(HERE));
	CASE("stale", "move-write", map0(P | W); write(HERE); map1(P | W); write(HERE));
	CASE("legal", "move-write-clean", map0(P | W); read(HERE); map1(P | W); write(HERE));
	CASE("stale", "move-invlpg-neighbour", map0(P | W); read(HERE); map1(P | W); invlpg(HERE + PAGE); read(HERE));
	CASE("stale", "across", map0(P | W); write(HERE); next++; map0(P | W); write(HERE); map1(P | W); read_wide(HERE - 2));
	CASE("legal", "not-across", map0(P | W); write(HERE); next++; map0(P | W); write(HERE); map1(P | W); read_wide(HERE - 4));
}

static void rights(void)
{
	CASE("stale", "read-only", map0(P | W); write(HERE); map0(P); try_write(HERE));
	CASE("late", "read-only-user", map0(P | W); write(HERE); map0(P); go_to_user(); try_write(HERE));
	CASE("legal", "read-only-invlpg", map0(P | W); write(HERE); map0(P); invlpg(HERE); try_write(HERE));
	CASE("legal", "read-only-then-read", map0(P | W); write(HERE); map0(P); read(HERE));
	CASE("stale", "read-only-read-write", map0(P | W); write(HERE); map0(P); read(HERE); try_write(HERE));
	CASE("late", "user-denied-after-read", map0(P | W | U); user_reads(HERE); map0(P | W); read(HERE); user_reads(HERE));
	CASE("legal", "read-only-without-wp", set_cr0(cr0() & ~(uintptr_t)WP); map0(P | W); write(HERE); map0(P); write(HERE);
	     set_cr0(cr0() | WP));
	CASE("legal", "widen-write", map0(P); read(HERE); map0(P | W); write(HERE));
	/* A processor may have cached each of the three. */
	CASE("denied", "widen-and-narrow", map0(P | D); read(HERE); map0(P | W | D); invlpg(HERE + PAGE); read(HERE);
	     map0(P | D); try_write(HERE));
	CASE("legal", "move-and-widen", map0(P | U | D); read(HERE); map1(P | W); write(HERE); read(HERE));
	CASE("legal", "accessed-and-dirty", map0(P | W); write(HERE); map0(P | W); write(HERE); read(HERE));
	CASE("legal", "set-user", map0(P); read(HERE); map0(P | U); read(HERE));
	CASE("legal", "clear-user", map0(P | U); read(HERE); map0(P); read(HERE));
	CASE("late", "user-denied", map0(P | W | U); user_reads(HERE); map0(P | W); user_reads(HERE));
	CASE("legal", "user-denied-invlpg", map0(P | W | U); user_reads(HERE); map0(P | W); invlpg(HERE); user_reads(HERE));
	CASE("legal", "available-bits", map0(P | W); write(HERE); map0(P | W | 7 << 9); write(HERE));
	CASE("legal", "code-unchanged", map0(P); call(HERE); map0(P); call(HERE));
	CASE("stale", "code-moved", map0(P); call(HERE); map1(P); call(HERE));
	frames[5][PAGE - 1] = 0xf3;	/* "rep ret" across two pages */
	frames[6][0] = frames[7][0] = 0xc3;
	CASE("stale", "code-across", map(FRAME(5), P); next++; map(FRAME(6), P); call(HERE - 1 - 0x800); map(FRAME(7), P);
	     call(HERE - 1 - 0x800));
	/* QEMU may have one block for both pages. */
	CASE("stale", "code-shared", map0(P); call(HERE); next++; map0(P); call(HERE); map1(P); call(HERE));
	CASE("legal", "code-moved-invlpg", map0(P); call(HERE); map1(P); invlpg(HERE); call(HERE));
#if MODE > 2
	CASE("stale", "code-nx", map0(P); call(HERE); map0(P | NX); call(HERE));
	CASE("stale", "code-nx-read-code", map0(P); call(HERE); map0(P | NX); read(HERE); call(HERE));
	CASE("legal", "code-nx-then-read", map0(P); call(HERE); map0(P | NX); read(HERE));
	CASE("legal", "code-nx-widened", map0(P | NX); read(HERE); map0(P); call(HERE));
#endif
}

static void globals(void)
{
	CASE("stale", "global-cr3", map0(P | W | G); read(HERE); map1(P | W | G); set_cr3(cr3()); read(HERE));
	CASE("late", "global-cr3-user", map0(P | W | G); read(HERE); map1(P | W | G); set_cr3(cr3()); go_to_user(); read(HERE));
	CASE("legal", "global-invlpg", map0(P | W | G); read(HERE); map1(P | W | G); invlpg(HERE); read(HERE));
	CASE("legal", "global-pge", map0(P | W | G); read(HERE); map1(P | W | G); set_cr4(cr4() & ~(uintptr_t)PGE);
	     set_cr4(cr4() | PGE); read(HERE));
	CASE("legal", "global-without-pge", set_cr4(cr4() & ~(uintptr_t)PGE); map0(P | W | G); read(HERE); map1(P | W | G);
	     set_cr3(cr3()); read(HERE); set_cr4(cr4() | PGE));
	CASE("legal", "paging-off", map0(P | W | G); read(HERE); map1(P | W | G); paging_off_and_on(); read(HERE));
}

/* A global page is cached under every root. */
static void other_root(void)
{
	static ALIGNED word second[SLOTS];
	word *first = MODE == 2 ? directory : MODE == 3 ? pointers : MODE == 4 ? upper : top;
	for (int i = 0; i < (MODE == 3 ? 4 : SLOTS); i++)
		second[i] = first[i];
	CASE("late", "global-other-root", map0(P | W | G); read(HERE); map1(P | W | G); go_to_user(); set_cr3((uintptr_t)second);
	     read(HERE); set_cr3((uintptr_t)first));
}

/* Who goes back to user mode: the author of the change, under the other root of a pair, or another thread. */
static void authors(void)
{
	static __attribute__((aligned(2 * PAGE))) word pair[2][PAGE / sizeof(word)];
	uintptr_t first = cr3();
	for (unsigned i = 0; i < PAGE / sizeof(word); i++)
		pair[0][i] = pair[1][i] = ((word *)first)[i];
	CASE("late", "move-user-paired-root", set_cr3((uintptr_t)pair[0]); map0(P | W | G); read(HERE); map1(P | W | G);
	     set_cr3((uintptr_t)pair[1]); go_to_user(); set_cr3((uintptr_t)pair[0]); read(HERE); set_cr3(first));
#if MODE >= 4
	CASE("stale", "move-other-thread", map0(P | W); read(HERE); map1(P | W); set_fs(PAGE); go_to_user(); set_fs(0); read(HERE));
#endif
}

/* As many stores into a table as it is followed for, and one more, after which a change has no author. */
static void store_often(int times)
{
	while (times--)
		*(volatile uint32_t *)&tables[0][next + 1] = 0;
}

static void stores(void)
{
	CASE("late", "read-only-after-4096-stores", map0(P | W); write(HERE); store_often(4096); map0(P); go_to_user();
	     try_write(HERE));
	CASE("stale", "read-only-after-4097-stores", map0(P | W); write(HERE); store_often(4097); map0(P); go_to_user();
	     try_write(HERE));
}

/* A store by a stale page may have gone to either frame, of which one is a table. */
static void window(void)
{
	word *table = tables[4];
	store(&table[1], FRAME(0) | P | W);
	store(&above[29], (uintptr_t)table | P | W | U);
	CASE("stale", "window", map0(P | W | G); write(HERE); map((uintptr_t)table, P | W | G); set_cr3(cr3());
	     read(BIG(29) + PAGE); store((word *)HERE + 1, FRAME(1) | P | W));
	CASE_AT("late", "changed-by-window", BIG(29) + PAGE, go_to_user(); read(BIG(29) + PAGE));
}

/* MOV to CR2 is no page fault. */
static void faulting_addresses(void)
{
	CASE("stale", "move-cr2", map0(P | W); read(HERE); map1(P | W); set_cr2(HERE); read(HERE));
	CASE("legal", "unmap-cr2", map0(P | W); read(HERE); map(0, 0);
	     asm volatile("push $0; mov %0, %%cr2; nop; pop %0" :: "r"((uintptr_t)HERE) : "memory"));
}

/* What is cached of entries above pages: the pages behind them need not have been used. */
static void structures(void)
{
	word *old = tables[1], *new = tables[2];
	for (int i = 0; i < 16; i++) {
		store(&old[i], FRAME(2) | P | W);
		store(&new[i], FRAME(3) | P | W);
	}
	word was = (uintptr_t)old | P | W | U, now = (uintptr_t)new | P | W | U;
	BIG_CASE("stale", "table-moved", 1, store(&above[1], was); read(BIG(1)); store(&above[1], now); read(BIG(1)));
	BIG_CASE("legal", "table-moved-invlpg", 2, store(&above[2], was); read(BIG(2)); store(&above[2], now); invlpg(BIG(2));
		 read(BIG(2)));
	CASE_AT("stale", "table-moved-other-page", BIG(3) + PAGE, store(&above[3], was); read(BIG(3)); store(&above[3], now);
		read(BIG(3) + PAGE));
	CASE_AT("legal", "table-moved-invlpg-other-page", BIG(4) + PAGE, store(&above[4], was); read(BIG(4));
		store(&above[4], now); invlpg(HERE); read(BIG(4) + PAGE));
	CASE_AT("legal", "table-moved-cr3-other-page", BIG(5) + PAGE, store(&above[5], was); read(BIG(5)); store(&above[5], now);
		set_cr3(cr3()); read(BIG(5) + PAGE));
	CASE_AT("late", "table-moved-user-other-page", BIG(6) + PAGE, store(&above[6], was); read(BIG(6)); store(&above[6], now);
		go_to_user(); read(BIG(6) + PAGE));
	CASE_AT("denied", "table-gone-other-page", BIG(7) + PAGE, store(&above[7], was); read(BIG(7)); store(&above[7], 0);
		try_read(BIG(7) + PAGE));
	CASE_AT("legal", "table-gone-invlpg", BIG(8) + PAGE, store(&above[8], was); read(BIG(8)); store(&above[8], 0);
		invlpg(HERE); try_read(BIG(8) + PAGE));
	CASE_AT("stale", "table-moved-write-other-page", BIG(33) + PAGE, store(&above[33], was); write(BIG(33));
		store(&above[33], now); try_write(BIG(33) + PAGE));
	/* The way by what is cached stays where the new one was used too. */
	store(&new[2], FRAME(2) | P | W);
	CASE_AT("stale", "table-moved-and-used", BIG(34) + PAGE, store(&above[34], was); read(BIG(34)); store(&above[34], now);
		read(BIG(34) + 2 * PAGE); read(BIG(34) + PAGE));
	/* What is cached withholds what the tables now give. */
	CASE_AT("legal", "table-widened-write", BIG(35) + PAGE, store(&above[35], was & ~(word)W); read(BIG(35));
		store(&above[35], now); try_write(BIG(35) + PAGE));
	store(&old[3], FRAME(2) | P | U);
	store(&new[3], FRAME(3) | P | U);
	CASE_AT("legal", "table-widened-user", BIG(36) + 3 * PAGE, store(&above[36], was & ~(word)U); read(BIG(36));
		store(&above[36], now); user_reads(BIG(36) + 3 * PAGE));
#if MODE > 2
	CASE_AT("legal", "table-widened-execute", BIG(37) + PAGE, store(&above[37], was | NX); read(BIG(37)); store(&above[37], now);
		call(BIG(37) + PAGE));
#endif
	BIG_CASE("stale", "table-read-only", 9, store(&above[9], was); write(BIG(9)); store(&above[9], was & ~(word)W);
		 try_write(BIG(9)));
	CASE_AT("legal", "table-fault-drops", BIG(10) + PAGE, store(&old[1], 0); store(&above[10], was); read(BIG(10));
		store(&above[10], now); store(&new[1], 0); try_read(BIG(10) + PAGE); store(&old[1], FRAME(2) | P | W);
		store(&new[1], FRAME(3) | P | W); read(BIG(10) + PAGE));
}

static void large(void)
{
	word leaf = P | W | PS;
	word *small = tables[3];
	for (int i = 0; i < SLOTS; i++)
		store(&small[i], (word)i * PAGE | P | W);
	CASE_AT("legal", "split-in-place", BIG(17) + 0x3000, store(&above[17], leaf); read(BIG(17) + 0x3000);
		store(&above[17], (uintptr_t)small | P | W | U); read(BIG(17) + 0x3000));
	CASE_AT("legal", "split-in-place-write", BIG(28) + 0x5000, store(&above[28], leaf); read(BIG(28) + 0x3000);
		store(&above[28], (uintptr_t)small | P | W | U); write(BIG(28) + 0x3000); read(BIG(28) + 0x5000));
	CASE_AT("stale", "large-moved", BIG(18) + 0x3000, store(&above[18], leaf); read(BIG(18) + 0x3000);
		store(&above[18], LARGE | leaf); read(BIG(18) + 0x3000));
	CASE_AT("legal", "large-moved-invlpg-in-it", BIG(19) + 0x3000, store(&above[19], leaf); read(BIG(19) + 0x3000);
		store(&above[19], LARGE | leaf); invlpg(BIG(19) + 0x9000); read(BIG(19) + 0x3000));
	CASE_AT("stale", "large-moved-other-part", BIG(20) + 0x5000, store(&above[20], leaf); read(BIG(20));
		store(&above[20], LARGE | leaf); read(BIG(20) + 0x5000));
	/* TCG drops global pages too at MOV CR3; a processor keeps them. */
	BIG_CASE("denied", "large-global-gone", 21, store(&above[21], leaf | G); read(BIG(21)); store(&above[21], 0);
		 set_cr3(cr3()); try_read(BIG(21)));
#if MODE == 2
	BIG_CASE("stale", "large-moved-by-4-gib", 31, store(&above[31], leaf); read(BIG(31)); store(&above[31], leaf | 1 << 13);
		 read(BIG(31)));
#endif
	BIG_CASE("late", "large-moved-user", 22, store(&above[22], leaf); read(BIG(22)); store(&above[22], LARGE | leaf);
		 go_to_user(); read(BIG(22)));
}

/* A large page at an address that fits an operand of 32 bits, moved and flushed. */
#define LOW ((uintptr_t)0x32000000)
#define LOW_CASE(name, ...) do { \
	uintptr_t page = LOW; \
	word *slot = &directory[LOW / LARGE]; \
	store(slot, P | W | PS); \
	invlpg(page); \
	read(page); \
	store(slot, LARGE | P | W | PS); \
	asm volatile(__VA_ARGS__); \
	read(page + PAGE * low_cases); \
	is("legal", name, page + PAGE * low_cases++); \
} while (0)
static uintptr_t low_cases;

/* INVLPG of an operand with an index and an offset, and with a segment. */
static void operands(void)
{
	CASE("legal", "invlpg-operand", map0(P | W); read(HERE); map1(P | W);
	     asm volatile("invlpg -8(%0, %1, 4)" :: "r"((uintptr_t)HERE - 32 + 8), "r"((uintptr_t)8) : "memory"); read(HERE));
	CASE("legal", "invlpg-fs", map0(P | W); read(HERE); map1(P | W); set_fs(HERE); asm volatile("invlpg %%fs:0" ::: "memory");
	     set_fs(0); read(HERE));
	LOW_CASE("invlpg-absolute", "invlpg 0x32000000" ::: "memory");
#if MODE >= 4
	LOW_CASE("invlpg-relative", ".set low, 0x32000000; invlpg low(%%rip)" ::: "memory");
	LOW_CASE("invlpg-index-alone", "invlpg -8(, %0, 2)" :: "r"((LOW + 8) / 2) : "memory");
	LOW_CASE("invlpg-r9", "mov %0, %%r9; invlpg (%%r9)" :: "r"(LOW) : "r9", "memory");
	LOW_CASE("invlpg-r12-r10", "mov %0, %%r12; mov $8, %%r10; invlpg -16(%%r12, %%r10, 2)" :: "r"(LOW) : "r12", "r10", "memory");
	LOW_CASE("invlpg-r13", "mov %0, %%r13; invlpg (%%r13)" :: "r"(LOW) : "r13", "memory");
	LOW_CASE("invlpg-short", "invlpg (%k0)" :: "r"(LOW | 1ull << 32) : "memory");
#endif
}

#if MODE > 2
/*
 * Sets SMEP and clears it, at an address where this code is no user's page; and likewise calls or reads what a store
 * then changes.
 */
extern char set_and_clear_smep[], call_and_store[], read_and_store[];
#if MODE >= 4
asm("set_and_clear_smep: mov %cr4, %rax; bts $20, %rax; mov %rax, %cr4; btr $20, %rax; mov %rax, %cr4; ret");
asm("call_and_store: mov %cr4, %rax; bts $20, %rax; mov %rax, %cr4; call *%rdi; mov %edx, (%rsi); call *%rdi;"
    "mov %cr4, %rax; btr $20, %rax; mov %rax, %cr4; ret");
asm("read_and_store: mov %cr4, %rax; bts $20, %rax; mov %rax, %cr4; cmpb $0, (%rdi); mov %edx, (%rsi);"
    "btr $20, %rax; mov %rax, %cr4; ret");
enum { SUPERVISORS = 39 };
#else
asm("set_and_clear_smep: mov %cr4, %eax; bts $20, %eax; mov %eax, %cr4; btr $20, %eax; mov %eax, %cr4; ret");
asm("call_and_store: mov %cr4, %eax; bts $20, %eax; mov %eax, %cr4; call *4(%esp); mov 8(%esp), %ecx; mov 12(%esp), %edx;"
    "mov %edx, (%ecx); call *4(%esp); mov %cr4, %eax; btr $20, %eax; mov %eax, %cr4; ret");
asm("read_and_store: mov %cr4, %eax; bts $20, %eax; mov %eax, %cr4; mov 4(%esp), %ecx; cmpb $0, (%ecx); mov 8(%esp), %ecx;"
    "mov 12(%esp), %edx; mov %edx, (%ecx); btr $20, %eax; mov %eax, %cr4; ret");
enum { SUPERVISORS = 30 };
#endif
#define FOR_SUPERVISORS(code) ((uintptr_t)(code) + ((uintptr_t)1 << SUPERVISORS))
static void toggle_smep(void) { ((void (*)(void))FOR_SUPERVISORS(set_and_clear_smep))(); }
static void with_smep(const char *what, uintptr_t used, word *slot, uint32_t entry)
{
	((void (*)(uintptr_t, word *, uint32_t))FOR_SUPERVISORS(what))(used, slot, entry);
}

static void smep(void)
{
#if MODE >= 4
	store(&upper[1], (uintptr_t)pointers | P | W);
#else
	static ALIGNED word supervisors[512];
	for (int i = 0; i < 512; i++)
		supervisors[i] = i * LARGE | P | W | PS;
	store(&pointers[1], (uintptr_t)supervisors | P);
	set_cr3(cr3());
#endif
	CASE("legal", "smep", map0(P | W); read(HERE); map1(P | W); toggle_smep(); read(HERE));
	CASE("stale", "code-given-to-user", map0(P); with_smep(call_and_store, HERE + 0x800, &tables[0][next], FRAME(0) | P | U));
	CASE("stale", "move-smep-cleared", map0(P | W); with_smep(read_and_store, HERE, &tables[0][next], FRAME(1) | P | W);
	     read(HERE));
	CASE("legal", "smep-global", map0(P | W | G); read(HERE); map1(P | W | G); toggle_smep(); read(HERE));
}
#endif

#if MODE == 2
/* The root has four PDEs that are the halves of two PDPTEs, of which one leads to `tables`, for 1 GiB and on. */
void pae_on_and_off(word *root, uintptr_t address);
static void pae(void)
{
	enum { ALIAS = 0x60000000, USED = ALIAS + 2 * 4 * 1024 * 1024, NEXT = USED + 2 * 1024 * 1024, MIB = 1 << 20 };
	static ALIGNED word root[1024];
	static ALIGNED uint64_t directories[2][512];
	for (int i = 0; i < 2; i++) {
		directories[i][ALIAS % (1 << 30) / (2 * MIB)] = P | W | PS;
		directories[i][USED % (1 << 30) / (2 * MIB)] = 10 * MIB | P | W | PS;
		directories[i][NEXT % (1 << 30) / (2 * MIB)] = (12 + 2 * i) * MIB | P | W | PS;
	}
	store(&directory[ALIAS / LARGE], P | W | PS);
	store(&root[ALIAS / LARGE], P | W | PS);
	store(&root[USED / LARGE], 8 * MIB | P | W | PS | G);
	CASE_AT("legal", "pae", USED, store(&root[2], (uintptr_t)directories[0] | P); pae_on_and_off(root, USED));
	CASE_AT("legal", "pdpte-moved-pae", NEXT, store(&root[2], (uintptr_t)directories[1] | P); pae_on_and_off(root, NEXT));
}
#endif

#if MODE == 3
/* PDPTEs are loaded with CR3; no INVLPG drops them (4.4.1). */
static ALIGNED word other_directory[512];
#define PDPTE_CASE(verdict, name, n, ...) do { \
	word was = pointers[2]; \
	store(&above[n], (uintptr_t)tables[1] | P | W); \
	store(&other_directory[n], (uintptr_t)tables[2] | P | W); \
	CASE_AT(verdict, name, BIG(n) + PAGE, read(BIG(n)); store(&pointers[2], (uintptr_t)other_directory | P); __VA_ARGS__; \
		read(BIG(n) + PAGE)); \
	store(&pointers[2], was); \
	set_cr3(cr3()); \
} while (0)

static void registers(void)
{
	uintptr_t usual0 = cr0(), usual4 = cr4();
	PDPTE_CASE("stale", "pdpte-moved", 40, invlpg(BIG(40)));
	PDPTE_CASE("legal", "pdpte-moved-cr3", 41, set_cr3(cr3()));
	PDPTE_CASE("stale", "pdpte-moved-wp", 42, set_cr0(cr0() ^ WP); set_cr0(usual0); invlpg(BIG(42)));
	PDPTE_CASE("legal", "pdpte-moved-smep", 43, toggle_smep());
	PDPTE_CASE("legal", "pdpte-moved-cd", 44, set_cr0(usual0 | CD); invlpg(BIG(44)));
	/* They are in no cache beside that (4.10.3). */
	word usual = pointers[2];
	for (int i = 50; i < 52; i++) {
		store(&above[i], (uintptr_t)tables[1] | P | W);
		store(&other_directory[i], (uintptr_t)tables[2] | P | W);
	}
	set_cr0(usual0);
	CASE_AT("legal", "pdpte-moved-cd-other-table", BIG(51) + PAGE, read(BIG(50)); store(&pointers[2], (uintptr_t)other_directory | P);
		set_cr0(usual0 | CD); read(BIG(51) + PAGE));
	store(&pointers[2], usual);
	set_cr3(cr3());
	PDPTE_CASE("legal", "pdpte-moved-nw", 45, set_cr0(usual0 | CD | NW); invlpg(BIG(45)));
	set_cr0(usual0);
	PDPTE_CASE("legal", "pdpte-moved-paging-off", 46, paging_off_and_on());
	PDPTE_CASE("legal", "pdpte-moved-pge", 47, set_cr4(usual4 ^ PGE));
	PDPTE_CASE("legal", "pdpte-moved-pse", 48, set_cr4(usual4 ^ PGE ^ PSE); invlpg(BIG(48)));
	set_cr4(usual4);
}
#endif

#if MODE < 4
/* A task that has a CR3 of its own, and jumps back. */
static uint32_t other_task[32];
static void in_other_task(void)
{
	for (;;)
		asm volatile("ljmp $0x40, $0");
}

static void switch_tasks(void) { asm volatile("ljmp $0x50, $0" ::: "memory"); }

static void task_switch(void)
{
	static uint8_t stack[PAGE];
	static ALIGNED word second_root[1024];
	uintptr_t where = (uintptr_t)other_task;
	word *root = MODE == 2 ? directory : pointers;
	for (int i = 0; i < (MODE == 2 ? 1024 : 4); i++)
		second_root[i] = root[i];
	other_task[7] = (uintptr_t)second_root;
	other_task[8] = (uintptr_t)in_other_task;
	other_task[9] = 2;
	other_task[14] = (uintptr_t)stack + sizeof stack;
	other_task[18] = other_task[20] = other_task[21] = 0x10;
	other_task[19] = 8;
	task[7] = cr3();
	gdt[10] = segment_at(where, 0x89);
	CASE("legal", "task-switch", map0(P | W); read(HERE); map1(P | W); switch_tasks(); read(HERE));
#if MODE == 3
	PDPTE_CASE("legal", "pdpte-moved-task-switch", 49, switch_tasks());
#endif
}
#endif

/* ---- two processors ---- */

void run_other(void) { obey(); }

static void interrupt(uint32_t what)
{
	volatile uint32_t *apic = (void *)0xfee00000;
	apic[0x310 / 4] = 1 << 24;
	apic[0x300 / 4] = what;
	for (int i = 0; i < 1000; i++)
		out8(0x80, 0);
}

static void wake_other(void)
{
	for (uint8_t *byte = other_begin; byte < other_end; byte++)
		*(volatile uint8_t *)(0x8000 + (byte - other_begin)) = *byte;
	interrupt(0x4500);
	interrupt(0x4608);
	wait_for_other();
}

static void shootdowns(void)
{
	wake_other();
	CASE("stale", "no-shootdown", map0(P | W); have_other(READS); map1(P | W); invlpg(HERE); have_other(READS));
	CASE("legal", "shootdown", map0(P | W); have_other(READS); map1(P | W); invlpg(HERE); have_other(FLUSHES);
	     have_other(READS));
	CASE("late", "no-shootdown-user", map0(P | W); have_other(READS); map1(P | W); invlpg(HERE); go_to_user();
	     have_other(READS));
}

/* Long after the change, with no user mode at all: not where this processor waits for the other one as well. */
static void deadlines(void)
{
	CASE("late", "deadline", map0(P | W); read(HERE); map1(P | W); for (volatile int i = 0; i < 100000; i++); read(HERE));
}

static void make_tables(void)
{
	for (int i = 0; i < 8; i++)
		for (int k = 0; k < PAGE; k++)
			frames[i][k] = k == 0x800 ? 0xc3 : i;
#if MODE == 2
	above = directory + (BASE >> 22);
#else
	above = table2;
#endif
#if MODE == 3
	store(&pointers[2], (uintptr_t)table2 | P);
	set_cr3(cr3());
#elif MODE >= 4
	store(&table3[0], (uintptr_t)table2 | P | W | U);
	store(&upper[BASE >> 39 & 511], (uintptr_t)table3 | P | W | U);
#endif
	store(&above[0], (uintptr_t)tables[0] | P | W | U);
}

/* More causes than there is room for: each store is another. */
static void many(void)
{
	uintptr_t old = FRAME(0) | P | W, new = FRAME(1) | P | W;
	asm volatile(".rept 1500; mov %0, (%2); invlpg (%3); cmpb $0, (%3); mov %1, (%2); cmpb $0, (%3); .endr"
		     :: "r"(old), "r"(new), "r"(&tables[0][next]), "r"((uintptr_t)HERE) : "memory", "cc");
}

/* Stale uses of more pages than have a place each for what ends them. */
static void unlisted(void)
{
	word *table = tables[4];
	store(&above[32], (uintptr_t)table | P | W);
	for (unsigned frame = 0; frame < 2; frame++)
		for (int i = 0; i < 300; i++) {
			store(&table[i], FRAME(frame) | P | W);
			read(BIG(32) + i * PAGE);
		}
	set_cr3(cr3());
}

/* Translations of more pages than are remembered. */
static void forgotten(void)
{
	word *table = tables[4];
	for (int i = 0; i < SLOTS; i++)
		store(&table[i], FRAME(0) | P | W);
	for (int big = 64; big < 64 + 150000 / SLOTS; big++) {
		store(&above[big], (uintptr_t)table | P | W);
		for (int i = 0; i < SLOTS; i++)
			read(BIG(big) + i * PAGE);
	}
}

/* The machine starts anew, three times: what counts is in memory that no one else has. */
static void reset(void)
{
	static const uint16_t none[5];
	volatile uint32_t *count = (void *)0x2000000;
	if (++*count <= 3)
		asm volatile("lidt (%0); int3" :: "r"(none));
}

#if MODE >= 4
/* Tables and pages above 4 GiB, where RAM goes on. */
static void high(void)
{
	enum { GIB = 1 << 30 };
	word *table = (word *)(4ull * GIB), frame = 5ull * GIB - 2 * PAGE;
	store(&pointers[4], 4ull * GIB | P | W | PS);
	for (int i = 0; i < 4; i++)
		store(&table[i], frame | P | W);
	store(&above[30], (uintptr_t)table | P | W);
	CASE_AT("stale", "high-move", BIG(30), read(BIG(30)); store(&table[0], (frame + PAGE) | P | W); read(BIG(30)));
	CASE_AT("legal", "high-move-invlpg", BIG(30) + PAGE, read(BIG(30) + PAGE); store(&table[1], (frame + PAGE) | P | W);
		invlpg(BIG(30) + PAGE); read(BIG(30) + PAGE));
	CASE_AT("late", "high-unmap-user", BIG(30) + 2 * PAGE, read(BIG(30) + 2 * PAGE); store(&table[2], 0); go_to_user();
		read(BIG(30) + 2 * PAGE));
}
#endif

static void run_others(void)
{
	unmaps();
	moves();
	rights();
	globals();
	structures();
	large();
	other_root();
	authors();
	stores();
	window();
	faulting_addresses();
#if MODE == 2
	pae();
#else
	smep();
#endif
	if (wanted() == '2')
		shootdowns();
	else
		deadlines();
#if MODE == 3
	registers();
#endif
}

void run_cases(void)
{
	make_gates();
	make_tables();
	switch (wanted()) {
	case 'l':
		break;
	case 'm':
		many();
		break;
	case 'u':
		unlisted();
		break;
	case 'f':
		forgotten();
		break;
	case 'r':
		reset();
		break;
#if MODE >= 4
	case 'h':
		high();
		break;
#endif
	default:
		run_others();
	}
	operands();
#if MODE < 4
	task_switch();
#endif
	print("done\n");
	out8(0xf4, 0);
	for (;;)
		asm volatile("hlt");
}
