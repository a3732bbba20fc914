/* See qemu.h.  No offset and no structure of QEMU's is assumed but what is looked up and checked at the start. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include "arch.h"

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
int interface;

/* QEMU 11.1 loads no plugin that says another version than its own: say the one of the QEMU that loads this. */
__attribute__((constructor)) static void choose_version(void)
{
	if (dlsym(RTLD_DEFAULT, "qemu_plugin_register_vcpu_syscall_filter_cb"))
		qemu_plugin_version = WITH_DATA;
	else if (dlsym(RTLD_DEFAULT, "qemu_plugin_read_register"))
		qemu_plugin_version = WITH_REGISTERS;
}

/* ---- callbacks, which took the plugin's id before they took user data ---- */

static void (*translated_callback)(void *block);

static void translated_by_id(u64 id, void *block) { (void)id; translated_callback(block); }
static void translated_with_data(void *block, void *data) { (void)data; translated_callback(block); }

void register_callbacks(u64 id, void (*translated)(void *block), void (*flushed)(void))
{
	void *on_flushed = dlsym(RTLD_DEFAULT, "qemu_plugin_register_flush_cb");
	void *on_translated = dlsym(RTLD_DEFAULT, "qemu_plugin_register_vcpu_tb_trans_cb");
	/* What it is called with, the id or user data, is of no interest. */
	((void (*)(u64, void (*)(void), void *))on_flushed)(id, flushed, NULL);
	translated_callback = translated;
	if (interface >= WITH_DATA)
		((void (*)(u64, void (*)(void *, void *), void *))on_translated)(id, translated_with_data, NULL);
	else
		((void (*)(u64, void (*)(u64, void *)))on_translated)(id, translated_by_id);
}

/* Since interface 3 the bytes are copied; before, they are pointed to. */
size_t instruction_bytes(void *insn, u8 *bytes, size_t size)
{
	static void *data;
	size_t length = qemu_plugin_insn_size(insn);
	if (!data)
		data = dlsym(RTLD_DEFAULT, "qemu_plugin_insn_data");
	if (length > size)
		length = size;
	if (interface >= WITH_REGISTERS)
		((size_t (*)(const void *, void *, size_t))data)(insn, bytes, length);
	else
		memcpy(bytes, ((const void *(*)(const void *))data)(insn), length);
	return length;
}

/* ---- the inside ---- */

typedef struct { u8 *data; u32 length; } byte_array;	/* GByteArray */
typedef struct { void *handle; const char *name; } reg;	/* the begin of qemu_plugin_reg_descriptor */
typedef struct { u8 *items; u32 length; } reg_array;	/* GArray */

static void *(*get_cpu)(int);
static void *(*map)(void *, u64, u64 *, bool, u64);
static void (*unmap)(void *, void *, u64, bool, u64);
static u64 (*ram_address)(void *);
static void *memory;
static int (*read_gdb_register)(void *, byte_array *, int);
static byte_array *(*new_bytes)(void);
static void (*resize)(byte_array *, u32);
static u32 (*item_size)(reg_array *);
static reg_array *(*registers)(void);
static bool (*read_register)(void *, byte_array *);	/* up to version 5 it answers an int */
static const struct { const int64_t *triple; } *(*query_version)(void *);
static const u8 *description;	/* of the processor's state, as for a migration */

static const struct { const char *name; void *found; } needed[] = {
	{ "qemu_get_cpu", &get_cpu }, { "address_space_map", &map }, { "address_space_unmap", &unmap },
	{ "qemu_ram_addr_from_host", &ram_address }, { "address_space_memory", &memory },
	{ DESCRIPTION, &description }, { "g_byte_array_new", &new_bytes },
	{ "g_byte_array_set_size", &resize }, { "g_array_get_element_size", &item_size },
	{ READS_FOR_GDB, &read_gdb_register }, { "qmp_query_version", &query_version },
};

extern const struct place_name place_names[PLACES];
extern const struct told all_told[];
size_t at[PLACES], width_of[PLACES];

/*
 * VMStateField begins with name, err_hint, offset and size, in 11.1 without err_hint, which is NULL; the fields end
 * where there is no name.
 */
struct field { const char *name; size_t words[]; };
enum { MOST_WORDS = 32, MOST_FIELD_WORDS = 32, MOST_FIELDS = 256 };

/* The array of fields in a VMStateDescription: what points to a pointer to the name of the first. */
static const struct field *fields_of(const u8 *structure)
{
	const struct field *const *words = (const void *)structure;
	Dl_info where;
	for (int i = 1; i < MOST_WORDS; i++) {
		if (!words[i] || !dladdr(words[i], &where) || (uintptr_t)words[i] % sizeof(void *))
			continue;
		if (words[i]->name && dladdr(words[i]->name, &where) && !strcmp(words[i]->name, FIRST_FIELD))
			return words[i];
	}
	return NULL;
}

/* How many words a VMStateField is: the second field's name stands one later. */
static size_t field_words(const struct field *first)
{
	const char *const *words = (const void *)first;
	Dl_info where;
	for (size_t i = 4; i < MOST_FIELD_WORDS; i++)
		if (words[i] && dladdr(words[i], &where) && !strcmp(words[i], SECOND_FIELD))
			return i;
	return 0;
}

static const struct field *field_called(const struct field *first, size_t words, const char *name)
{
	const struct field *field = first;
	for (int i = 0; name && i < MOST_FIELDS && field->name; i++) {
		if (!strcmp(field->name, name))
			return field;
		field = (const void *)((const char *const *)field + words);
	}
	return NULL;
}

static const char *find_places(void)
{
	const struct field *first = fields_of(description);
	size_t words = first ? field_words(first) : 0;
	if (!words)
		return "QEMU's description of a processor's state is not of a form that is known here";
	bool hinted = !first->words[0];
	for (int place = 0; place < PLACES; place++) {
		const struct field *field = field_called(first, words, place_names[place].name);
		if (!field)
			field = field_called(first, words, place_names[place].older);
		if (!field)
			return "QEMU's description of a processor's state lacks a register that is needed";
		at[place] = field->words[hinted];
		width_of[place] = field->words[hinted + 1];
	}
	return check_places();
}

const char *find_insides(void)
{
	static char sentence[200];
	for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
		if (!(*(void **)needed[i].found = dlsym(RTLD_DEFAULT, needed[i].name))) {
			snprintf(sentence, sizeof sentence, "this QEMU does not export %s, which is needed (one built with"
				 " --enable-modules, as distributions do, exports it)", needed[i].name);
			return sentence;
		}
	registers = dlsym(RTLD_DEFAULT, "qemu_plugin_get_registers");
	read_register = dlsym(RTLD_DEFAULT, "qemu_plugin_read_register");
	return find_places();
}

/* As the monitor's query-version has it. */
void qemu_release(u64 *major, u64 *minor, u64 *micro)
{
	const int64_t *triple = query_version(NULL)->triple;
	*major = triple[0];
	*minor = triple[1];
	*micro = triple[2];
}

const u8 *processor_state(unsigned cpu)
{
	return get_cpu(cpu);
}

/*
 * RAM is mapped as if to write: what is no RAM is then answered with a buffer that is not filled, so that no device is
 * read, and given back with nothing written.
 */
u8 *host_page(u64 physical)
{
	u64 length = 4096, unspecified = 1;
	u8 *page = map(memory, physical, &length, true, unspecified);
	if (!page)
		return NULL;
	bool ram = ram_address(page) != ~0ull;
	unmap(memory, page, length, !ram, 0);
	return ram && length == 4096 ? page : NULL;
}

static u64 value(byte_array *bytes)
{
	u64 result = 0;
	memcpy(&result, bytes->data, bytes->length < 8 ? bytes->length : 8);
	return result;
}

/* By the plugin interface, by name. */
static bool public_register(const char *name, u64 *result)
{
	static reg_array *all;
	byte_array *bytes = new_bytes();
	if (!all)
		all = registers();
	for (u32 i = 0; all && i < all->length; i++) {
		const reg *one = (const void *)(all->items + i * item_size(all));
		if (!strcmp(one->name, name) && read_register(one->handle, bytes)) {
			*result = value(bytes);
			return true;
		}
	}
	return false;
}

/* By what QEMU's gdb stub reads, in the order of gdb's x86-64 registers. */
static bool gdb_register(const u8 *state, int number, u64 *result)
{
	byte_array *bytes = new_bytes();
	resize(bytes, 0);
	if (read_gdb_register((void *)state, bytes, number) <= 0)
		return false;
	*result = value(bytes);
	return true;
}

/*
 * The places hold what QEMU says by another way: the public one where there is one.  In a callback that reads
 * registers, where paging is on: elsewhere the other ways may say less.
 */
const char *check_registers(const u8 *state)
{
	static char sentence[200];
	u64 said = 0;
	for (const struct told *one = all_told; one->name; one++) {
		bool known = registers ? public_register(one->name, &said) : gdb_register(state, one->number, &said);
		if (known && said == load(state, one->place))
			continue;
		snprintf(sentence, sizeof sentence, "%s is not where QEMU's description of the state has it: %#lx there,"
			 " %#lx in QEMU", one->name, load(state, one->place), said);
		return sentence;
	}
	return NULL;
}
