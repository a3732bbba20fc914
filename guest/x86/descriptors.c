#include "instructions.h"

#pragma GCC visibility push(hidden)

#include "console.h"
#include "descriptors.h"

extern const char exception_stack_top[], handlers[];	/* access64.S, access32.S */

struct gate {
	uint16_t offset_low, selector;
	uint8_t stack, type;
	uint16_t offset_middle;
#ifdef __x86_64__
	uint32_t offset_high, reserved;
#endif
};

struct __attribute__((packed)) task {
#ifdef __x86_64__
	uint32_t reserved0;
	uint64_t rsp[3], reserved1, stack[7], reserved2;
#else
	uint32_t link, esp0, ss0, unused[22];
#endif
	uint16_t reserved3, ports;
};

struct __attribute__((packed)) table_register {
	uint16_t limit;
	uintptr_t base;
};

static struct gate idt[VECTORS];
static struct task task;

static struct gate gate(unsigned vector)
{
	uintptr_t handler = (uintptr_t)handlers + vector * HANDLER_BYTES;
	return (struct gate) {
		.offset_low = handler, .offset_middle = handler >> 16,
#ifdef __x86_64__
		.offset_high = handler >> 32, .selector = CODE64, .stack = EXCEPTION_STACK, .type = 0x8e,
#else
		/* INT3 is an instruction of CPL 3: its gate must be open to that */
		.selector = WINDOW_CODE, .type = vector == BREAKPOINT ? 0xee : 0x8e,
#endif
	};
}

void load_descriptors(void)
{
	for (unsigned vector = 0; vector < VECTORS; vector++)
		idt[vector] = gate(vector);
#ifdef __x86_64__
	task.stack[EXCEPTION_STACK - 1] = (uintptr_t)exception_stack_top;
#else
	task.esp0 = (uintptr_t)exception_stack_top;
	task.ss0 = WINDOW_DATA;
#endif
	task.ports = sizeof task;	/* no port for CPL 3 */
	describe(TASK, SYSTEM_TASK, linear(&task), sizeof task);
	asm volatile("lgdt %0" :: "m"((struct table_register){ GDT_BYTES - 1, linear(gdt) }));
	asm volatile("lidt %0" :: "m"((struct table_register){ sizeof idt - 1, linear(idt) }));
	asm volatile("ltr %w0" :: "r"(TASK) : "memory");
}

/* As `unexpected` pushes them. */
struct registers {
	uintptr_t di, si, bp, ignored, bx, dx, cx, ax;
#ifdef __x86_64__
	uintptr_t r8, r9, r10, r11, r12, r13, r14, r15;
#endif
	struct frame frame;
};

static void print_register(const char *name, uint64_t value)
{
	print(name);
	print_hex(value);
}

/* An exception that no probe provoked.  The names are those of long mode in every mode. */
__attribute__((noreturn)) void panic(const struct registers *r)
{
	print_register("panic vector=", r->frame.vector);
	print_register(" error=", r->frame.error);
	print_register(" rip=", r->frame.ip);
	print_register(" cs=", r->frame.cs);
	print_register(" rflags=", r->frame.flags);
#ifdef __x86_64__
	print_register(" rsp=", r->frame.sp);
#else
	print_register(" rsp=", (uintptr_t)&r->frame.sp);	/* the stack was not changed */
#endif
	print_register(" cr0=", read_cr0());
	print_register(" cr2=", read_cr2());
	print_register(" cr3=", read_cr3());
	print_register(" cr4=", read_cr4());
	print_register(" rax=", r->ax);
	print_register(" rbx=", r->bx);
	print_register(" rcx=", r->cx);
	print_register(" rdx=", r->dx);
	print_register(" rsi=", r->si);
	print_register(" rdi=", r->di);
	print_register(" rbp=", r->bp);
#ifdef __x86_64__
	print_register(" r8=", r->r8);
	print_register(" r9=", r->r9);
	print_register(" r10=", r->r10);
	print_register(" r11=", r->r11);
	print_register(" r12=", r->r12);
	print_register(" r13=", r->r13);
	print_register(" r14=", r->r14);
	print_register(" r15=", r->r15);
#endif
	print("\n");
	for (;;)
		asm volatile("cli\n\thlt");
}
