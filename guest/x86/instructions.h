/* Single instructions, for both widths. */
#ifndef INSTRUCTIONS_H
#define INSTRUCTIONS_H

#include "cpu.h"

#include <stdint.h>

static inline void out(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" :: "a"(value), "Nd"(port));
}

static inline uint8_t in(uint16_t port)
{
	uint8_t value;
	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint64_t read_msr(uint32_t msr)
{
	uint32_t low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static inline void write_msr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" :: "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

#define CONTROL_REGISTER(n)						\
static inline uintptr_t read_cr##n(void)				\
{									\
	uintptr_t value;						\
	asm volatile("mov %%cr" #n ", %0" : "=r"(value) :: "memory");	\
	return value;							\
}									\
static inline void write_cr##n(uintptr_t value)				\
{									\
	asm volatile("mov %0, %%cr" #n :: "r"(value) : "memory");	\
}
CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)

static inline void write_flags(uintptr_t value)
{
	asm volatile("push %0\n\tpopf" :: "r"(value) : "cc", "memory");
}

#endif
