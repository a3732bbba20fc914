/* The console's commands (exchange.h). */
#include "serial.h"

#pragma GCC visibility push(hidden)

#include "commands.h"
#include "console.h"
#include "protocol.h"

#include <stdbool.h>
#include <stddef.h>

/* The argument of a command, if the line is that command; else NULL. */
static const char *argument(const char *line, const char *command)
{
	for (; *command; line++, command++)
		if (*line != *command)
			return NULL;
	return *line == ' ' ? line + 1 : NULL;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_nonce(const char *text)
{
	uint64_t value = 0;
	unsigned length = 0;
	for (; *text; text++, length++) {
		int digit = hex_digit(*text);
		if (digit < 0)
			return false;
		value = value << 4 | digit;
	}
	return length == 16 && value == batch.nonce;
}

/* Only when a batch's tables are in use no more is the harness told, who will rewrite them. */
static void obey(const char *line)
{
	const char *nonce;

	if (equal(line, "help")) {
		print("commands: run NONCE, park NONCE, leave, help; NONCE is the batch's, in 16 hexadecimal digits\n");
	} else if (equal(line, "leave")) {
		print("error nothing to leave: the guest is not parked\n");
	} else if ((nonce = argument(line, "run")) || (nonce = argument(line, "park"))) {
		if (!is_nonce(nonce)) {
			print_nonce("error this is not the nonce of the batch in memory, which is");
			print("\n");
		} else if (*line == 'p') {
			park_batch();
			print_nonce("left");
			print("\n");
		} else {
			execute_batch();
			print_nonce("done");
			print(" ");
			print_decimal(batch.done);
			print("\n");
		}
	} else {
		print("error unknown command: try help\n");
	}
}

void serve(void)
{
	char line[32];

	print("ready ");
	print_decimal(PROTOCOL_VERSION);
	print("\n");
	for (;;) {
		read_line(line, sizeof line);
		obey(line);
	}
}
