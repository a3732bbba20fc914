/* The serial port, a PL011 whose interrupt goes through a GICv2. */
#ifndef SERIAL_H
#define SERIAL_H

#include "cpu.h"

#include <stdint.h>

/* Sleep until an interrupt is pending, or it was when this began.  No interrupt is taken where the stub runs. */
void doze(void);

static inline volatile uint32_t *device(uintptr_t place)
{
	return (volatile uint32_t *)place;
}

static inline void serial_init(void)
{
	*device(UART + UART_LCR) = 0x70;		/* 8 bits, no parity, FIFO */
	*device(UART + UART_CR) = 0x301;		/* it receives and transmits */
	*device(UART + UART_IMSC) = UART_RECEIVED;
	*device(GICD_ITARGETSR + UART_IRQ / 4 * 4) = 1u << UART_IRQ % 4 * 8;
	*device(GICD_ISENABLER + UART_IRQ / 32 * 4) = 1u << UART_IRQ % 32;
	*device(GICD_CTLR) = 1;
	*device(GICC_PMR) = 0xff;
	*device(GICC_CTLR) = 1;
}

static inline void serial_put(char c)
{
	while (*device(UART + UART_FR) & FR_FULL)
		;
	*device(UART + UART_DR) = c;
}

/* The interrupt stays pending while there is something to read: what comes before `doze` wakes it all the same. */
static inline char serial_get(void)
{
	while (*device(UART + UART_FR) & FR_NOTHING)
		doze();
	return *device(UART + UART_DR);
}

#endif
