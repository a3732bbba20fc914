/* A test in C alone: the tables go into a file, and `pagetable prove` proves them. It ends as that
   does: with 0 where all is as it should be. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm.c"

#define FIRST 0x80200000ull /* the first physical address of their memory: RAM begins at 2G */
#define SIZE (1ull << 20)

static uint64_t next = FIRST;

static uint64_t alloc(void)
{
    uint64_t frame = next;
    next += 4096;
    return frame < FIRST + SIZE ? frame : 0;
}

static void flush(uint64_t va)
{
    (void)va; /* no hart runs under these tables yet */
}

int main(void)
{
    uint8_t *memory = calloc(SIZE, 1);
    struct vmm v = { memory - FIRST, alloc(), 3, alloc, flush };
    int wrong = vmm_map(&v, 0x400000, 0x88000000, 64 << 10, VMM_USER | VMM_READ | VMM_EXEC);
    wrong |= vmm_map(&v, 0x3f12345000, 0x88100000, 32 << 10, VMM_USER | VMM_READ | VMM_WRITE);
    wrong |= vmm_map(&v, 0xffffffff80000000, 0x80200000, 8 << 20,
                     VMM_READ | VMM_WRITE | VMM_EXEC | VMM_GLOBAL | VMM_LARGE);
    FILE *file = fopen("ram.bin", "wb");
    if (wrong || !file || fwrite(memory, SIZE, 1, file) != 1 || fclose(file))
        return 3;
    /* satp: MODE 8 is Sv39, and the page number of the root */
    execlp("pagetable", "pagetable", "prove", "--ram", "ram.bin@0x80200000",
           "--satp", "0x8000000000080200", "--expect", "kernel.toml", "--junit", "program.xml",
           (char *)0);
    return 3;
}
