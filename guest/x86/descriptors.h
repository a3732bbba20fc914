/* What the processor finds by itself: segments, the task, the handlers of exceptions. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include "protocol.h"

#include <stdint.h>

/* The last exception; vectors.S pushes the vector, and the error code where there is none. */
extern struct frame {
	uintptr_t vector, error, ip, cs, flags, sp, ss;
} frame;

extern uint64_t gdt[];

/* The linear address of what lies at `pointer`: in the 32-bit modes all segments of the stub begin at the window. */
static inline uintptr_t linear(const void *pointer)
{
#ifdef __x86_64__
	return (uintptr_t)pointer;
#else
	return (uintptr_t)pointer + batch.window;
#endif
}

/* A descriptor, with its base put in. */
static inline uint64_t based(uint64_t descriptor, uint32_t base)
{
	return descriptor | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(base >> 24) << 56;
}

enum system_type { SYSTEM_LDT = 0x82, SYSTEM_TASK = 0x89 };

/* Has the selector name a segment of the system, at most 64 KiB long. */
static inline void describe(unsigned selector, enum system_type type, uintptr_t base, uint16_t bytes)
{
	gdt[selector / 8] = based((uint64_t)type << 40 | (bytes - 1), base);
#ifdef __x86_64__
	gdt[selector / 8 + 1] = base >> 32;
#endif
}

/* Loads GDT, IDT and task at the addresses that the code runs at: it is called again after each move. */
void load_descriptors(void);

#endif
