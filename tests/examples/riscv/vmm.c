/* The page tables of a small kernel for RISC-V: Sv39, Sv48 or Sv57, pages of 4K and 2M.
   Each BUG_ is one that people have written. */
#include <stddef.h>
#include <stdint.h>

#define PTE_V (1ull << 0)
#define PTE_R (1ull << 1)
#define PTE_W (1ull << 2)
#define PTE_X (1ull << 3)
#define PTE_U (1ull << 4)
#define PTE_G (1ull << 5)
#define PTE_A (1ull << 6)
#define PTE_D (1ull << 7)

enum { VMM_READ = 1, VMM_WRITE = 2, VMM_EXEC = 4, VMM_USER = 8, VMM_GLOBAL = 16, VMM_LARGE = 32 };

struct vmm {
    uint8_t *ram; /* physical address 0, as this code sees it */
    uint64_t root;
    int levels;
    uint64_t (*alloc)(void);    /* the physical address of a free frame, 0 for none */
    void (*flush)(uint64_t va); /* SFENCE.VMA of an address, 0 for all */
};

static uint64_t entry_of(uint64_t pa)
{
#ifdef BUG_PPN /* as on x86, where an entry holds the address where it is */
    return pa;
#else
    return pa >> 12 << 10;
#endif
}

static uint64_t address_of(uint64_t e)
{
#ifdef BUG_PPN
    return e & ~0xfffull;
#else
    return (e >> 10 & 0xfffffffffffull) << 12;
#endif
}

static unsigned index_of(uint64_t va, int level)
{
#ifdef BUG_SHIFT
    if (level == 2)
        return va >> 29 & 511;
#endif
    return va >> (12 + 9 * level) & 511;
}

static uint64_t bits_of(int flags)
{
    uint64_t e = PTE_V;
#ifndef BUG_AD /* without them a hart faults that does not set them (Svade) */
    e |= PTE_A | (flags & VMM_WRITE ? PTE_D : 0);
#endif
#ifdef BUG_WRITE_ONLY
    if (flags & VMM_READ && !(flags & VMM_WRITE))
        e |= PTE_R;
#else
    if (flags & VMM_READ)
        e |= PTE_R;
#endif
    if (flags & VMM_WRITE)
        e |= PTE_W;
    if (flags & VMM_EXEC)
        e |= PTE_X;
#ifdef BUG_USER
    e |= PTE_U;
#else
    if (flags & VMM_USER)
        e |= PTE_U;
#endif
    if (flags & VMM_GLOBAL)
        e |= PTE_G;
    return e;
}

static uint64_t *slot(struct vmm *v, uint64_t va, int leaf, int create)
{
    uint64_t pa = v->root;
    for (int level = v->levels - 1;; level--) {
        uint64_t *e = (uint64_t *)(v->ram + pa) + index_of(va, level);
        if (level == leaf)
            return e;
        if (!(*e & PTE_V)) {
            uint64_t t = create ? v->alloc() : 0;
            if (!t)
                return NULL;
            for (int i = 0; i < 512; i++)
                ((uint64_t *)(v->ram + t))[i] = 0;
            *e = entry_of(t) | PTE_V;
#ifdef BUG_POINTER_USER /* as on x86, where every level must give a right */
            *e |= PTE_U;
#endif
#ifdef BUG_POINTER_RIGHTS
            *e |= PTE_R | PTE_W | PTE_X;
#endif
        }
        pa = address_of(*e);
    }
}

int vmm_map(struct vmm *v, uint64_t va, uint64_t pa, uint64_t size, int flags)
{
    int leaf = flags & VMM_LARGE ? 1 : 0;
    uint64_t step = 1ull << (12 + 9 * leaf);
    for (uint64_t off = 0; off < size; off += step) {
        uint64_t *e = slot(v, va + off, leaf, 1);
        if (!e || *e & PTE_V)
            return -1;
        *e = entry_of(pa + off) | bits_of(flags);
    }
    v->flush(0); /* a hart may have kept that nothing was there */
    return 0;
}

int vmm_unmap(struct vmm *v, uint64_t va, uint64_t size)
{
    for (uint64_t off = 0; off < size; off += 4096) {
        uint64_t *e = slot(v, va + off, 0, 0);
        if (!e)
            return -1;
        *e = 0;
#ifndef BUG_FLUSH
        v->flush(va + off);
#endif
    }
    return 0;
}
