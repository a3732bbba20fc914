/* x86 as the plugin sees it: registers in QEMU's state of a processor, and what is told of it. */
#ifndef ARCH_H
#define ARCH_H
#include "qemu.h"

#define TARGETS		"x86_64"
#define PROGRAM		"qemu-system-x86_64"
#define DESCRIPTION	"vmstate_x86_cpu"
#define READS_FOR_GDB	"x86_cpu_gdb_read_register"
#define FIRST_FIELD	"env.regs"
#define SECOND_FIELD	"env.eip"

enum place { EIP, HFLAGS, CR0, CR2, CR3, CR4, EFER, REGS, SEGS, PLACES };
enum { SEGMENT_SIZE = 24, SEGMENT_BASE = 8, ES = 0, CS, SS, DS, FS, GS };

static inline u64 load(const u8 *state, enum place place) { return *(const volatile u64 *)(state + at[place]); }
static inline u32 flags_of(const u8 *state) { return *(const volatile u32 *)(state + at[HFLAGS]); }
static inline u64 gpr(const u8 *state, int n) { return ((const volatile u64 *)(state + at[REGS]))[n]; }
static inline u64 base(const u8 *state, int segment)
{
	return *(const volatile u64 *)(state + at[SEGS] + segment * SEGMENT_SIZE + SEGMENT_BASE);
}

/* Bits of hflags (target/i386/cpu.h) */
#define HF_CPL		3u
#define HF_CS32		(1u << 4)
#define HF_PE		(1u << 7)
#define HF_LMA		(1u << 14)
#define HF_CS64		(1u << 15)
#define HF_SMM		(1u << 19)
#define HF_GUEST	(1u << 21)	/* a guest of the guest, under SVM */
#define WATCHED		(HF_CPL | HF_PE | HF_LMA | HF_SMM | HF_GUEST)

#define CR0_WP		(1ull << 16)
#define CR0_NW		(1ull << 29)
#define CR0_CD		(1ull << 30)
#define CR0_PG		(1ull << 31)
#define CR4_PSE		(1ull << 4)
#define CR4_PAE		(1ull << 5)
#define CR4_PGE		(1ull << 7)
#define CR4_LA57	(1ull << 12)
#define CR4_PCIDE	(1ull << 17)
#define CR4_SMEP	(1ull << 20)
#define EFER_LMA	(1ull << 10)
#define EFER_NXE	(1ull << 11)

#define P		1ull
#define W		2ull
#define U		4ull
#define A		(1ull << 5)
#define D		(1ull << 6)
#define PS		(1ull << 7)
#define G		(1ull << 8)
#define NX		(1ull << 63)
#define ADDRESS		0x000ffffffffff000ull

enum { LOW_MEMORY = 1 << 20 };	/* what is below moves on a PC */

/* An instruction that flushes. */
enum what { NOTHING, MOVES_CR2, MOVES_CR3, MOVES_CONTROL, INVALIDATES_PAGE, INVALIDATES_PCID };

/* Of a processor, as last seen. */
struct control {
	u64 cr0, cr2, cr3, cr4, efer;
	u64 handler;	/* where page faults are handled */
	u64 operand;	/* of INVLPG */
	u32 flags;
	bool paging;
};

/* What is told (report.h): how often each flush was seen, the state of a processor, and what ends what is cached. */
#define ARCH_TOTALS(X)	X(invlpg) X(mov_cr3) X(control)
#define ARCH_STATE(X)	X(cr0) X(cr3) X(cr4) X(efer)
#define ARCH_BY(X)	X(by_invlpg) X(by_mov_cr3) X(by_control)
#define ARCH_HOWS	INVLPG, MOV_CR3, CONTROL

/* Rules that can be broken, beside those of shadow.h. */
#define ARCH_PLANTS \
	INVLPG_DROPS_NOTHING, INVLPG_DROPS_ALL, INVLPG_SPARES_GLOBAL, INVLPG_SPARES_STRUCTURES, INVLPG_SPARES_LARGE, \
	INVLPG_WITHOUT_SEGMENT, CR3_DROPS_NOTHING, CR3_DROPS_GLOBAL, CR3_SPARES_STRUCTURES, PGE_DROPS_NOTHING, \
	PG_DROPS_NOTHING, SMEP_DROPS_NOTHING, TASK_SWITCH_DROPS_NOTHING, FAULT_DROPS_NOTHING, FAULT_SPARES_STRUCTURES, \
	GLOBAL_WITHOUT_PGE, WP_IGNORED, NO_REGISTERS, REGISTERS_STAY, MOV_CR2_FAULTS, WP_LOADS_REGISTERS, \
	SMEP_KEEPS_REGISTERS, SMEP_SPARES_GLOBAL, THREADS_WITHOUT_FS, ROOTS_WITHOUT_PAIRS, PAE_DROPS_NOTHING, PSE36_IGNORED, \
	CD_KEEPS_REGISTERS, NW_KEEPS_REGISTERS, PG_KEEPS_REGISTERS, PAE_KEEPS_REGISTERS, PGE_KEEPS_REGISTERS, \
	PSE_KEEPS_REGISTERS, TASK_SWITCH_KEEPS_REGISTERS, SMEP_IGNORED, PDPTES_ARE_CACHED, SAME_FAULT_IGNORED, \
	ANY_CONTROL_DROPS
#endif
