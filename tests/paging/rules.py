"""The rules of x86 paging, written a second time: from the manuals, over bytes and numbers, with
nothing of the library's, so that the library can be compared with them.

Each function is a section or a table of the manual, named in its docstring, and spells bits and
numbers out as the manual does, so that it can be checked with the manual beside it.  It is written
to be read, not to be fast or short.

Sources: Intel SDM volume 3A, chapter 4 (paging) and 6.15 (exceptions); AMD APM volume 2, 5.3, where
AMD's processors read entries otherwise.  Taken to be there: PAT, PGE, and a processor that sets A
and D itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PF, GP, SS = 14, 13, 12
"""Vectors (6.15)."""

KINDS = ("read", "write", "fetch", "push", "pop", "shadow read", "shadow write")
"""What an access is.  Push and pop are those that refer to the stack segment."""

WRITES = ("write", "push", "shadow write")
SHADOW = ("shadow read", "shadow write")


@dataclass(frozen=True)
class Machine:
    """The CPU state that the rules speak of.

    levels   of tables: 2 is 32-bit paging, 3 PAE paging, 4 and 5 those of long mode
    pdptes   the four PDPTE registers of PAE paging
    cr3      without the bits that have names of their own here
    """

    levels: int = 4
    maxphyaddr: int = 40
    nxe: bool = True
    page1gb: bool = True
    wp: bool = True
    smep: bool = False
    smap: bool = False
    lass: bool = False
    ac: bool = False
    pse: bool = True
    pse36: bool = True
    amd: bool = False
    pke: bool = False
    pks: bool = False
    pkru: int = 0
    pkrs: int = 0
    lam: bool = False
    lam_u48: bool = False
    lam_u57: bool = False
    lam_sup: bool = False
    pcide: bool = False
    cr3: int = 0
    pdptes: tuple[int, ...] = (0, 0, 0, 0)

    def __str__(self) -> str:
        on = [n for n in ("nxe", "page1gb", "wp", "smep", "smap", "lass", "ac") if getattr(self, n)]
        mode = {2: "32-bit", 3: "PAE"}.get(self.levels, f"{self.levels}level")
        return "-".join([mode, f"M{self.maxphyaddr}", *on])


@dataclass(frozen=True)
class Translation:
    """How the walk of an address ends.

    end       "page", "not present", "reserved", "not canonical", "no PDPTE", or "no memory"
              where an entry would be read from an address that has none: the rules do not say
              what that gives
    level     of the entry at which it ended, 0 for a PTE; None where none was read
    used      addresses and values of the entries, from the root down, the last one included
    physical  what a page's address translates to
    offending the reserved bits that are set
    """

    end: str
    level: int | None
    used: tuple[tuple[int, int], ...] = ()
    physical: int = 0
    offending: int = 0


@dataclass(frozen=True)
class Answer:
    """What an access comes to.

    vector    of the exception, None where the access is made
    error     its error code
    cr2       what CR2 is set to, None where it is left alone
    accessed  addresses of the entries in which A is set
    dirty     of that in which D is set, None where there is none
    """

    vector: int | None
    error: int = 0
    cr2: int | None = None
    physical: int | None = None
    accessed: tuple[int, ...] = ()
    dirty: int | None = None


def bit(value: int, number: int) -> bool:
    """Whether a bit is set."""
    return bool(value >> number & 1)


def field(value: int, high: int, low: int) -> int:
    """Bits high:low of a value, where they stand."""
    return value & (1 << high + 1) - (1 << low)


def entry_at(memory: bytes | bytearray, address: int, size: int) -> int | None:
    """The entry at a physical address, None beyond the end of memory."""
    if address + size > len(memory):
        return None
    return int.from_bytes(memory[address : address + size], "little")


# ---- linear addresses ----


def is_canonical(machine: Machine, address: int) -> bool:
    """3.3.7.1: bits 63:47, or 63:56 with five levels, are all equal.  Outside long mode addresses
    have 32 bits, all of them good."""
    if machine.levels < 4:
        return True
    highest = 47 if machine.levels == 4 else 56
    return address >> highest in (0, (1 << 64 - highest) - 1)


def without_metadata(machine: Machine, pointer: int, kind: str) -> int:
    """Linear-address masking: in a pointer to data of 64-bit mode, the bits above the address are
    replaced by its highest bit; bit 63 is not, which says whose pointer it is.  CR3 decides for
    the user's, where LAM_U57 wins over LAM_U48, CR4 for the supervisor's."""
    if not machine.lam or machine.levels < 4 or kind == "fetch":
        return pointer
    if bit(pointer, 63):
        if not machine.lam_sup:
            return pointer
        highest = 47 if machine.levels == 4 else 56
    elif machine.lam_u57:
        highest = 56
    elif machine.lam_u48:
        highest = 47
    else:
        return pointer
    metadata = field(-1, 62, highest + 1)
    return pointer | metadata if bit(pointer, highest) else pointer & ~metadata


def is_kept_apart(machine: Machine, address: int, kind: str, user: bool, implicit: bool) -> bool:
    """Linear-address-space separation, which long mode alone has: CR4.LASS=1 keeps the user from
    addresses whose bit 63 is 1, and the supervisor from those whose bit 63 is 0.  To the
    supervisor's fetches that always applies, to its data accesses while CR4.SMAP=1, but not to
    explicit ones while EFLAGS.AC=1."""
    if not machine.lass or machine.levels < 4:
        return False
    if user:
        return bit(address, 63)
    exempt = kind != "fetch" and (not machine.smap or (machine.ac and not implicit))
    return not bit(address, 63) and not exempt


# ---- 4.3: 32-bit paging ----


def reserved_in_pde32(machine: Machine, pde: int) -> int:
    """Table 4-4 (4-MByte page) and 4-5: only a PDE that maps a page has reserved bits: bits
    21:(M-19), where M is the smaller of 40 and MAXPHYADDR; bits 21:13 without PSE-36."""
    if not (machine.pse and bit(pde, 7)):
        return 0
    m = min(40, machine.maxphyaddr) if machine.pse36 else 32
    return field(pde, 21, m - 19)


def walk32(machine: Machine, memory: bytes | bytearray, address: int) -> Translation:
    """4.3, figures 4-2 and 4-3."""
    pde_at = field(machine.cr3, 31, 12) | (address >> 22 & 0x3FF) << 2
    pde = entry_at(memory, pde_at, 4)
    if pde is None:
        return Translation("no memory", 1)
    used: tuple[tuple[int, int], ...] = ((pde_at, pde),)
    if not bit(pde, 0):
        return Translation("not present", 1, used)
    if offending := reserved_in_pde32(machine, pde):
        return Translation("reserved", 1, used, offending=offending)
    if machine.pse and bit(pde, 7):
        # Bits 39:32 are from bits 20:13 of the PDE, 31:22 from bits 31:22, 21:0 from the address.
        page = field(pde, 31, 22) | field(pde, 20, 13) >> 13 << 32
        return Translation("page", 1, used, page | field(address, 21, 0))
    pte_at = field(pde, 31, 12) | (address >> 12 & 0x3FF) << 2
    pte = entry_at(memory, pte_at, 4)
    if pte is None:
        return Translation("no memory", 0, used)
    used += ((pte_at, pte),)
    if not bit(pte, 0):
        return Translation("not present", 0, used)
    return Translation("page", 0, used, field(pte, 31, 12) | field(address, 11, 0))


# ---- 4.4: PAE paging ----


def reserved_in_pdpte(machine: Machine, pdpte: int) -> int:
    """Table 4-8: bits 2:1, 8:5 and 63:M of one that is present."""
    if not bit(pdpte, 0):
        return 0
    return field(pdpte, 2, 1) | field(pdpte, 8, 5) | field(pdpte, 63, machine.maxphyaddr)


def reserved_in_pae(machine: Machine, entry: int, page_bits: int) -> int:
    """Tables 4-9 to 4-11: bits 62:M, bit 63 without NXE, and below the address of a large page
    all but PAT, which is bit 12."""
    reserved = field(entry, 62, machine.maxphyaddr)
    if not machine.nxe:
        reserved |= field(entry, 63, 63)
    if page_bits > 12:
        reserved |= field(entry, page_bits - 1, 13)
    return reserved


def walk_pae(machine: Machine, memory: bytes | bytearray, address: int) -> Translation:
    """4.4.2, figures 4-5 and 4-6: from the PDPTE register that bits 31:30 select."""
    pdpte = machine.pdptes[address >> 30 & 3]
    if not bit(pdpte, 0):
        return Translation("no PDPTE", None)
    m = machine.maxphyaddr
    pde_at = field(pdpte, m - 1, 12) | (address >> 21 & 0x1FF) << 3
    pde = entry_at(memory, pde_at, 8)
    if pde is None:
        return Translation("no memory", 1)
    used: tuple[tuple[int, int], ...] = ((pde_at, pde),)
    if not bit(pde, 0):
        return Translation("not present", 1, used)
    large = bit(pde, 7)  # whatever CR4.PSE is
    if offending := reserved_in_pae(machine, pde, 21 if large else 12):
        return Translation("reserved", 1, used, offending=offending)
    if large:
        return Translation("page", 1, used, field(pde, m - 1, 21) | field(address, 20, 0))
    pte_at = field(pde, m - 1, 12) | (address >> 12 & 0x1FF) << 3
    pte = entry_at(memory, pte_at, 8)
    if pte is None:
        return Translation("no memory", 0, used)
    used += ((pte_at, pte),)
    if not bit(pte, 0):
        return Translation("not present", 0, used)
    if offending := reserved_in_pae(machine, pte, 12):
        return Translation("reserved", 0, used, offending=offending)
    return Translation("page", 0, used, field(pte, m - 1, 12) | field(address, 11, 0))


# ---- 4.5: 4-level and 5-level paging ----


def reserved_in_long(machine: Machine, level: int, entry: int) -> int:
    """Tables 4-14 to 4-20, of an entry whose level is 4 for a PML5E to 0 for a PTE."""
    reserved = field(entry, 51, machine.maxphyaddr)
    if not machine.nxe:
        reserved |= field(entry, 63, 63)
    if level >= 3:
        reserved |= field(entry, 7, 7)
        if machine.amd:  # APM volume 2, figures 5-20 and 5-21: bit 8 of a PML4E and PML5E is MBZ
            reserved |= field(entry, 8, 8)
    if level == 2 and not machine.page1gb:
        reserved |= field(entry, 7, 7)
    elif level == 2 and bit(entry, 7):
        reserved |= field(entry, 29, 13)
    elif level == 1 and bit(entry, 7):
        reserved |= field(entry, 20, 13)
    return reserved


def walk_long(machine: Machine, memory: bytes | bytearray, address: int) -> Translation:
    """4.5.4, figures 4-8 to 4-10: level n is indexed by nine bits, the lowest of which is
    12 + 9n; a PDPTE or a PDE with PS=1 maps a page of 1 GByte or 2 MBytes."""
    m = machine.maxphyaddr
    table = field(machine.cr3, m - 1, 12)
    used: tuple[tuple[int, int], ...] = ()
    for level in range(machine.levels - 1, -1, -1):
        lowest = 12 + 9 * level
        at = table | (address >> lowest & 0x1FF) << 3
        entry = entry_at(memory, at, 8)
        if entry is None:
            return Translation("no memory", level, used)
        used += ((at, entry),)
        if not bit(entry, 0):
            return Translation("not present", level, used)
        if offending := reserved_in_long(machine, level, entry):
            return Translation("reserved", level, used, offending=offending)
        if level == 0 or (level <= 2 and bit(entry, 7)):
            page = field(entry, m - 1, lowest)
            return Translation("page", level, used, page | field(address, lowest - 1, 0))
        table = field(entry, m - 1, 12)
    raise AssertionError("a PTE maps a page")


def walk(machine: Machine, memory: bytes | bytearray, address: int) -> Translation:
    """The walk of an address in the machine's mode, if there is one: not of an address that is
    not canonical."""
    if not is_canonical(machine, address):
        return Translation("not canonical", None)
    if machine.levels == 2:
        return walk32(machine, memory, address)
    if machine.levels == 3:
        return walk_pae(machine, memory, address)
    return walk_long(machine, memory, address)


# ---- 4.6: access rights ----


def is_user_page(found: Translation) -> bool:
    """4.6.1: a user-mode address has U/S=1 in every entry that controls its translation."""
    return all(bit(entry, 2) for _, entry in found.used)


def is_writable(found: Translation) -> bool:
    """R/W=1 in every entry."""
    return all(bit(entry, 1) for _, entry in found.used)


def is_executable(machine: Machine, found: Translation) -> bool:
    """XD=0 in every entry; 32-bit paging has no XD, and without NXE it is reserved."""
    return machine.levels == 2 or not any(bit(entry, 63) for _, entry in found.used)


def is_shadow_stack(found: Translation) -> bool:
    """4.6.1: R/W=0 and D=1 in the entry that maps the page, and R/W=1 in all above it."""
    *above, (_, leaf) = found.used
    return all(bit(entry, 1) for _, entry in above) and not bit(leaf, 1) and bit(leaf, 6)


def rights_allow(
    machine: Machine, found: Translation, kind: str, user: bool, implicit: bool
) -> bool:
    """4.6.1, by whose access it is, to whose page, and what it does."""
    if user:
        return is_user_page(found) and _user_may(machine, found, kind)
    if is_user_page(found):
        return _supervisor_may_at_user_page(machine, found, kind, implicit)
    return _supervisor_may(machine, found, kind)


def _user_may(machine: Machine, found: Translation, kind: str) -> bool:
    """User-mode accesses to user-mode addresses."""
    if kind in ("read", "pop"):
        return True
    if kind in ("write", "push"):
        return is_writable(found)
    if kind == "fetch":
        return is_executable(machine, found)
    return is_shadow_stack(found)


def _supervisor_may(machine: Machine, found: Translation, kind: str) -> bool:
    """Supervisor-mode accesses to supervisor-mode addresses."""
    if kind in ("read", "pop"):
        return True
    if kind in ("write", "push"):
        return is_writable(found) or not machine.wp
    if kind == "fetch":
        return is_executable(machine, found)
    return is_shadow_stack(found)


def _supervisor_may_at_user_page(
    machine: Machine, found: Translation, kind: str, implicit: bool
) -> bool:
    """Supervisor-mode accesses to user-mode addresses: SMAP keeps data from them, unless the
    access is explicit and EFLAGS.AC=1; SMEP keeps fetches; no supervisor shadow stack is there."""
    if kind in SHADOW:
        return False
    if kind == "fetch":
        return not machine.smep and is_executable(machine, found)
    if machine.smap and (implicit or not machine.ac):
        return False
    return kind in ("read", "pop") or is_writable(found) or not machine.wp


def key_denies(machine: Machine, found: Translation, kind: str, user: bool) -> bool:
    """4.6.2: in long mode, bits 62:59 of the entry that maps the page are its key, to which PKRU
    (user-mode addresses, with CR4.PKE=1) or IA32_PKRS (supervisor-mode addresses, with CR4.PKS=1)
    gives two bits: AD denies data accesses, WD writes, those of the supervisor only if CR0.WP=1.
    IA32_PKRS is for supervisor-mode accesses, the only ones that such an address can have."""
    if machine.levels < 4 or kind == "fetch":
        return False
    key = found.used[-1][1] >> 59 & 0xF
    if is_user_page(found):
        rights = machine.pkru if machine.pke else 0
    else:
        rights = machine.pkrs if machine.pks and not user else 0
    access_disabled, write_disabled = bit(rights, 2 * key), bit(rights, 2 * key + 1)
    return access_disabled or (write_disabled and kind in WRITES and (user or machine.wp))


# ---- 4.7: page faults ----


def error_code(
    machine: Machine, kind: str, user: bool, present: bool, reserved: bool, key: bool
) -> int:
    """4.7, figure 4-12.  Bits 1, 2, 4 and 6 are about the access, whatever was wrong."""
    fetches_are_told = machine.smep or (machine.levels > 2 and machine.nxe)
    return (
        present << 0
        | (kind in WRITES) << 1
        | user << 2
        | reserved << 3
        | (kind == "fetch" and fetches_are_told) << 4
        | key << 5
        | (kind in SHADOW) << 6
    )


# ---- 4.8: accessed and dirty, and all of it together ----


def access(
    machine: Machine,
    memory: bytes | bytearray,
    pointer: int,
    kind: str,
    user: bool,
    implicit: bool = False,
) -> Answer | None:
    """What an access comes to; None where an entry would come from where no memory is."""
    address = without_metadata(machine, pointer, kind)
    if is_kept_apart(machine, address, kind, user, implicit):
        return Answer(SS if kind in ("push", "pop") else GP)
    found = walk(machine, memory, address)
    if found.end == "not canonical":  # 6.15: #SS for what refers to the stack segment
        return Answer(SS if kind in ("push", "pop") else GP)
    if found.end == "no memory":
        return None
    if found.end in ("not present", "no PDPTE"):
        return Answer(PF, error_code(machine, kind, user, False, False, False), address)
    if found.end == "reserved":
        return Answer(PF, error_code(machine, kind, user, True, True, False), address)
    key = key_denies(machine, found, kind, user)
    if key or not rights_allow(machine, found, kind, user, implicit):
        return Answer(PF, error_code(machine, kind, user, True, False, key), address)
    accessed = tuple(at for at, _ in found.used)
    dirty = accessed[-1] if kind in WRITES else None
    return Answer(None, physical=found.physical, accessed=accessed, dirty=dirty)


# ---- loading CR3 and CR4 ----


def load_cr3(machine: Machine, memory: bytes | bytearray, value: int) -> Machine | None:
    """MOV to CR3; None is #GP(0).

    Long mode (4.5.2): bits 63:M must be 0, but for LAM_U57 and LAM_U48 where the processor has
    them, and bit 63 with CR4.PCIDE=1.  PAE paging (4.4.1): the PDPTEs at bits 31:5 are loaded, none
    that is present with a reserved bit set; all or none.
    """
    if machine.levels >= 4:
        may_be_set = 0
        if machine.lam:
            may_be_set |= field(value, 62, 61)
        if machine.pcide:
            may_be_set |= field(value, 63, 63)
        if field(value, 63, machine.maxphyaddr) & ~may_be_set:
            return None
    loaded = replace(machine, cr3=value)
    if machine.levels != 3:
        return loaded
    pdptes = []
    for number in range(4):
        pdpte = entry_at(memory, field(value, 31, 5) + 8 * number, 8)
        assert pdpte is not None, "no PDPTEs are beyond the end of memory"
        if reserved_in_pdpte(machine, pdpte):
            return None
        pdptes.append(pdpte)
    return replace(loaded, pdptes=tuple(pdptes))
