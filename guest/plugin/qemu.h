/*
 * QEMU as the plugin sees it: the part of the plugin interface that is used, declared by hand, since Debian has no
 * package with QEMU's header; and what is taken from QEMU's inside, by names that its executable exports.
 */
#ifndef QEMU_H
#define QEMU_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

/* include/qemu/qemu-plugin.h */
struct qemu_info {
	const char *target;
	struct { int min, cur; } version;
	bool system_emulation;
	int smp_vcpus, max_vcpus;
};

typedef void (*on_vcpu)(unsigned cpu, void *data);
typedef void (*on_memory)(unsigned cpu, u32 info, u64 address, void *data);
enum { WITHOUT_REGISTERS = 0, READS_REGISTERS = 1 };
enum { LOADS = 1, STORES = 2, BOTH = 3 };

void qemu_plugin_register_vcpu_tb_exec_cb(void *block, on_vcpu, int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(void *insn, on_vcpu, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(void *insn, on_memory, int flags, int which, void *data);
size_t qemu_plugin_tb_n_insns(void *block);
void *qemu_plugin_tb_get_insn(void *block, size_t index);
u64 qemu_plugin_insn_vaddr(void *insn);
void *qemu_plugin_insn_haddr(void *insn);
size_t qemu_plugin_insn_size(void *insn);
unsigned qemu_plugin_mem_size_shift(u32 info);
bool qemu_plugin_mem_is_store(u32 info);

/* Versions of the interface: QEMU 7.2 and 8.2 have 1, 9.0 has 2, 10.0 has 4, 11.1 has 7. */
enum { WITH_REGISTERS = 3, WITH_DATA = 7 };	/* registers can be read; callbacks take user data */
static inline bool is_known(int version) { return version == 1 || (version >= WITH_REGISTERS && version <= WITH_DATA); }
extern int interface;

void register_callbacks(u64 id, void (*translated)(void *block), void (*flushed)(void));
size_t instruction_bytes(void *insn, u8 *bytes, size_t size);

/* What is inside.  Each answers a sentence, or NULL where all is well. */
const char *find_insides(void);
void qemu_release(u64 *major, u64 *minor, u64 *micro);
const u8 *processor_state(unsigned cpu);
u8 *host_page(u64 physical);	/* NULL where there is no RAM */
const char *check_registers(const u8 *state);

/* Where registers stand in the state of a processor, in bytes. */
enum place { EIP, HFLAGS, CR0, CR2, CR3, CR4, EFER, REGS, SEGS, PLACES };
extern size_t at[PLACES];
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
#endif
