/* A test in C alone, for make, ctest or meson: the tables go into a file, and `pagetable prove`
   proves them. It ends as that does: with 0 where all is as it should be. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm.c"

#define FIRST 0x2000000ull /* the first physical address of their memory */
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
    (void)va; /* no processor runs under these tables yet */
}

int main(void)
{
    uint8_t *memory = calloc(SIZE, 1);
    struct vmm v = { memory - FIRST, alloc(), 4, alloc, flush };
    int wrong = vmm_map(&v, 0x400000, 0x5000000, 64 << 10, VMM_USER | VMM_WRITE);
    wrong |= vmm_protect(&v, 0x400000, 64 << 10, VMM_USER | VMM_EXEC);
    wrong |= vmm_map(&v, 0x7f1234567000, 0x5100000, 32 << 10, VMM_USER | VMM_WRITE);
    wrong |= vmm_map(&v, 0xffffffff80000000, 0x4000000, 8 << 20,
                     VMM_WRITE | VMM_EXEC | VMM_GLOBAL | VMM_LARGE);
    FILE *file = fopen("ram.bin", "wb");
    if (wrong || !file || fwrite(memory, SIZE, 1, file) != 1 || fclose(file))
        return 3;
    execlp("pagetable", "pagetable", "prove", "--ram", "ram.bin@0x2000000", "--cr3", "0x2000000",
           "--expect", "kernel.toml", "--engine", "tcg", "--junit", "program.xml", (char *)0);
    return 3;
}
