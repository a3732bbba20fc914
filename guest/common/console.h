/* The console: lines of text, by the serial port of serial.h, which is the architecture's. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdbool.h>
#include <stdint.h>

void print(const char *text);
void print_hex(uint64_t value);
void print_decimal(uintptr_t value);
/* The word and the batch's nonce. */
void print_nonce(const char *word);
/* One line without its end, as a string; the rest of a longer one is dropped, which makes it no command. */
void read_line(char *line, unsigned size);
bool equal(const char *a, const char *b);
/* Say that the guest is parked, and return when it is to leave. */
void wait_for_leave(void);

#endif
