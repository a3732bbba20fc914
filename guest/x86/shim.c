/*
 * Loaded into Bochs (LD_PRELOAD), so that the guest's memory is a file which the harness holds too.
 *
 * Bochs allocates that memory by one `new unsigned char[]` of the guest's size and a page or so.  The first such
 * allocation is answered with a mapping of the file; whatever else is allocated comes from malloc.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB		(1 << 20)
#define DEVICES		0xa0000	/* where a PC has devices and ROMs up to 1 MiB */
#define SURPLUS		(8 * MIB)	/* at most: what Bochs rounds up, and aligns to */

static void *shared;

static size_t number(const char *name)
{
	const char *value = getenv(name);
	return value ? strtoull(value, NULL, 10) : 0;
}

/* The mapping, should these be the guest's bytes; else NULL, and Bochs goes on with memory of its own. */
static void *guest_memory(size_t size)
{
	size_t ram = number("HARNESS_RAM_BYTES");
	int file = number("HARNESS_RAM_FILE");

	if (!ram || shared || size < ram || size > ram + SURPLUS)
		return NULL;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	if (mmap(memory, ram, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED)
		return NULL;
	/* Blocks that lie in the hole of the PC's devices are given to no one: what is above moves down. */
	if (number("HARNESS_RAM_HOLE") && mmap(memory + DEVICES, ram - MIB, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_FIXED, file, MIB) == MAP_FAILED)
		return NULL;
	return shared = memory;
}

/* operator new[](unsigned long); operator delete[](void *), and the same with a size */
void *_Znam(size_t size)
{
	void *memory = guest_memory(size);
	if (!memory)
		memory = malloc(size ? size : 1);
	if (!memory)
		abort();
	return memory;
}

void _ZdaPv(void *memory)
{
	if (memory != shared)
		free(memory);
}

void _ZdaPvm(void *memory, size_t size)
{
	(void)size;
	_ZdaPv(memory);
}
