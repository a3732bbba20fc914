#include "instructions.h"

#pragma GCC visibility push(hidden)	/* addresses relative to RIP, none through a table */

#include "console.h"
#include "protocol.h"

static void put(char c)
{
	while (!(in(COM1_LSR) & LSR_EMPTY))
		;
	out(COM1, c);
}

void print(const char *text)
{
	while (*text)
		put(*text++);
}

void print_hex(uint64_t value)
{
	for (int shift = 60; shift >= 0; shift -= 4) {
		unsigned digit = value >> shift & 0xf;
		put(digit < 10 ? '0' + digit : 'a' + digit - 10);
	}
}

void print_decimal(uintptr_t value)
{
	if (value >= 10)
		print_decimal(value / 10);
	put('0' + value % 10);
}

void print_nonce(const char *word)
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

void read_line(char *line, unsigned size)
{
	unsigned length = 0;
	for (char c = get(); c != '\n' && c != '\r'; c = get())
		if (length < size - 1)
			line[length++] = c;
	line[length] = 0;
}

bool equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}
