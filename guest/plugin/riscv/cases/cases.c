/*
 * Changes of tables with and without the flush that they need, one after the other.
 *
 * Each case has a page of its own and prints what the manual makes of it (privileged specification 1.13, "Supervisor
 * Memory-Management Fence Instruction"), as
 *
 *	case NAME ADDRESS legal|stale|late|denied
 *
 * legal   no use of the page is a stale one
 * stale   a use may have gone by what was cached, and a later flush could still have excused it
 * late    the same after this hart has been in user mode since the change
 * denied  an access faults that might have passed by what was cached
 *
 * MODE is 32, 39, 48 or 57.  The kernel's command line says what runs: `wanted=1`, `wanted=2` with the cases for two
 * harts, `wanted=l` some that are legal; `v` and `n` behind that for harts with vectors and with Svnapot and Svinval.
 */
#include <stdint.h>

#if MODE == 32
typedef uint32_t word;
enum { INDEX = 10 };
#define BASE 0xc0000000ul
#define ASID_AT 22
#define SATP_MODE (1ul << 31)
#else
typedef uint64_t word;
enum { INDEX = 9 };
#define BASE (128ul << (MODE - 9))
#define ASID_AT 44
#define SATP_MODE ((MODE == 39 ? 8ul : MODE == 48 ? 9ul : 10ul) << 60)
#endif
enum { SLOTS = 1 << INDEX };
#define LARGE ((uintptr_t)PAGE << INDEX)

static void put(char letter) { *(volatile uint8_t *)0x10000000 = letter; }
static inline void flush_page(uintptr_t address) { asm volatile("sfence.vma %0, zero" :: "r"(address) : "memory"); }
#include "cases.h"

enum { R = 2, W = 4, X = 8, U = 1 << 4, G = 1 << 5, A = 1 << 6, D = 1 << 7, P = 1 | A | D, SOFTWARE = 3 << 8 };
#define TABLE(table) (((word)(uintptr_t)(table) >> 12 << 10) | 1)
#define PAGE_AT(frame, bits) (((word)(frame) >> 12 << 10) | (bits))
#define RAM 0x80000000ul
#define SUM (1 << 18)
#define MXR (1 << 19)

extern uintptr_t recover, read_by_user;	/* what it reads there, unless 0 */
extern char after_user_read[];
void go_to_user(void);	/* and back */

/* Roots that are alike; the tables below them, of the level that spans 1 GiB, and of the cases. */
static ALIGNED word roots[2][SLOTS];
#if MODE != 32
static ALIGNED word gigas[512], table1[512];
#endif
#if MODE >= 48
static ALIGNED word table2[512];
#endif
#if MODE == 57
static ALIGNED word table3[2][512];
#endif

/* ---- the machine ---- */

ALWAYS void fence_all(void) { asm volatile("sfence.vma" ::: "memory"); }
ALWAYS void fence_space(uintptr_t asid) { asm volatile("sfence.vma zero, %0" :: "r"(asid) : "memory"); }
ALWAYS void fence_page(uintptr_t address) { asm volatile("sfence.vma %0, zero" :: "r"(address) : "memory"); }
ALWAYS void fence_page_of(uintptr_t address, uintptr_t asid)
{
	asm volatile("sfence.vma %0, %1" :: "r"(address), "r"(asid) : "memory");
}
ALWAYS void set_satp(uintptr_t value) { asm volatile("csrw satp, %0" :: "r"(value) : "memory"); }
ALWAYS uintptr_t satp_of(const word *root, uintptr_t asid)
{
	return SATP_MODE | asid << ASID_AT | (uintptr_t)root >> 12;
}
ALWAYS void use(int root, uintptr_t asid) { set_satp(satp_of(roots[root], asid)); }
ALWAYS void set_status(uintptr_t bits) { asm volatile("csrs sstatus, %0" :: "r"(bits) : "memory"); }
ALWAYS void clear_status(uintptr_t bits) { asm volatile("csrc sstatus, %0" :: "r"(bits) : "memory"); }
ALWAYS void set_tp(uintptr_t value) { asm volatile("mv tp, %0" :: "r"(value)); }

#if MODE == 32
#define STORE "sw"
#define AMO_SWAP "amoswap.w"
#define LOAD_RESERVED "lr.w"
#define STORE_CONDITIONAL "sc.w"
#define COMPRESSED_STORE "c.sw"
#else
#define STORE "sd"
#define AMO_SWAP "amoswap.d"
#define LOAD_RESERVED "lr.d"
#define STORE_CONDITIONAL "sc.d"
#define COMPRESSED_STORE "c.sd"
#endif

/* An access that may fault. */
#define TO_RECOVER "la t0, 1f; la t1, recover; " STORE " t0, (t1); "
ALWAYS void try_read(uintptr_t address)
{
	asm volatile(TO_RECOVER "lb t0, (%0); 1:" :: "r"(address) : "t0", "t1", "memory");
}
ALWAYS void try_write(uintptr_t address)
{
	asm volatile(TO_RECOVER "sb zero, (%0); 1:" :: "r"(address) : "t0", "t1", "memory");
}
ALWAYS void try_call(uintptr_t address)
{
	asm volatile(TO_RECOVER "jalr %0; 1:" :: "r"(address + 0x800) : "t0", "t1", "ra", "memory");
}

/* ---- what M-mode does ---- */

enum service { READS_AS_SUPERVISOR, STORES, FENCES, INVALIDATES, TRAPS_FENCES };
static void machine(enum service service, uintptr_t address, uintptr_t value)
{
	register uintptr_t a0 asm("a0") = address, a1 asm("a1") = value, a7 asm("a7") = service;
	asm volatile("ecall" : "+r"(a0), "+r"(a1), "+r"(a7) :: "t0", "t1", "memory");
}

/* User mode reads, or faults; `go_to_user` comes back in both cases. */
static void user_reads(uintptr_t address)
{
	recover = (uintptr_t)after_user_read + (uintptr_t)FOR_USERS;
	read_by_user = address;
	go_to_user();
	read_by_user = 0;
}

/* What is behind "wanted=" in the device tree, which has the kernel's command line. */
static const char *wanted(const char *tree)
{
	static const char key[] = "wanted=";
	const uint8_t *size = (const uint8_t *)tree + 4;
	const char *end = tree + (size[1] << 16 | size[2] << 8 | size[3]);
	for (; tree < end; tree++) {
		int i = 0;
		while (key[i] && tree[i] == key[i])
			i++;
		if (!key[i])
			return tree + i;
	}
	return "";
}

static bool has(const char *text, char letter)
{
	for (; *text; text++)
		if (*text == letter)
			return true;
	return false;
}

/* ---- cases ---- */

#define FRAME(n) ((uintptr_t)frames[n])
#define SLOT (&tables[0][next])
ALWAYS void map(word frame, word bits) { store(SLOT, frame ? PAGE_AT(frame, bits) : 0); }
ALWAYS void map0(word rights) { map(FRAME(0), P | rights); }
ALWAYS void map1(word rights) { map(FRAME(1), P | rights); }
ALWAYS void unmap(void) { map(0, 0); }

static void unmaps(void)
{
	CASE("stale", "unmap", map0(R | W); read(HERE); unmap(); try_read(HERE));
	CASE("late", "unmap-user", map0(R | W); read(HERE); unmap(); go_to_user(); try_read(HERE));
	CASE("legal", "unmap-fence", map0(R | W); read(HERE); unmap(); fence_page(HERE); try_read(HERE); map1(R | W); read(HERE));
	CASE("legal", "absent-to-present", unmap(); try_read(HERE); map0(R | W); read(HERE));
	CASE("legal", "unmap-unused", map0(R | W); read(HERE); unmap(); go_to_user());
	CASE("legal", "unmap-and-map-again", map0(R | W); read(HERE); unmap(); map0(R | W); read(HERE));
	CASE("stale", "move-fault", map0(R); read(HERE); map1(R); try_write(HERE); read(HERE));
	CASE("stale", "unmap-amo", map0(R | W); read(HERE); asm volatile(AMO_SWAP " zero, zero, (%0)" :: "r"(SLOT) : "memory");
	     try_read(HERE));
	CASE("stale", "unmap-sc", map0(R | W); read(HERE);
	     asm volatile("1:" LOAD_RESERVED " t0, (%0);" STORE_CONDITIONAL " t0, zero, (%0); bnez t0, 1b" :: "r"(SLOT) : "t0", "memory");
	     try_read(HERE));
	CASE("stale", "unmap-compressed", map0(R | W); read(HERE);
	     asm volatile("mv s0, %0; li s1, 0;" COMPRESSED_STORE " s1, 0(s0)" :: "r"(SLOT) : "s0", "s1", "memory"); try_read(HERE));
	CASE("late", "machine-unmap-user", map0(R | W); read(HERE); machine(STORES, (uintptr_t)SLOT, 0); go_to_user();
	     try_read(HERE));
	CASE("legal", "machine-fence", map0(R | W); read(HERE); map1(R | W); machine(FENCES, HERE, 0); read(HERE));
	CASE("stale", "move-mprv", map0(R | W); read(HERE); map1(R | W); machine(READS_AS_SUPERVISOR, HERE, 0));
	CASE("legal", "move-mprv-fence", map0(R | W); read(HERE); map1(R | W); fence_page(HERE);
	     machine(READS_AS_SUPERVISOR, HERE, 0));
}

static void moves(void)
{
	CASE("stale", "move", map0(R | W); read(HERE); map1(R | W); read(HERE));
	CASE("late", "move-user", map0(R | W); read(HERE); map1(R | W); go_to_user(); read(HERE));
	CASE("stale", "move-flushed-later", map0(R | W); read(HERE); map1(R | W); read(HERE); fence_page(HERE); go_to_user();
	     read(HERE));
	CASE("legal", "move-fence", map0(R | W); read(HERE); map1(R | W); fence_page(HERE); go_to_user(); read(HERE));
	CASE("legal", "move-fence-all", map0(R | W); read(HERE); map1(R | W); fence_all(); read(HERE));
	CASE("legal", "move-fence-space", map0(R | W); read(HERE); map1(R | W); fence_space(1); read(HERE));
	CASE("legal", "move-fence-page-of-space", map0(R | W); read(HERE); map1(R | W); fence_page_of(HERE, 1); read(HERE));
	CASE("stale", "move-fence-other-space", map0(R | W); read(HERE); map1(R | W); fence_space(2); read(HERE));
	CASE("stale", "move-fence-page-of-other-space", map0(R | W); read(HERE); map1(R | W); fence_page_of(HERE, 2);
	     read(HERE));
	CASE("stale", "move-fence-neighbour", map0(R | W); read(HERE); map1(R | W); fence_page(HERE + PAGE); read(HERE));
	CASE("denied", "unmap-fence-neighbour", map0(R | W); read(HERE); unmap(); fence_page(HERE + PAGE); try_read(HERE));
	CASE("stale", "move-satp", map0(R | W); read(HERE); map1(R | W); use(0, 1); read(HERE));
	CASE("stale", "move-and-back-used", map0(R | W); read(HERE); map1(R | W); read(HERE); map0(R | W); read(HERE));
	CASE("legal", "move-and-back", map0(R | W); read(HERE); map1(R | W); map0(R | W); read(HERE));
	CASE("stale", "move-write", map0(R | W); write(HERE); map1(R | W); write(HERE));
	CASE("legal", "move-write-clean", map(FRAME(0), 1 | A | R | W); read(HERE); map(FRAME(1), 1 | A | R | W); write(HERE));
	CASE("stale", "across", map0(R | W); write(HERE); next++; map0(R | W); write(HERE); map1(R | W); read_wide(HERE - 2));
	CASE("legal", "not-across", map0(R | W); write(HERE); next++; map0(R | W); write(HERE); map1(R | W); read_wide(HERE - 4));
}

static void rights(void)
{
	CASE("stale", "read-only", map0(R | W); write(HERE); map0(R); try_write(HERE));
	CASE("late", "read-only-user", map0(R | W); write(HERE); map0(R); go_to_user(); try_write(HERE));
	CASE("legal", "read-only-fence", map0(R | W); write(HERE); map0(R); fence_page(HERE); try_write(HERE));
	CASE("legal", "read-only-then-read", map0(R | W); write(HERE); map0(R); read(HERE));
	CASE("stale", "read-only-read-write", map0(R | W); write(HERE); map0(R); read(HERE); try_write(HERE));
	CASE("legal", "widen-write", map0(R); read(HERE); map0(R | W); write(HERE));
	CASE("legal", "move-and-widen", set_status(SUM); map0(R | U); read(HERE); map1(R | W); write(HERE); read(HERE);
	     clear_status(SUM));
	CASE("stale", "execute-only", map0(R | X); read(HERE); map0(X); try_read(HERE));
	CASE("legal", "execute-only-mxr", set_status(MXR); map0(R | X); read(HERE); map0(X); read(HERE); clear_status(MXR));
	CASE("late", "user-denied", map0(R | U); user_reads(HERE); map0(R); user_reads(HERE));
	CASE("legal", "user-denied-fence", map0(R | U); user_reads(HERE); map0(R); fence_page(HERE); user_reads(HERE));
	CASE("stale", "given-to-user", map0(R); read(HERE); map0(R | U); try_read(HERE));
	CASE("legal", "given-to-user-sum", set_status(SUM); map0(R); read(HERE); map0(R | U); read(HERE); clear_status(SUM));
	CASE("legal", "taken-from-user-sum", set_status(SUM); map0(R | U); read(HERE); map0(R); read(HERE); clear_status(SUM));
	CASE("legal", "software-bits", map0(R | W); write(HERE); map0(R | W | SOFTWARE); write(HERE));
	CASE("legal", "accessed-and-dirty", map0(R | W); write(HERE); map(FRAME(0), 1 | R | W); write(HERE); read(HERE));
	CASE("legal", "code-unchanged", map0(R | X); call(HERE); map0(R | X); call(HERE));
	CASE("stale", "code-moved", map0(R | X); call(HERE); map1(R | X); call(HERE));
	CASE("legal", "code-moved-fence", map0(R | X); call(HERE); map1(R | X); fence_page(HERE); call(HERE));
	CASE("stale", "code-not-executable", map0(R | X); call(HERE); map0(R); try_call(HERE));
	CASE("legal", "code-not-executable-then-read", map0(R | X); call(HERE); map0(R); read(HERE));
	CASE("legal", "code-widened", map0(R); read(HERE); map0(R | X); call(HERE));
	CASE("stale", "code-given-to-user", map0(R | X); call(HERE); map0(R | X | U); try_call(HERE));
	*(uint16_t *)(frames[5] + PAGE - 2) = 0x0013;	/* a wide NOP across two pages, and RET */
	*(uint16_t *)(frames[6] + 2) = *(uint16_t *)(frames[7] + 2) = 0x8082;
	asm volatile("fence.i" ::: "memory");
	CASE("stale", "code-across", map(FRAME(5), P | R | X); next++; map(FRAME(6), P | R | X); call(HERE - 2 - 0x800);
	     map(FRAME(7), P | R | X); call(HERE - 2 - 0x800));
	/* QEMU may have one block for both pages. */
	CASE("stale", "code-shared", map0(R | X); call(HERE); next++; map0(R | X); call(HERE); map1(R | X); call(HERE));
}

static void globals(void)
{
	CASE("stale", "global-fence-space", map0(R | G); read(HERE); map1(R | G); fence_space(1); read(HERE));
	CASE("stale", "global-fence-page-of-space", map0(R | G); read(HERE); map1(R | G); fence_page_of(HERE, 1); read(HERE));
	CASE("legal", "global-fence", map0(R | G); read(HERE); map1(R | G); fence_page(HERE); read(HERE));
	CASE("legal", "global-fence-all", map0(R | G); read(HERE); map1(R | G); fence_all(); read(HERE));
	CASE("late", "global-other-space", map0(R | G); read(HERE); map1(R | G); go_to_user(); use(0, 2); read(HERE); use(0, 1));
	CASE("legal", "move-other-space", map0(R); read(HERE); map1(R); use(0, 2); read(HERE); use(0, 1));
	CASE("stale", "move-other-space-and-back", map0(R); read(HERE); use(0, 2); map1(R); use(0, 1); read(HERE));
	CASE("stale", "move-fence-space-elsewhere", map0(R); read(HERE); use(0, 2); map1(R); fence_space(2); use(0, 1); read(HERE));
	CASE("legal", "move-fence-elsewhere", map0(R); read(HERE); use(0, 2); map1(R); fence_page(HERE); use(0, 1); read(HERE));
	CASE("legal", "move-fence-all-elsewhere", map0(R); read(HERE); use(0, 2); map1(R); fence_all(); use(0, 1); read(HERE));
	word *table = tables[5];
	store(&table[0], PAGE_AT(FRAME(0), P | R));
	BIG_CASE("stale", "global-by-table", 11, store(&above[11], TABLE(table) | G); read(BIG(11));
		 store(&table[0], PAGE_AT(FRAME(1), P | R)); fence_space(1); read(BIG(11)));
}

/* Another root for the same address space: its pages are elsewhere. */
static void other_root(void)
{
	word *old = tables[6], *new = tables[7], *second;
	for (int i = 0; i < 8; i++) {
		store(&old[i], PAGE_AT(FRAME(2), P | R));
		store(&new[i], PAGE_AT(FRAME(3), P | R));
	}
#if MODE == 32
	second = &roots[1][(BASE >> 22) + 12];
	store(&above[12], TABLE(old));
	store(second, TABLE(new));
	uintptr_t page = BIG(12);
#else
	static ALIGNED word own[512];
	second = &roots[1][129];
	uintptr_t page = 129ul << (MODE - 9);
#if MODE == 39
	word *last = own;
#elif MODE == 48
	static ALIGNED word last[512];
	store(&own[0], TABLE(last));
#else
	static ALIGNED word middle[512], last[512];
	store(&own[0], TABLE(middle));
	store(&middle[0], TABLE(last));
#endif
	store(&last[0], TABLE(new));
	store(second, TABLE(own));
	/* the first root's way there, by the tables of the cases */
#if MODE == 39
	static ALIGNED word first[512];
	store(&roots[0][129], TABLE(first));
	store(&first[0], TABLE(old));
#elif MODE == 48
	static ALIGNED word first[2][512];
	store(&roots[0][129], TABLE(first[0]));
	store(&first[0][0], TABLE(first[1]));
	store(&first[1][0], TABLE(old));
#else
	static ALIGNED word first[3][512];
	store(&roots[0][129], TABLE(first[0]));
	store(&first[0][0], TABLE(first[1]));
	store(&first[1][0], TABLE(first[2]));
	store(&first[2][0], TABLE(old));
#endif
#endif
	fence_all();
	CASE_AT("stale", "other-root", page, read(page); use(1, 1); read(page); use(0, 1));
	fence_all();
	CASE_AT("late", "other-root-user", page + PAGE, read(page + PAGE); use(1, 1); go_to_user(); read(page + PAGE); use(0, 1));
	fence_all();
	CASE_AT("legal", "other-root-fence", page + 2 * PAGE, read(page + 2 * PAGE); use(1, 1); fence_space(1);
		read(page + 2 * PAGE); use(0, 1));
	fence_all();
	CASE_AT("legal", "other-root-other-space", page + 3 * PAGE, read(page + 3 * PAGE); use(1, 3); read(page + 3 * PAGE);
		use(0, 1));
	fence_all();
}

/* Who goes back to user mode: the author of the change, or another thread. */
static void authors(void)
{
	CASE("stale", "move-other-thread", map0(R); read(HERE); map1(R); asm volatile("j 1f; 1:"); set_tp(2);
	     asm volatile("j 1f; 1:"); go_to_user(); read(HERE); set_tp(1));
}

/* What is cached of entries above pages: the pages behind them need not have been used. */
static void structures(void)
{
	word *old = tables[1], *new = tables[2];
	for (int i = 0; i < 16; i++) {
		store(&old[i], PAGE_AT(FRAME(2), P | R | W));
		store(&new[i], PAGE_AT(FRAME(3), P | R | W));
	}
	word was = TABLE(old), now = TABLE(new);
	BIG_CASE("stale", "table-moved", 1, store(&above[1], was); read(BIG(1)); store(&above[1], now); read(BIG(1)));
	BIG_CASE("stale", "table-moved-fence", 2, store(&above[2], was); read(BIG(2)); store(&above[2], now); fence_page(BIG(2));
		 read(BIG(2)));
	BIG_CASE("legal", "table-moved-fence-all", 3, store(&above[3], was); read(BIG(3)); store(&above[3], now); fence_all();
		 read(BIG(3)));
	BIG_CASE("legal", "table-moved-fence-space", 4, store(&above[4], was); read(BIG(4)); store(&above[4], now);
		 fence_space(1); read(BIG(4)));
	BIG_CASE("stale", "table-moved-fence-other-space", 5, store(&above[5], was); read(BIG(5)); store(&above[5], now);
		 fence_space(2); read(BIG(5)));
	CASE_AT("stale", "table-moved-other-page", BIG(6) + PAGE, store(&above[6], was); read(BIG(6)); store(&above[6], now);
		read(BIG(6) + PAGE));
	CASE_AT("late", "table-moved-user-other-page", BIG(7) + PAGE, store(&above[7], was); read(BIG(7)); store(&above[7], now);
		go_to_user(); read(BIG(7) + PAGE));
	CASE_AT("denied", "table-gone-other-page", BIG(8) + PAGE, store(&above[8], was); read(BIG(8)); store(&above[8], 0);
		try_read(BIG(8) + PAGE));
	CASE_AT("legal", "table-gone-fence-all", BIG(9) + PAGE, store(&above[9], was); read(BIG(9)); store(&above[9], 0);
		fence_all(); try_read(BIG(9) + PAGE));
	CASE_AT("stale", "table-moved-fault", BIG(10) + PAGE, store(&above[10], was); read(BIG(10)); store(&above[10], now);
		try_call(BIG(10) + PAGE); read(BIG(10) + PAGE));
}

static void large(void)
{
	word leaf = PAGE_AT(RAM, P | R | W), elsewhere = PAGE_AT(RAM + LARGE, P | R | W);
	word *small = tables[3];
	for (int i = 0; i < SLOTS; i++)
		store(&small[i], PAGE_AT(RAM + (uintptr_t)i * PAGE, P | R | W));
	CASE_AT("legal", "split-in-place", BIG(17) + 0x3000, store(&above[17], leaf); read(BIG(17) + 0x3000);
		store(&above[17], TABLE(small)); read(BIG(17) + 0x3000));
	CASE_AT("stale", "large-moved", BIG(18) + 0x3000, store(&above[18], leaf); read(BIG(18) + 0x3000);
		store(&above[18], elsewhere); read(BIG(18) + 0x3000));
	CASE_AT("legal", "large-moved-fence-in-it", BIG(19) + 0x3000, store(&above[19], leaf); read(BIG(19) + 0x3000);
		store(&above[19], elsewhere); fence_page(BIG(19) + 0x9000); read(BIG(19) + 0x3000));
	CASE_AT("stale", "large-moved-other-part", BIG(20) + 0x5000, store(&above[20], leaf); read(BIG(20));
		store(&above[20], elsewhere); read(BIG(20) + 0x5000));
	BIG_CASE("late", "large-moved-user", 22, store(&above[22], leaf); read(BIG(22)); store(&above[22], elsewhere);
		 go_to_user(); read(BIG(22)));
}

#if MODE != 32
/* A page of 64K is 16 entries that are alike (Svnapot). */
static void napot(void)
{
	word *table = tables[4], page = 1ull << 63 | P | R | W;
	store(&above[24], TABLE(table));
	for (int i = 0; i < 32; i++)
		store(&table[i], PAGE_AT(RAM + 0x8000, page));
	CASE_AT("stale", "napot-moved-other-part", BIG(24) + 5 * PAGE, read(BIG(24)); for (int i = 0; i < 16; i++)
		store(&table[i], PAGE_AT(RAM + 0x18000, page)); read(BIG(24) + 5 * PAGE));
	CASE_AT("legal", "napot-moved-fence-in-it", BIG(24) + 18 * PAGE, read(BIG(24) + 18 * PAGE); for (int i = 16; i < 32; i++)
		store(&table[i], PAGE_AT(RAM + 0x18000, page)); fence_page(BIG(24) + 22 * PAGE); read(BIG(24) + 18 * PAGE));
}

/* Svinval: SFENCE.W.INVAL, SINVAL.VMA and SFENCE.INVAL.IR, for which the assembler may have no words. */
#define ORDER asm volatile(".insn r 0x73, 0, 0x0c, zero, zero, zero" ::: "memory")
#define INVALIDATE(address) asm volatile(".insn r 0x73, 0, 0x0b, zero, %0, zero" :: "r"((uintptr_t)(address)) : "memory")
#define END_INVALIDATIONS asm volatile(".insn r 0x73, 0, 0x0c, zero, zero, ra" ::: "memory")
static void invalidations(void)
{
	CASE("legal", "sinval", map0(R); read(HERE); map1(R); ORDER; INVALIDATE(HERE); END_INVALIDATIONS; read(HERE));
	CASE("stale", "sinval-not-ended", map0(R); read(HERE); map1(R); ORDER; INVALIDATE(HERE); read(HERE); END_INVALIDATIONS);
	CASE("stale", "sinval-not-ordered", map0(R); read(HERE); map1(R); INVALIDATE(HERE); END_INVALIDATIONS; read(HERE));
	CASE("legal", "sinval-by-machine", map0(R); read(HERE); map1(R); machine(TRAPS_FENCES, 1, 0); ORDER;
	     machine(INVALIDATES, HERE, 0); END_INVALIDATIONS; machine(TRAPS_FENCES, 0, 0); read(HERE));
}

/* VSETIVLI of one element of 64 bits, and VSE64, for which the assembler may have no words. */
static void vectors(void)
{
	CASE("stale", "unmap-vector", map0(R); read(HERE);
	     asm volatile("mv a0, %0; .word 0xcd80f057; .word 0x5e003057; .word 0x02057027" :: "r"(SLOT) : "a0", "memory");
	     try_read(HERE));
}
#endif

/* ---- two harts ---- */

static volatile bool ready;

void run_other(void)
{
	while (!ready)
		;
	use(0, 1);
	obey();
}

static void shootdowns(void)
{
	ready = true;
	wait_for_other();
	CASE("stale", "no-shootdown", map0(R | W); have_other(READS); map1(R | W); fence_page(HERE); have_other(READS));
	CASE("legal", "shootdown", map0(R | W); have_other(READS); map1(R | W); fence_page(HERE); have_other(FLUSHES);
	     have_other(READS));
	CASE("late", "no-shootdown-user", map0(R | W); have_other(READS); map1(R | W); fence_page(HERE); go_to_user();
	     have_other(READS));
}

/* Long after the change, with no user mode at all: not where this hart waits for the other one as well. */
static void deadlines(void)
{
	CASE("late", "deadline", map0(R | W); read(HERE); map1(R | W); for (volatile int i = 0; i < 100000; i++); read(HERE));
}

static void make_tables(void)
{
	for (int i = 0; i < 8; i++)
		*(uint16_t *)(frames[i] + 0x800) = 0x8082;	/* RET */
	asm volatile("fence.i" ::: "memory");
	word all = P | R | W | X;
	for (int k = 0; k < 2; k++) {
		word *root = roots[k];
#if MODE == 32
		for (uintptr_t i = 0; i < 16; i++) {	/* devices, RAM, and RAM for users */
			store(&root[i], PAGE_AT(i << 22, P | R | W));
			store(&root[0x40 + i], PAGE_AT((0x40 + i) << 22, P | R | W));
			store(&root[0x200 + i], PAGE_AT(RAM + (i << 22), all));
			store(&root[0x100 + i], PAGE_AT(RAM + (i << 22), all | U));
		}
#else
		store(&gigas[0], PAGE_AT(0, P | R | W));
		store(&gigas[2], PAGE_AT(RAM, all));
		store(&gigas[4], PAGE_AT(RAM, all | U));
#if MODE == 39
		for (int i = 0; i < 8; i++)
			store(&root[i], gigas[i]);
#elif MODE == 48
		store(&root[0], TABLE(gigas));
#else
		store(&table3[0][0], TABLE(gigas));
		store(&root[0], TABLE(table3[0]));
#endif
#endif
	}
	word *root = roots[0];
#if MODE == 32
	above = root + (BASE >> 22);
#else
	above = table1;
#if MODE == 39
	store(&root[128], TABLE(table1));
#elif MODE == 48
	store(&table2[0], TABLE(table1));
	store(&root[128], TABLE(table2));
#else
	store(&table2[0], TABLE(table1));
	store(&table3[1][0], TABLE(table2));
	store(&root[128], TABLE(table3[1]));
#endif
#endif
	store(&above[0], TABLE(tables[0]));
}

static void run_others(const char *what)
{
	unmaps();
	moves();
	rights();
	globals();
	other_root();
	structures();
	large();
	authors();
#if MODE != 32
	if (has(what, 'n')) {
		napot();
		invalidations();
	}
	if (has(what, 'v'))
		vectors();
#endif
	if (has(what, '2'))
		shootdowns();
	else
		deadlines();
}

static void run_legal(void)
{
	CASE("legal", "unmap-fence", map0(R | W); read(HERE); unmap(); fence_page(HERE); try_read(HERE); map1(R | W); read(HERE));
	CASE("legal", "move-fence-all", map0(R | W); read(HERE); map1(R | W); fence_all(); go_to_user(); read(HERE));
}

void run_cases(const char *tree)
{
	const char *what = wanted(tree);
	make_tables();
	use(0, 1);
	fence_all();
	if (has(what, 'l'))
		run_legal();
	else
		run_others(what);
	print("done\n");
	*(volatile uint32_t *)0x100000 = 1 << 16 | 0x3333;	/* ends QEMU with exit code 1 */
	for (;;)
		asm volatile("wfi");
}
