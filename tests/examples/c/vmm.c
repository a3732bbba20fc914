/* The page tables of a small x86-64 kernel: 4 or 5 levels, pages of 4K and 2M.
   Each BUG_ is one that people have written. */
#include <stddef.h>
#include <stdint.h>

#define PTE_P (1ull << 0)
#define PTE_W (1ull << 1)
#define PTE_U (1ull << 2)
#define PTE_PS (1ull << 7)
#define PTE_G (1ull << 8)
#define PTE_XD (1ull << 63)
#ifdef BUG_XD_MASK /* bit 63 is no bit of the address */
#define PTE_ADDR (~0xfffull)
#else
#define PTE_ADDR 0x000ffffffffff000ull
#endif

enum { VMM_WRITE = 1, VMM_USER = 2, VMM_EXEC = 4, VMM_GLOBAL = 8, VMM_LARGE = 16 };

struct vmm {
    uint8_t *ram; /* physical address 0, as this code sees it */
    uint64_t root;
    int levels;
    uint64_t (*alloc)(void);    /* the physical address of a free frame, 0 for none */
    void (*flush)(uint64_t va); /* INVLPG */
};

static uint64_t *table(struct vmm *v, uint64_t pa)
{
    return (uint64_t *)(v->ram + (pa & 0x000ffffffffff000ull));
}

static unsigned index_of(uint64_t va, int level)
{
#ifdef BUG_SHIFT
    if (level == 2)
        return (va >> 29) & 511;
#endif
    return (va >> (12 + 9 * level)) & 511;
}

static uint64_t bits_of(int flags)
{
    uint64_t e = PTE_P;
    if (flags & VMM_WRITE)
        e |= PTE_W;
    if (flags & VMM_USER)
        e |= PTE_U;
    if (flags & VMM_GLOBAL)
        e |= PTE_G;
    if (!(flags & VMM_EXEC))
        e |= PTE_XD;
    return e;
}

static uint64_t *slot(struct vmm *v, uint64_t va, int leaf, int create, int flags)
{
    uint64_t pa = v->root;
    for (int level = v->levels - 1;; level--) {
        uint64_t *e = &table(v, pa)[index_of(va, level)];
        if (level == leaf)
            return e;
        if (!(*e & PTE_P)) {
            uint64_t t = create ? v->alloc() : 0;
            if (!t)
                return NULL;
            for (int i = 0; i < 512; i++)
                table(v, t)[i] = 0;
            *e = t | PTE_P | PTE_W;
        }
#ifndef BUG_UPPER_USER
        if (flags & VMM_USER)
            *e |= PTE_U;
#endif
        if (*e & PTE_PS)
            return NULL;
        pa = *e;
    }
}

int vmm_map(struct vmm *v, uint64_t va, uint64_t pa, uint64_t size, int flags)
{
    int leaf = flags & VMM_LARGE ? 1 : 0;
    uint64_t step = 1ull << (12 + 9 * leaf);
    for (uint64_t off = 0; off < size; off += step) {
        uint64_t *e = slot(v, va + off, leaf, 1, flags);
        if (!e || *e & PTE_P)
            return -1;
        *e = (pa + off) | bits_of(flags) | (leaf ? PTE_PS : 0);
    }
    return 0;
}

int vmm_protect(struct vmm *v, uint64_t va, uint64_t size, int flags)
{
    for (uint64_t off = 0; off < size; off += 4096) {
        uint64_t *e = slot(v, va + off, 0, 0, flags);
        if (!e || !(*e & PTE_P))
            return -1;
        *e = (*e & PTE_ADDR) | bits_of(flags);
        v->flush(va + off);
    }
    return 0;
}

int vmm_unmap(struct vmm *v, uint64_t va, uint64_t size)
{
    for (uint64_t off = 0; off < size; off += 4096) {
        uint64_t *e = slot(v, va + off, 0, 0, 0);
        if (!e)
            return -1;
        *e = 0;
#ifndef BUG_FLUSH
        v->flush(va + off);
#endif
    }
    return 0;
}
