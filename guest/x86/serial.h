/* The serial port, a 16550 at COM1. */
#ifndef SERIAL_H
#define SERIAL_H

#include "instructions.h"

static inline void serial_put(char c)
{
	while (!(in(COM1_LSR) & LSR_EMPTY))
		;
	out(COM1, c);
}

static inline char serial_get(void)
{
	while (!(in(COM1_LSR) & LSR_RECEIVED))
		asm volatile("sti\n\thlt\n\tcli" ::: "memory");
	return in(COM1);
}

#endif
