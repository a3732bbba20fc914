/* The serial port, a 16550 whose interrupt goes through the PLIC. */
#ifndef SERIAL_H
#define SERIAL_H

#include "cpu.h"

#include <stdint.h>

static inline volatile uint8_t *uart(unsigned place)
{
	return (volatile uint8_t *)(uintptr_t)UART + place;
}

static inline volatile uint32_t *plic(uintptr_t place)
{
	return (volatile uint32_t *)place;
}

static inline void serial_init(void)
{
	*uart(UART_LCR) = 0x03;			/* 8 bits, no parity */
	*uart(UART_FCR) = 0x01;			/* FIFO, a single byte interrupts */
	*uart(UART_IER) = 0x01;			/* interrupt when bytes were received */
	*plic(PLIC_PRIORITY + 4 * UART_IRQ) = 1;
	*plic(PLIC_ENABLE) = 1u << UART_IRQ;
	*plic(PLIC_THRESHOLD) = 0;
}

static inline void serial_put(char c)
{
	while (!(*uart(UART_LSR) & LSR_EMPTY))
		;
	*uart(0) = c;
}

/*
 * The interrupt is enabled only while there is nothing to do, and never taken: mstatus.MIE stays clear, and WFI wakes
 * all the same (privileged specification, "Wait for Interrupt").
 */
static inline char serial_get(void)
{
	while (!(*uart(UART_LSR) & LSR_RECEIVED)) {
		asm volatile("csrw mie, %0\n\twfi\n\tcsrw mie, zero" :: "r"((uintptr_t)MIE_MEIE) : "memory");
		*plic(PLIC_CLAIM) = *plic(PLIC_CLAIM);	/* taken, and done with */
	}
	return *uart(0);
}

#endif
