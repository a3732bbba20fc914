/* The serial port, a 16550 on the LPC bus of QEMU's machine. */
#ifndef SERIAL_H
#define SERIAL_H

#include <stdint.h>

#define UART		0x60300d00103f8
#define UART_LSR	5
#define LSR_RECEIVED	0x01
#define LSR_EMPTY	0x20

/* Sleep for a moment. */
void doze(void);

/* Looks for something to read before it sleeps: what the harness sends next mostly comes at once. */
enum { LOOKS = 2000 };

static inline uint8_t port_read(uint64_t place)
{
	uint64_t value;

	asm volatile("eieio\n\tlbzcix %0, 0, %1" : "=r"(value) : "r"(UART + place) : "memory");
	return value;
}

static inline void port_write(uint64_t place, uint8_t value)
{
	asm volatile("stbcix %0, 0, %1\n\teieio" :: "r"((uint64_t)value), "r"(UART + place) : "memory");
}

static inline void serial_init(void)
{
	port_write(1, 0);	/* no interrupts */
	port_write(3, 0x03);	/* 8 bits, no parity */
	port_write(2, 0x01);	/* FIFO */
}

static inline void serial_put(char c)
{
	while (!(port_read(UART_LSR) & LSR_EMPTY))
		;
	port_write(0, c);
}

static inline char serial_get(void)
{
	for (unsigned looks = 0; !(port_read(UART_LSR) & LSR_RECEIVED); looks++)
		if (looks >= LOOKS)
			doze();
	return port_read(0);
}

#endif
