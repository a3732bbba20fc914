/* The instructions of x86 that flush.  See ../shadow.h. */
#include <string.h>
#include "x86.h"

/* ---- INVLPG's operand ---- */

static const u8 *skip_prefixes(const u8 *byte, int *segment, bool *address_size)
{
	for (;; byte++)
		switch (*byte) {
		case 0x26: *segment = ES; break;
		case 0x2e: *segment = CS; break;
		case 0x36: *segment = SS; break;
		case 0x3e: *segment = DS; break;
		case 0x64: *segment = FS; break;
		case 0x65: *segment = GS; break;
		case 0x67: *address_size = true; break;
		case 0x66: case 0xf0: case 0xf2: case 0xf3: break;
		default: return byte;
		}
}

static int segment_of(int named, int base_register)
{
	return named >= 0 ? named : base_register == 4 || base_register == 5 ? SS : DS;
}

static u64 operand16(const u8 *state, const u8 *modrm, int named)
{
	static const int first[] = { 3, 3, 5, 5, 6, 7, 5, 3 }, second[] = { 6, 7, 6, 7, -1, -1, -1, -1 };
	int mod = *modrm >> 6, rm = *modrm & 7;
	int16_t offset = 0;
	bool absolute = mod == 0 && rm == 6;
	if (mod == 1)
		offset = (int8_t)modrm[1];
	else if (mod == 2 || absolute)
		memcpy(&offset, modrm + 1, 2);
	u64 sum = offset;
	if (!absolute)
		sum += gpr(state, first[rm]) + (second[rm] < 0 ? 0 : gpr(state, second[rm]));
	return (sum & 0xffff) + base(state, segment_of(named, absolute ? 3 : first[rm]));
}

/* The linear address of the memory operand of an instruction whose opcode has two bytes (volume 2A, 2.1.5). */
static u64 operand_of(const u8 *state, const struct special *special, u64 next)
{
	u32 flags = flags_of(state);
	bool long_mode = flags & HF_CS64, short_address = false;
	int named = -1, rex = 0, base_register = -1;
	const u8 *byte = skip_prefixes(special->bytes, &named, &short_address);
	if (long_mode && (*byte & 0xf0) == 0x40)
		rex = *byte++;
	const u8 *modrm = byte + 2;
	if (!long_mode && !!(flags & HF_CS32) == short_address)
		return operand16(state, modrm, named);
	int mod = *modrm >> 6, rm = *modrm & 7;
	const u8 *rest = modrm + 1;
	u64 sum = 0;
	int32_t offset = 0;
	bool wide = mod == 2;
	if (rm == 4) {
		int index = (*rest >> 3 & 7) | (rex & 2) << 2, scale = *rest >> 6;
		base_register = *rest++ & 7;
		if (index != 4)
			sum += gpr(state, index) << scale;
		if (mod == 0 && base_register == 5)
			wide = true, base_register = -1;
	} else if (mod == 0 && rm == 5) {
		wide = true;
		sum = long_mode ? next : 0;
	} else {
		base_register = rm;
	}
	if (base_register >= 0)
		sum += gpr(state, base_register | (rex & 1) << 3);
	if (mod == 1)
		offset = (int8_t)*rest;
	else if (wide)
		memcpy(&offset, rest, 4);
	sum += offset;
	if (!long_mode || short_address)
		sum = (u32)sum;
	int segment = segment_of(named, rex & 1 ? -1 : base_register);
	if (planted(INVLPG_WITHOUT_SEGMENT) || (long_mode && segment != FS && segment != GS))
		return sum;
	sum += base(state, segment);
	return long_mode ? sum : (u32)sum;
}

/* ---- instructions ---- */

static enum what moves_to(int control_register)
{
	switch (control_register) {
	case 2: return MOVES_CR2;
	case 3: return MOVES_CR3;
	case 8: return NOTHING;
	default: return MOVES_CONTROL;
	}
}

/* In 32-bit code 0x40 to 0x4f are instructions of one byte, so that nothing is mistaken. */
enum what what_is(const u8 *byte)
{
	int segment = -1;
	bool address_size = false;
	byte = skip_prefixes(byte, &segment, &address_size);
	bool rex_r = (*byte & 0xf4) == 0x44;
	if ((*byte & 0xf0) == 0x40)
		byte++;
	if (byte[0] != 0x0f)
		return NOTHING;
	if (byte[1] == 0x22)
		return moves_to((byte[2] >> 3 & 7) | rex_r << 3);
	if (byte[1] == 0x01 && byte[2] < 0xc0)
		return (byte[2] >> 3 & 7) == 7 ? INVALIDATES_PAGE : (byte[2] >> 3 & 7) == 6 ? MOVES_CONTROL : NOTHING;
	if (byte[1] == 0x38 && byte[2] == 0x82)
		return INVALIDATES_PCID;
	return NOTHING;
}

/* Up to 7.2 registers may be QEMU's own here, and are read when the block has ended. */
void note_special(struct processor *p, const struct special *special)
{
	if (special->what == INVALIDATES_PAGE && interface >= WITH_REGISTERS)
		p->c.operand = operand_of(p->state, special, special->pc + p->offset + special->length);
}


void settle(struct processor *p)
{
	const struct special *special = &p->special;
	if (special->what == INVALIDATES_PAGE) {
		if (interface < WITH_REGISTERS)
			p->c.operand = operand_of(p->state, special, special->pc + special->length);
		lock();
		drop_page(p, p->c.operand);
		unlock();
	} else if (special->what == INVALIDATES_PCID) {
		lock();		/* TCG has none: should it have one some day, this is at least nothing false */
		drop_all(p, true, CONTROL);
		unlock();
	} else if (special->what == MOVES_CR2) {
		if (!planted(MOV_CR2_FAULTS))	/* no page fault, which is told by its change */
			p->c.cr2 = load(p->state, CR2);
	} else {
		note_control(p, special->what == MOVES_CR3);
	}
}

/* ---- registers ---- */

const struct place_name place_names[PLACES] = {
	[EIP] = { .name = "env.eip" }, [HFLAGS] = { .name = "env.hflags" }, [CR0] = { .name = "env.cr[0]" },
	[CR2] = { .name = "env.cr[2]" }, [CR3] = { .name = "env.cr[3]" }, [CR4] = { .name = "env.cr[4]" },
	[EFER] = { .name = "env.efer" }, [REGS] = { .name = "env.regs" }, [SEGS] = { .name = "env.segs" },
};

/* Numbers are gdb's for x86-64. */
const struct told all_told[] = { { "cr0", 27, CR0 }, { "cr3", 29, CR3 }, { "cr4", 30, CR4 }, { "efer", 32, EFER }, { NULL, 0, 0 } };

/* Elsewhere the other ways say less. */
bool is_checked_at(const struct processor *p) { return p->c.paging && flags_of(p->state) & HF_CS64; }

const char *check_places(void)
{
	return width_of[SEGS] == SEGMENT_SIZE ? NULL : "QEMU's segments are not of the size that is known here";
}
