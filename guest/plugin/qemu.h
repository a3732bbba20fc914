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

/*
 * Where registers stand in the state of a processor, in bytes, and how wide they are there, by QEMU's description of
 * what a migration takes.  Which there are says arch.h, in the order of `enum place`; `older` is what another version
 * of QEMU calls one.
 */
struct place_name { const char *name, *older; };
extern size_t at[], width_of[];
const char *check_places(void);	/* of the architecture: a sentence where one is not as it has to be, or NULL */

/* A register that QEMU tells by another way too: by name in the plugin interface, by number in its gdb stub. */
struct told { const char *name; int number; int place; };

#endif
