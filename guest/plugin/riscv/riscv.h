/* What RISC-V's rules.c has for its instructions.c. */
#ifndef RISCV_H
#define RISCV_H
#include "shadow.h"

void fence(struct processor *p, bool all, u64 address, int space);	/* with the lock held */
void note_satp(struct processor *p, u64 before, u64 pc);
#endif
