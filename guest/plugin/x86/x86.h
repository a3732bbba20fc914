/* What x86's rules.c has for its instructions.c. */
#ifndef X86_H
#define X86_H
#include "shadow.h"

void drop_page(struct processor *p, u64 address);	/* these two with the lock held */
void drop_all(struct processor *p, bool global, enum how how);
void note_control(struct processor *p, bool written_cr3);
#endif
