/* RISC-V as the plugin sees it: registers in QEMU's state of a hart, and what is told of it. */
#ifndef ARCH_H
#define ARCH_H
#include "qemu.h"

#define TARGETS		"riscv64 riscv32"
#define PROGRAM		"qemu-system-riscv64 or qemu-system-riscv32"
#define DESCRIPTION	"vmstate_riscv_cpu"
#define READS_FOR_GDB	"riscv_cpu_gdb_read_register"
#define FIRST_FIELD	"env.gpr"
#define SECOND_FIELD	"env.fpr"

enum place {
	PC, GPR, MXL, PRIV, VIRT, MSTATUS, SATP, STVEC, SEPC, SCAUSE, STVAL, MTVEC, MEPC, MCAUSE, MTVAL, PLACES
};

/* RV64, or RV32, whose registers some versions of QEMU have in as many bits. */
extern bool wide;

static inline u64 load_at(const u8 *place, size_t width)
{
	u64 value = width == 8 ? *(const volatile u64 *)place : width == 4 ? *(const volatile u32 *)place : *(const volatile u8 *)place;
	return wide ? value : (u32)value;
}
static inline u64 load(const u8 *state, enum place place) { return load_at(state + at[place], width_of[place]); }
static inline u64 gpr(const u8 *state, int n)
{
	return load_at(state + at[GPR] + n * width_of[GPR], width_of[GPR]);
}

enum privilege { USERS = 0, SUPERVISOR = 1, MACHINE = 3 };
#define MSTATUS_SPP	(1ull << 8)
#define MSTATUS_MPP	(3ull << 11)
#define MSTATUS_MPRV	(1ull << 17)
#define MSTATUS_SUM	(1ull << 18)
#define MSTATUS_MXR	(1ull << 19)
#define MSTATUS_TVM	(1ull << 20)

#define V		1ull
#define R		2ull
#define W		4ull
#define X		8ull
#define U		(1ull << 4)
#define G		(1ull << 5)
#define A		(1ull << 6)
#define D		(1ull << 7)
#define N		(1ull << 63)
#define PPN		0x003ffffffffffc00ull	/* of 64-bit entries; those of Sv32 have no bits above */

enum { LOW_MEMORY = 1 };	/* memory moves nowhere, and is checked everywhere */

/* An instruction that flushes, or writes a register that is followed. */
enum what { NOTHING, WRITES_CSR, FENCES, INVALIDATES, ORDERS_STORES, ENDS_INVALIDATIONS };

enum { MOST_INVALIDATIONS = 64 };

/* Of a hart, as last seen. */
struct control {
	u64 satp, handler;
	u64 before, pc;	/* satp as it was before an instruction that writes a CSR, and where that is */
	u64 tp;		/* in the last block that was not the user's */
	u32 mode;	/* mode_word */
	bool paging;	/* in S-mode and U-mode */
	bool ordered;	/* by SFENCE.W.INVAL */
	unsigned invalidations;	/* that SFENCE.INVAL.IR is going to end */
	struct { u64 address; int space; bool all; } invalidation[MOST_INVALIDATIONS];
};

/* What is told (report.h): how often each flush was seen, the state of a hart, and what ends what is cached. */
#define ARCH_TOTALS(T)	T(fence_all) T(fence_space) T(fence_page) T(satp)
#define ARCH_STATE(T)	T(satp) T(mstatus) T(xlen)
#define ARCH_BY(T)	T(by_fence_all) T(by_fence_space) T(by_fence_page)
#define ARCH_HOWS	FENCE_ALL, FENCE_SPACE, FENCE_PAGE

/* Rules that can be broken, beside those of shadow.h. */
#define ARCH_PLANTS \
	FENCE_DROPS_NOTHING, FENCE_DROPS_ALL, FENCE_SPARES_LARGE, FENCE_DROPS_STRUCTURES, FENCE_OF_SPACE_DROPS_GLOBAL, \
	FENCE_OF_PAGE_DROPS_GLOBAL, FENCE_IGNORES_SPACE, FENCE_ALL_SPARES_GLOBAL, FENCE_ALL_SPARES_STRUCTURES, SATP_DROPS_ALL, \
	SPACES_ARE_ONE, NO_GLOBAL, GLOBAL_OF_LEAVES_ALONE, NO_READ, SUM_IGNORED, MXR_IGNORED, MPRV_IGNORED, \
	SUPERVISOR_FETCHES_USERS, NAPOT_IGNORED, FAULT_DROPS, SINVAL_AT_ONCE, SINVAL_NEEDS_NO_ORDER, SINVAL_IGNORED, \
	THREADS_WITHOUT_TP, NO_ROOT
#endif
