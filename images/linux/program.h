/* What a program without a library needs of Linux: system calls, and lines of text to say. */
#ifndef PROGRAM_H
#define PROGRAM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
enum { SYS_WRITE = 1, SYS_EXIT = 60 };

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
	asm volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return number;
}
#elif defined(__riscv)
enum { SYS_WRITE = 64, SYS_EXIT = 93 };

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long a0 asm("a0") = a, a1 asm("a1") = b, a2 asm("a2") = c, a3 asm("a3") = d, a4 asm("a4") = e,
		      a5 asm("a5") = f, a7 asm("a7") = number;
	asm volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a7) : "memory");
	return a0;
}
#elif defined(__aarch64__)
enum { SYS_WRITE = 64, SYS_EXIT = 93 };

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x0 asm("x0") = a, x1 asm("x1") = b, x2 asm("x2") = c, x3 asm("x3") = d, x4 asm("x4") = e,
		      x5 asm("x5") = f, x8 asm("x8") = number;
	asm volatile("svc #0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x8) : "memory");
	return x0;
}
#endif

/* ---- lines ---- */

static char buffer[4096];
static size_t buffered;

static void flush(void)
{
	for (size_t done = 0; done < buffered;) {
		long written = call(SYS_WRITE, 1, (long)(buffer + done), buffered - done, 0, 0, 0);
		if (written <= 0)
			break;
		done += written;
	}
	buffered = 0;
}

static void print(const char *text)
{
	while (*text) {
		if (buffered == sizeof buffer)
			flush();
		buffer[buffered++] = *text++;
	}
}

static void print_number(uint64_t value, unsigned base)
{
	if (value >= base)
		print_number(value / base, base);
	print((char[]){ "0123456789abcdef"[value % base], 0 });
}

static inline void print_hex(const char *name, uint64_t value)
{
	print(name);
	print("0x");
	print_number(value, 16);
}

static inline void print_decimal(const char *name, uint64_t value)
{
	print(name);
	print_number(value, 10);
}

static void end_line(void)
{
	print("\n");
	flush();
}

static long checked(long result, const char *what, const char *name)
{
	if (result >= 0)
		return result;
	end_line();
	print("@ failed call=");
	print(what);
	print(" name=");
	print(name);
	print_decimal(" error=", -result);
	end_line();
	call(SYS_EXIT, 1, 0, 0, 0, 0, 0);
	__builtin_unreachable();
}
#endif
