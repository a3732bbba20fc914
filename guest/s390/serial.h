/* The console: the service-call logical processor (SCLP), which exchanges blocks of 4 KiB and whose events are text. */
#ifndef SERIAL_H
#define SERIAL_H

#include "cpu.h"

#include <stdint.h>

void serial_init(void);
void serial_put(char c);
char serial_get(void);

#endif
