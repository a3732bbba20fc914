#include "serial.h"

#pragma GCC visibility push(hidden)	/* addresses relative to RIP, none through a table */

#include "console.h"
#include "protocol.h"

void print(const char *text)
{
	while (*text)
		serial_put(*text++);
}

static void print_half(uint32_t value)
{
	for (int shift = 28; shift >= 0; shift -= 4) {
		unsigned digit = value >> shift & 0xf;
		serial_put(digit < 10 ? '0' + digit : 'a' + digit - 10);
	}
}

/* In halves: a stub of 32 bits has no library that shifts 64. */
void print_hex(uint64_t value)
{
	print_half(value >> 32);
	print_half(value);
}

void print_decimal(uintptr_t value)
{
	if (value >= 10)
		print_decimal(value / 10);
	serial_put('0' + value % 10);
}

void print_nonce(const char *word)
{
	print(word);
	print(" ");
	print_hex(batch.nonce);
}

void read_line(char *line, unsigned size)
{
	unsigned length = 0;
	for (char c = serial_get(); c != '\n' && c != '\r'; c = serial_get())
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

void wait_for_leave(void)
{
	char line[32];

	print_nonce("parked");
	print("\n");
	for (read_line(line, sizeof line); !equal(line, "leave"); read_line(line, sizeof line))
		print("error the guest is parked: the only command is leave\n");
}
