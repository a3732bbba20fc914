/*
 * The one program of the Linux guest: two processes that map known patterns and tell what the kernel made of them.
 *
 * The parent runs on the CPU that is the first to Linux, its forked child on the second; told is which they are to QEMU.
 * Each prints its whole address space, one line for each line of its /proc/self/maps, then both spin in user mode for
 * good: whoever stops the machine and finds a CPU at `spins` has that process's own tables in its CR3, satp or TTBR0_EL1.
 * The lines, in this order, each value without spaces:
 *
 *   @ kernel release=6.1.0-56-amd64
 *   @ process space=child pid=48 cpu=1 spins=0x40115a
 *   @ map space=child name=forked first=0x1000000000 size=0x8000 rights=rw- sharing=private page=4K stamped=yes
 *     frames=1a2b*4,1c00,-*3                                                 (on the same line)
 *   ... the same of the parent ...
 *   @ ready
 *
 * or, in place of the rest, `@ failed call=mmap name=small error=12`, after which the machine ends.
 *
 *   name     that of a pattern below; else what the kernel calls it: /init, [stack], [vdso], [vvar], anonymous
 *   rights   what the process asked for, as in /proc/self/maps; the tables may say less, and mostly do after a fork
 *   page     the size of the pages, where they are present
 *   stamped  whether each page was written: its first word is then its virtual address, its second the writer's pid
 *   frames   from /proc/self/pagemap, in hexadecimal, 4096 bytes each, also where pages are larger: 1a2b*4 are four
 *            from 1a2b up, -*3 three without, ?*2 two of which pagemap says nothing: it ends at the highest address
 *            that a process can map, below [vsyscall]; s25 one in swap, at offset 1 (the bits from 5 up) of area 5
 *
 * It uses no library, so that a compiler is all it takes to build it.
 */
#include "program.h"

extern _Noreturn void spin_here(void);	/* the instruction that both processes end in */
extern const char __bss_start[], _end[];	/* the linker's: the variables that begin as zero */

/* ---- the kernel's numbers, and what the compiler has no C for ---- */

#if defined(__x86_64__)
enum {
	SYS_READ = 0, SYS_CLOSE = 3, SYS_MMAP = 9, SYS_MPROTECT = 10, SYS_PREAD = 17, SYS_MREMAP = 25, SYS_MADVISE = 28,
	SYS_GETPID = 39, SYS_CLONE = 56, SYS_UNAME = 63, SYS_MLOCK = 149, SYS_MOUNT = 165, SYS_SCHED_SETAFFINITY = 203,
	SYS_OPENAT = 257, SYS_MKDIRAT = 258, SYS_PIPE2 = 293,
};
asm(".globl _start\n_start:\n\tand $-16, %rsp\n\tcall start");
asm("spin_here:\n\tjmp spin_here");
#else	/* the numbers of asm-generic/unistd.h */
enum {
	SYS_MKNODAT = 33, SYS_MKDIRAT = 34, SYS_MOUNT = 40, SYS_OPENAT = 56, SYS_CLOSE = 57, SYS_PIPE2 = 59, SYS_READ = 63, SYS_PREAD = 67,
	SYS_PWRITE = 68, SYS_SCHED_SETAFFINITY = 122, SYS_UNAME = 160, SYS_GETPID = 172, SYS_MREMAP = 216, SYS_CLONE = 220,
	SYS_MMAP = 222, SYS_SWAPON = 224, SYS_MPROTECT = 226, SYS_MLOCK = 228, SYS_MADVISE = 233, SYS_FINIT_MODULE = 273,
};
#ifdef __riscv
asm(".globl _start\n_start:\n\tandi sp, sp, -16\n\tcall start");
asm("spin_here:\n\tj spin_here");
#else
asm(".globl _start\n_start:\n\tbl start");	/* the kernel aligns the stack */
asm("spin_here:\n\tb spin_here");
#endif
#endif

enum { NONE = 0, READ = 1, WRITE = 2, EXECUTE = 4 };

enum {
	SHARED = 0x1, PRIVATE = 0x2, FIXED = 0x10, ANONYMOUS = 0x20, POPULATE = 0x8000, HUGETLB = 0x40000,
	OF_64K = 16 << 26, MOVE = 1, MOVE_TO = 2, ADVICE_LARGE = 14, ADVICE_OUT = 21, NO_MEMORY = -12, CHILD_ENDS = 17,
};

enum { READ_ONLY = 0, READ_WRITE = 2 };

static long opened_for(int use, const char *path, const char *name)
{
	return checked(call(SYS_OPENAT, 0, (long)path, use, 0, 0, 0), "openat", name);
}

static long opened(const char *path, const char *name)
{
	return opened_for(READ_ONLY, path, name);
}

#define PAGE 4096ul
#define KIB (1ul << 10)
#define MIB (1ul << 20)
#define PAGEMAP_FRAME ((1ull << 55) - 1)

/* ---- patterns ---- */

struct pattern {
	const char *name;
	uintptr_t first;
	size_t size;
	int rights;		/* in the end: pages are written before that */
	int flags;
	enum { ORDINARY, FILE, SPARSE, UNTOUCHED, ONLY_READ, LOCKED, ALIAS, LARGE, SPLIT, OF_SIXTEEN, HIGH, SWAPPED } kind;
};

#define PLACE(number) (0x1000000000 + (number) * (1ul << 30))
#define MEMORY (PRIVATE | ANONYMOUS)

#ifdef __aarch64__
#define HIGHEST 0x000f000000000000
#else
#define HIGHEST 0x00f0000000000000
#endif

/* What both processes have. */
static struct pattern inherited[] = {
	{ "shared", PLACE(0), 8 * PAGE, READ | WRITE, SHARED | ANONYMOUS, ORDINARY },
	{ "forked", PLACE(1), 8 * PAGE, READ | WRITE, MEMORY, ORDINARY },
	{ "forked-large", PLACE(2), 4 * MIB, READ | WRITE, MEMORY, LARGE },
	{ "copied-large", PLACE(3), 2 * MIB, READ | WRITE, MEMORY, LARGE },
};
static struct pattern *const shared = &inherited[0], *const forked = &inherited[1], *const copied = &inherited[3];

/* What the child has for itself. */
static struct pattern childs[] = {
	{ "own", PLACE(4), 4 * PAGE, READ | WRITE, MEMORY, ORDINARY },
};

/* What the parent has for itself. */
static struct pattern parents[] = {
	{ "small", PLACE(5), 4 * PAGE, READ | WRITE, MEMORY, ORDINARY },
	{ "sparse", PLACE(6), 8 * PAGE, READ | WRITE, MEMORY, SPARSE },
	{ "read-only", PLACE(7), 4 * PAGE, READ, MEMORY, ORDINARY },
	{ "code", PLACE(8), 4 * PAGE, READ | EXECUTE, MEMORY, ORDINARY },
	{ "anything", PLACE(9), 4 * PAGE, READ | WRITE | EXECUTE, MEMORY, ORDINARY },
	{ "execute-only", PLACE(10), 4 * PAGE, EXECUTE, MEMORY, ORDINARY },	/* by a protection key */
	{ "none", PLACE(11), 4 * PAGE, NONE, MEMORY, ORDINARY },
	{ "mixed", PLACE(12), 16 * PAGE, READ | WRITE, MEMORY, ORDINARY },	/* then all rights in turn */
	{ "guard", PLACE(13), PAGE, NONE, MEMORY, UNTOUCHED },
	{ "guarded", PLACE(13) + PAGE, 7 * PAGE, READ | WRITE, MEMORY, ORDINARY },
	{ "zero", PLACE(14), 4 * PAGE, READ, MEMORY, ONLY_READ },	/* one frame for all */
	{ "locked", PLACE(15), 4 * PAGE, READ | WRITE, MEMORY, LOCKED },
	{ "alias", PLACE(16), 8 * PAGE, READ | WRITE, SHARED, ALIAS },	/* of `shared` */
	{ "file", PLACE(17), 2 * PAGE, READ, PRIVATE, FILE },
	{ "large", PLACE(18), 4 * MIB, READ | WRITE, MEMORY, LARGE },
	{ "large-read-only", PLACE(19), 2 * MIB, READ, MEMORY, LARGE },
	{ "large-none", PLACE(20), 2 * MIB, NONE, MEMORY, LARGE },
	{ "large-split", PLACE(21), 2 * MIB, READ | WRITE, MEMORY, SPLIT },
	{ "hugetlb", PLACE(22), 4 * MIB, READ | WRITE, SHARED | ANONYMOUS | HUGETLB, LARGE },
#ifndef __x86_64__	/* pages of 64K, each by sixteen entries */
	{ "hugetlb-64k", PLACE(24), 128 * KIB, READ | WRITE, SHARED | ANONYMOUS | HUGETLB | OF_64K, OF_SIXTEEN },
#endif
#ifdef __aarch64__
	{ "contiguous", PLACE(25), 128 * KIB, READ | WRITE, MEMORY, OF_SIXTEEN },
	{ "contiguous-split", PLACE(26), 64 * KIB, READ | WRITE, MEMORY, SPLIT },
	{ "swapped", PLACE(27), 4 * PAGE, READ | WRITE, MEMORY, SWAPPED },
#endif
	{ "many", PLACE(23), 256 * MIB, READ | WRITE, MEMORY | POPULATE, ORDINARY },
	{ "high", HIGHEST, 4 * PAGE, READ | WRITE, MEMORY, HIGH },	/* with five levels only */
};

#define END(array) ((array) + sizeof(array) / sizeof *(array))

static bool equal(const char *a, const char *b)
{
	for (; *a == *b; a++, b++)
		if (!*a)
			return true;
	return false;
}

static void protect(const struct pattern *pattern, size_t offset, size_t size, int rights)
{
	checked(call(SYS_MPROTECT, pattern->first + offset, size, rights, 0, 0, 0), "mprotect", pattern->name);
}

static uint64_t pid;	/* asked for once: a system call for each page would take longer than all else */

static void know_oneself(void)
{
	pid = call(SYS_GETPID, 0, 0, 0, 0, 0, 0);
}

static void stamp(uintptr_t page)
{
	volatile uint64_t *words = (void *)page;
	words[0] = page;
	words[1] = pid;
}

static void look_at(uintptr_t page)
{
	(void)*(volatile char *)page;
}

static bool written(const struct pattern *pattern)
{
	return pattern->kind != ONLY_READ && pattern->kind != UNTOUCHED && pattern->kind != FILE &&
	       pattern->kind != ALIAS;
}

static void touch(const struct pattern *pattern)
{
	if (pattern->kind == UNTOUCHED)
		return;
	size_t step = pattern->kind == SPARSE ? 2 * PAGE : PAGE;
	for (size_t offset = 0; offset < pattern->size; offset += step) {
		if (written(pattern))
			stamp(pattern->first + offset);
		else
			look_at(pattern->first + offset);
	}
}

static long mapped(const struct pattern *pattern)
{
	if (pattern->kind == ALIAS)	/* moved from where it has no size, a shared mapping stays there too */
		return call(SYS_MREMAP, shared->first, 0, pattern->size, MOVE | MOVE_TO, pattern->first, 0);
	int rights = written(pattern) ? READ | WRITE : pattern->rights;
	long file = -1;
	if (pattern->kind == FILE)
		file = opened("/init", pattern->name);
	return call(SYS_MMAP, pattern->first, pattern->size, rights, pattern->flags | FIXED, file, 0);
}

static void map(const struct pattern *pattern)
{
	long result = mapped(pattern);
	if (pattern->kind == HIGH && result == NO_MEMORY)
		return;
	checked(result, "mmap", pattern->name);
	bool large = pattern->kind == LARGE || pattern->kind == SPLIT || pattern->kind == OF_SIXTEEN;
	if (large && !(pattern->flags & HUGETLB))
		checked(call(SYS_MADVISE, pattern->first, pattern->size, ADVICE_LARGE, 0, 0, 0), "madvise",
			pattern->name);
	if (pattern->kind == LOCKED)
		checked(call(SYS_MLOCK, pattern->first, pattern->size, 0, 0, 0, 0), "mlock", pattern->name);
	touch(pattern);
	if (pattern->rights != (READ | WRITE))
		protect(pattern, 0, pattern->size, pattern->rights);
	if (pattern->kind == SPLIT)
		protect(pattern, PAGE, PAGE, READ);
	if (pattern->kind == SWAPPED)
		checked(call(SYS_MADVISE, pattern->first, pattern->size, ADVICE_OUT, 0, 0, 0), "madvise", pattern->name);
	if (equal(pattern->name, "mixed"))
		for (size_t page = 0; page * PAGE < pattern->size; page++)
			protect(pattern, page * PAGE, PAGE, page % 8);
}

static void map_all(const struct pattern *first, const struct pattern *end)
{
	for (; first < end; first++)
		map(first);
}

#ifdef __aarch64__
/* ---- swap: a disk in memory, by the module that the archive has ---- */

#define BLOCK_DEVICE 0060600
#define FIRST_DISK (1 << 8)	/* major number 1, minor 0 */

static void swap_on(void)
{
	static struct {	/* union swap_header of Linux, include/linux/swap.h */
		char boot[1024];
		uint32_t version, last_page, bad_pages, rest[(PAGE - 1024 - 12 - 10) / 4];
		char between[2], magic[10];
	} header = { .version = 1, .last_page = 15, .magic = { "SWAPSPACE2" } };
	_Static_assert(sizeof header == PAGE, "the magic number ends a page");

	long module = opened("/brd.ko", "swap");
	checked(call(SYS_FINIT_MODULE, module, (long)"rd_nr=1 rd_size=64", 0, 0, 0, 0), "finit_module", "swap");
	checked(call(SYS_MKNODAT, 0, (long)"/disk", BLOCK_DEVICE, FIRST_DISK, 0, 0), "mknodat", "swap");
	long disk = opened_for(READ_WRITE, "/disk", "swap");
	checked(call(SYS_PWRITE, disk, (long)&header, sizeof header, 0, 0, 0), "pwrite", "swap");
	call(SYS_CLOSE, disk, 0, 0, 0, 0, 0);
	checked(call(SYS_SWAPON, (long)"/disk", 0, 0, 0, 0, 0), "swapon", "swap");
}
#else
static void swap_on(void)
{
}
#endif

/* ---- the report ---- */

struct process {
	const char *name;
	int cpu;
	const struct pattern *first, *end;	/* what it has for itself */
};

static const struct process parent = { "parent", 0, parents, END(parents) };
static const struct process child = { "child", 1, childs, END(childs) };

static const char *read_file(const char *name, char *text, size_t size)
{
	long file = opened(name, name);
	size_t length = 0;
	for (long got = 1; got; length += got)
		got = checked(call(SYS_READ, file, (long)(text + length), size - 1 - length, 0, 0, 0), "read", name);
	text[length] = 0;
	call(SYS_CLOSE, file, 0, 0, 0, 0, 0);
	return text;
}

static uint64_t hex(const char **text)
{
	uint64_t value = 0;
	for (;; ++*text) {
		if (**text >= '0' && **text <= '9')
			value = value << 4 | (**text - '0');
		else if (**text >= 'a' && **text <= 'f')
			value = value << 4 | (**text - 'a' + 10);
		else
			return value;
	}
}

/* QEMU's number of a processor of Linux's: on RISC-V it is the firmware that chooses which hart is Linux's first. */
static int qemus_number(int cpu)
{
#ifdef __riscv
	static char cpuinfo[8 * 1024];
	int processors = -1;	/* those before the line, but for one; each has a line of its hart alone */
	for (const char *text = read_file("/proc/cpuinfo", cpuinfo, sizeof cpuinfo); *text; text++) {
		bool begins = text == cpuinfo || text[-1] == '\n';
		if (begins && text[0] == 'h' && text[4] == '\t' && ++processors == cpu) {
			while (*text != ':')
				text++;
			return text[2] - '0';
		}
	}
#endif
	return cpu;
}

static const struct pattern *pattern_at(uintptr_t address, const struct pattern *first, const struct pattern *end)
{
	for (; first < end; first++)
		if (address - first->first < first->size)
			return first;
	return NULL;
}

/* A frame of 0 says that there is none: the first page of memory is no process's. */
#define NO_FRAME 0ull
#define UNKNOWN (~0ull)
#define IN_SWAP (1ull << 62)	/* in swap, where pagemap says: the type of the area in the bits below, and the offset */

static void print_run(uint64_t frame, uint64_t count)
{
	if (frame == UNKNOWN)
		print("?");
	else if (frame & IN_SWAP)
		print("s"), print_number(frame & PAGEMAP_FRAME, 16);
	else if (frame == NO_FRAME)
		print("-");
	else
		print_number(frame, 16);
	if (count > 1)
		print_decimal("*", count);
}

static bool is_frame(uint64_t frame)
{
	return frame != NO_FRAME && !(frame & IN_SWAP);
}

static void print_frames(long pagemap, uintptr_t first, uintptr_t end)
{
	static uint64_t entries[512];
	size_t known = 0;	/* entries that the last read gave */
	uint64_t frame = 0, count = 0;
	for (uintptr_t page = first; page < end; page += PAGE) {
		size_t index = (page - first) / PAGE % 512;
		if (!index)
			known = checked(call(SYS_PREAD, pagemap, (long)entries, sizeof entries,
					     page / PAGE * sizeof *entries, 0, 0), "pread", "pagemap") / sizeof *entries;
		uint64_t next = index >= known ? UNKNOWN :
				entries[index] >> 63 ? entries[index] & PAGEMAP_FRAME :
				entries[index] & IN_SWAP ? entries[index] & (IN_SWAP | PAGEMAP_FRAME) : NO_FRAME;
		if (count && next != (is_frame(frame) ? frame + count : frame)) {
			print_run(frame, count);
			print(",");
			count = 0;
		}
		if (!count++)
			frame = next;
	}
	print_run(frame, count);
}

/* Tells of one line of /proc/self/maps, `first-end rwxp offset device inode name`, and answers the next one. */
static const char *report_map(const struct process *process, const char *text, long pagemap)
{
	uintptr_t first = hex(&text);
	text++;
	uintptr_t end = hex(&text);
	const char rights[] = { text[1], text[2], text[3], 0 };
	bool private = text[4] == 'p';
	char name[32];
	size_t length = 0;
	for (; *text != '\n'; text++) {
		if (*text == ' ')
			length = 0;
		else if (length < sizeof name - 1)
			name[length++] = *text;
	}
	name[length] = 0;

	const struct pattern *pattern = pattern_at(first, inherited, END(inherited));
	if (!pattern)
		pattern = pattern_at(first, process->first, process->end);
	print("@ map space=");
	print(process->name);
	print(" name=");
	print(pattern ? pattern->name : length ? name : "anonymous");
	print_hex(" first=", first);
	print_hex(" size=", end - first);
	print(" rights=");
	print(rights);
	print(private ? " sharing=private" : " sharing=shared");
	print(pattern && pattern->kind == LARGE ? " page=2M" : pattern && pattern->kind == OF_SIXTEEN ? " page=64K" : " page=4K");
	print(pattern && written(pattern) ? " stamped=yes" : " stamped=no");
	print(" frames=");
	print_frames(pagemap, first, end);
	end_line();
	return text + 1;
}

/*
 * What a report needs is there before it tells what is there: else the line of its own variables would be of the past
 * when it is printed.  Each process writes, since a fork took the right to write away.
 */
static __attribute__((noinline)) void settle(void)
{
	volatile char stack[2 * PAGE];
	for (size_t offset = 0; offset < sizeof stack; offset += PAGE)
		stack[offset] = 0;
	for (uintptr_t page = (uintptr_t)__bss_start & -PAGE; page < (uintptr_t)_end; page += PAGE)
		*(volatile char *)page = *(volatile char *)page;
}

static void report(const struct process *process)
{
	static char maps[32 * 1024];

	settle();
	print("@ process space=");
	print(process->name);
	print_decimal(" pid=", pid);
	print_decimal(" cpu=", qemus_number(process->cpu));
	print_hex(" spins=", (uintptr_t)spin_here);
	end_line();
	long pagemap = opened("/proc/self/pagemap", "pagemap");
	for (const char *text = read_file("/proc/self/maps", maps, sizeof maps); *text;)
		text = report_map(process, text, pagemap);
}

/* ---- both lives ---- */

/* The two processes take turns: a turn is a byte in a pipe. */
struct turn {
	int in, out;
};

static struct turn to_child, to_parent;

static void open_turn(struct turn *turn)
{
	checked(call(SYS_PIPE2, (long)turn, 0, 0, 0, 0, 0), "pipe2", "turn");
}

static void give(const struct turn *turn)
{
	checked(call(SYS_WRITE, turn->out, (long)"", 1, 0, 0, 0), "write", "turn");
}

static void await(const struct turn *turn)
{
	char byte;
	checked(call(SYS_READ, turn->in, (long)&byte, 1, 0, 0, 0), "read", "turn");
}

static void stay_on(int cpu)
{
	uint64_t mask = 1ull << cpu;
	checked(call(SYS_SCHED_SETAFFINITY, 0, sizeof mask, (long)&mask, 0, 0, 0), "sched_setaffinity", "cpu");
}

/*
 * Copies half of the small pages, and one 4K page of a large one, which has Linux split the child's mapping of it.
 * A fork leaves what is shared for the child to find.
 */
static void live_as_child(void)
{
	know_oneself();
	stay_on(child.cpu);
	map_all(child.first, child.end);
	for (size_t offset = 0; offset < shared->size; offset += PAGE)
		look_at(shared->first + offset);
	for (size_t page = 4; page < 8; page++)
		stamp(forked->first + page * PAGE);
	stamp(copied->first);
	copied->kind = SPLIT;
	await(&to_child);
	report(&child);
	give(&to_parent);
}

static void live_as_parent(void)
{
	stay_on(parent.cpu);
	map_all(parent.first, parent.end);
	give(&to_child);
	await(&to_parent);
	report(&parent);
	print("@ ready");
	end_line();
}

static void report_kernel(void)
{
	static char names[6][65];	/* struct new_utsname */
	checked(call(SYS_UNAME, (long)names, 0, 0, 0, 0, 0), "uname", "kernel");
	print("@ kernel release=");
	print(names[2]);
	end_line();
}

void start(void)
{
	checked(call(SYS_MKDIRAT, 0, (long)"/proc", 0755, 0, 0, 0), "mkdirat", "/proc");
	checked(call(SYS_MOUNT, (long)"proc", (long)"/proc", (long)"proc", 0, 0, 0), "mount", "/proc");
	report_kernel();
	swap_on();
	know_oneself();
	map_all(inherited, END(inherited));
	open_turn(&to_child);
	open_turn(&to_parent);
	if (checked(call(SYS_CLONE, CHILD_ENDS, 0, 0, 0, 0, 0), "clone", "child"))
		live_as_parent();
	else
		live_as_child();
	spin_here();
}
