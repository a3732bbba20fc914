/*
 * A program of the Linux guest that has the kernel change tables as much as it can, while another thread uses them.
 *
 * It says `@ start`, and changes mappings in every way that has to flush, on CPU 0; then it ends QEMU, on x86 with exit
 * code 33 by port 0xf4, where isa-debug-exit is, elsewhere by turning the machine off after `@ done`.  Before that the
 * names of the kernel's functions go to port 0xe9, elsewhere to the first port of virtio-serial, as in /proc/kallsyms.
 * How many operations there are is the argument `operations` of the kernel's command line, which Linux hands on.
 */
#include "program.h"

#if defined(__x86_64__)
enum {
	SYS_READ = 0, SYS_MMAP = 9, SYS_MPROTECT = 10, SYS_MUNMAP = 11, SYS_MREMAP = 25, SYS_MADVISE = 28, SYS_CLONE = 56,
	SYS_WAIT4 = 61, SYS_MOUNT = 165, SYS_IOPL = 172, SYS_SCHED_SETAFFINITY = 203, SYS_OPENAT = 257, SYS_MKDIRAT = 258,
};
#else
enum {
	SYS_IOCTL = 29, SYS_MKDIRAT = 34, SYS_MOUNT = 40, SYS_OPENAT = 56, SYS_READ = 63, SYS_SCHED_SETAFFINITY = 122,
	SYS_REBOOT = 142, SYS_MUNMAP = 215, SYS_MREMAP = 216, SYS_CLONE = 220, SYS_MMAP = 222, SYS_MPROTECT = 226, SYS_MADVISE = 233,
	SYS_WAIT4 = 260,
};
#endif
enum { HERE = -100, READ_ONLY = 0, WRITE_ONLY = 1, TELL_PARENT = 17 };	/* AT_FDCWD, SIGCHLD */
enum { READ = 1, WRITE = 2, PRIVATE = 0x2, FIXED = 0x10, ANONYMOUS = 0x20, POPULATE = 0x8000 };
enum { ADVICE_DONT_NEED = 4, ADVICE_LARGE = 14, MOVE = 1, MOVE_TO = 2 };
enum { THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x80000 };	/* VM FS FILES SIGHAND THREAD SETTLS */

#if defined(__x86_64__)
enum { DONE = 16 };
#endif

#define PAGE 4096ul
#define MIB (1ul << 20)
#define PAGES 64
#define AREA 0x1000000000ul
#define LARGE 0x2000000000ul
#define ELSEWHERE 0x3000000000ul
#define MEMORY (PRIVATE | ANONYMOUS)

static volatile bool stop;

static volatile char *page(unsigned number) { return (volatile char *)AREA + number * PAGE; }

static long mapped(uintptr_t address, size_t size, int flags)
{
	return call(SYS_MMAP, address, size, READ | WRITE, MEMORY | flags, -1, 0);
}

static void stay_on(int cpu)
{
	uint64_t mask = 1ull << cpu;
	call(SYS_SCHED_SETAFFINITY, 0, sizeof mask, (long)&mask, 0, 0, 0);	/* there may be one processor alone */
}

/* ---- the thread that uses what the other changes ---- */

static __attribute__((noreturn, used)) void use(void)
{
	stay_on(1);
	while (!stop)
		for (unsigned i = 0; i < PAGES; i++) {
			(void)*page(i);
			++*page(PAGES + i);
		}
	call(SYS_EXIT, 0, 0, 0, 0, 0, 0);
	__builtin_unreachable();
}

static char stack[4 * PAGE] __attribute__((aligned(16)));
static uint64_t thread_local_storage[2];

static void start_thread(void)
{
#if defined(__x86_64__)
	register long r10 asm("r10") = 0, r8 asm("r8") = (long)thread_local_storage;
	asm volatile("syscall; test %%eax, %%eax; jnz 1f; call use; 1:"
		     :: "a"(SYS_CLONE), "D"(THREAD), "S"(stack + sizeof stack), "d"(0), "r"(r10), "r"(r8)
		     : "rcx", "r11", "memory");
#elif defined(__riscv)
	register long a0 asm("a0") = THREAD, a1 asm("a1") = (long)(stack + sizeof stack), a2 asm("a2") = 0,
		      a3 asm("a3") = (long)thread_local_storage, a4 asm("a4") = 0, a7 asm("a7") = SYS_CLONE;
	asm volatile("ecall; bnez a0, 1f; call use; 1:"
		     : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a7) : "memory");
#endif
}

/* ---- changes ---- */

static unsigned seed = 1;

static unsigned random(unsigned limit)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % limit;
}

static void fork_and_copy(void)
{
	long child = call(SYS_CLONE, TELL_PARENT, 0, 0, 0, 0, 0);
	if (!child) {
		for (unsigned i = 0; i < 2 * PAGES; i += 3)
			*page(i) = 3;
		call(SYS_EXIT, 0, 0, 0, 0, 0, 0);
	}
	for (unsigned i = 0; i < PAGES; i++)
		*page(i) = 2;
	call(SYS_WAIT4, child, 0, 0, 0, 0, 0);
}

static void map_and_unmap(void)
{
	long place = mapped(0, 32 * PAGE, POPULATE);
	for (unsigned i = 0; i < 32; i++)
		*((volatile char *)place + i * PAGE) = 1;
	call(SYS_MUNMAP, place, 32 * PAGE, 0, 0, 0, 0);
}

static void move(void)
{
	long place = mapped(0, 8 * PAGE, POPULATE);
	*(volatile char *)place = 1;
	call(SYS_MREMAP, place, 8 * PAGE, 8 * PAGE, MOVE | MOVE_TO, ELSEWHERE, 0);
	++*(volatile char *)ELSEWHERE;
	call(SYS_MUNMAP, ELSEWHERE, 8 * PAGE, 0, 0, 0, 0);
}

static void split(unsigned number)
{
	for (size_t offset = 0; offset < 2 * MIB; offset += PAGE)
		*((volatile char *)LARGE + offset) = 1;
	uintptr_t part = LARGE + PAGE * (number & 255);
	call(SYS_MPROTECT, part, PAGE, READ, 0, 0, 0);
	call(SYS_MPROTECT, part, PAGE, READ | WRITE, 0, 0, 0);
	call(SYS_MADVISE, LARGE, 2 * MIB, ADVICE_DONT_NEED, 0, 0, 0);
}

static void change(unsigned number)
{
	unsigned first = random(PAGES), count = 1 + random(8);
	if (first + count > PAGES)
		count = PAGES - first;
	uintptr_t part = (uintptr_t)page(first);
	size_t size = count * PAGE;
	switch (number % 8) {
	case 0:
		call(SYS_MADVISE, part, size, ADVICE_DONT_NEED, 0, 0, 0);
		break;
	case 1:
		call(SYS_MPROTECT, part, size, READ, 0, 0, 0);
		call(SYS_MPROTECT, part, size, READ | WRITE, 0, 0, 0);
		break;
	case 2:
		mapped(part, size, FIXED);
		break;
	case 3:
		if (number % 64 == 3)
			fork_and_copy();
		break;
	case 4:
		map_and_unmap();
		break;
	case 5:
		call(SYS_MADVISE, (uintptr_t)page(PAGES + first), PAGE, ADVICE_DONT_NEED, 0, 0, 0);
		break;
	case 6:
		move();
		break;
	case 7:
		if (number % 40 == 7)
			split(number);
	}
}

/* ---- the names of the kernel's functions ---- */

#if !defined(__x86_64__)
static long names;	/* the file that they go to */
#endif

static void out(const char *text, size_t size)
{
#if defined(__x86_64__)
	asm volatile("rep outsb" : "+S"(text), "+c"(size) : "d"(0xe9) : "memory");
#else
	while (size) {
		long written = checked(call(SYS_WRITE, names, (long)text, size, 0, 0, 0), "write", "names");
		text += written;
		size -= written;
	}
#endif
}

static bool is_code(const char *line, size_t length)
{
	if (length < 20 || (line[17] != 't' && line[17] != 'T'))
		return false;
	return line[length - 1] != ']';	/* of a module */
}

static void tell_names(void)
{
	static char text[65536];
	size_t held = 0;
	long file = call(SYS_OPENAT, HERE, (long)"/proc/kallsyms", READ_ONLY, 0, 0, 0);
	for (;;) {
		long got = call(SYS_READ, file, (long)(text + held), sizeof text - held, 0, 0, 0);
		if (got <= 0)
			return;
		size_t begin = 0, end = held + got;
		for (size_t i = 0; i < end; i++)
			if (text[i] == '\n') {
				if (is_code(text + begin, i - begin))
					out(text + begin, i + 1 - begin);
				begin = i + 1;
			}
		held = end - begin;
		for (size_t i = 0; i < held; i++)
			text[i] = text[begin + i];
	}
}

static unsigned long number(const char *text)
{
	unsigned long value = 0;
	for (; *text >= '0' && *text <= '9'; text++)
		value = value * 10 + (*text - '0');
	return value;
}

static void mount(const char *place, const char *type)
{
	call(SYS_MKDIRAT, HERE, (long)place, 0755, 0, 0, 0);	/* it may be there */
	checked(call(SYS_MOUNT, (long)type, (long)place, (long)type, 0, 0, 0), "mount", place);
}

void start(const long *words)
{
	unsigned long operations = 1000;
	/* Behind the number of arguments and their pointers come those of the environment. */
	for (const char *const *word = (const char *const *)(words + words[0] + 2); *word; word++)
		if ((*word)[0] == 'o' && (*word)[1] == 'p' && (*word)[10] == '=')
			operations = number(*word + 11);
	mount("/proc", "proc");
#if defined(__x86_64__)
	checked(call(SYS_IOPL, 3, 0, 0, 0, 0, 0), "iopl", "3");
#else
	mount("/dev", "devtmpfs");
	names = checked(call(SYS_OPENAT, HERE, (long)"/dev/vport0p1", WRITE_ONLY, 0, 0, 0), "open", "/dev/vport0p1");
#endif
	tell_names();
	stay_on(0);
	checked(mapped(AREA, 2 * PAGES * PAGE, FIXED | POPULATE), "mmap", "area");
	checked(mapped(LARGE, 2 * MIB, FIXED), "mmap", "large");
	call(SYS_MADVISE, LARGE, 2 * MIB, ADVICE_LARGE, 0, 0, 0);
	start_thread();
	print("@ start");
	end_line();
	for (unsigned long i = 0; i < operations; i++)
		change(i);
	stop = true;
#if defined(__x86_64__)
	asm volatile("outb %%al, $0xf4" :: "a"(DONE));	/* isa-debug-exit makes exit code 2 * DONE + 1 of it */
#else
	print("@ done");
	end_line();
	call(SYS_IOCTL, 1, 0x5409, 1, 0, 0, 0);	/* TCSBRK: until it was sent */
	call(SYS_REBOOT, 0xfee1dead, 672274793, 0x4321fedc, 0, 0, 0);	/* LINUX_REBOOT_CMD_POWER_OFF */
#endif
	call(SYS_EXIT, 0, 0, 0, 0, 0, 0);
}

#if defined(__x86_64__)
asm(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start");
#elif defined(__riscv)
asm(".globl _start\n_start:\n\tmv a0, sp\n\tandi sp, sp, -16\n\tcall start");
#endif
