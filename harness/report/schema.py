"""The form of what commands print with `--json`, as JSON Schema (draft 2020-12).

Every key is here with what it says, its unit and its form, and no other key is printed; a test
holds the outputs of all commands against it, both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from harness.architectures import NAMES
from harness.report.objects import VERSION

Schema = dict[str, Any]

PROMISE: Final = (
    "One object on one line. The version grows when a key or a name changes its meaning or goes"
    " away, never when one is added: ignore what you do not know; this schema is closed, and lists"
    " what is printed now. All keys of an object are always there; null is what does not apply or"
    " is not known. Addresses, entries, masks, registers and error codes are hexadecimal strings"
    " without leading zeros; counts, levels, indices, and sizes in bytes are numbers, some of them"
    " beyond 53 bits. Levels count from 0, the lowest, also where the manual counts"
    " from the root down, and lines for people with it, as on arm64. Names (of kinds, rules,"
    " quirks, rights) stay; sentences are for people and may be put better at any time. An error"
    " is no object: a sentence on stderr, and an exit code."
)


# ---- what schemas are made of ----


def _number(says: str) -> Schema:
    return {"description": says, "type": "integer", "minimum": 0}


def _flag(says: str) -> Schema:
    return {"description": says, "type": "boolean"}


def _text(says: str) -> Schema:
    return {"description": says, "type": "string"}


def _name(says: str, *names: str) -> Schema:
    return {"description": says, "enum": list(names)}


def _a(definition: str, says: str) -> Schema:
    return {"description": says, "$ref": f"#/$defs/{definition}"}


def _hex(says: str) -> Schema:
    return _a("hex", says)


def _or_null(schema: Schema) -> Schema:
    """The same, or null; what it says stands outside."""
    inner = {key: value for key, value in schema.items() if key != "description"}
    return {"description": schema["description"], "anyOf": [inner, {"type": "null"}]}


def _either(says: str, *definitions: str) -> Schema:
    """One of several definitions."""
    return {"description": says, "anyOf": [{"$ref": f"#/$defs/{one}"} for one in definitions]}


def _list(says: str, item: Schema) -> Schema:
    return {"description": says, "type": "array", "items": item}


def _counts(says: str) -> Schema:
    """Numbers by names."""
    count = {"type": "integer", "minimum": 0}
    return {"description": says, "type": "object", "additionalProperties": count}


def _object(says: str, /, **properties: Schema) -> Schema:
    """An object that has these keys, all of them and no others."""
    return {
        "description": says,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _command(name: str, says: str, /, **properties: Schema) -> Schema:
    return _object(
        says,
        version={"description": "Of the form.", "const": VERSION},
        command={"description": "Which command printed it.", "const": name},
        **properties,
    )


# ---- keys that several objects have ----

_LOOKED_AT: Final = {
    "source": _text("What was looked at, for people."),
    "cpu": _either(
        "The state in which tables are read and accesses are judged, by its architecture.",
        *("cpu", "riscv_cpu", "arm64_cpu", "s390_cpu", "power_cpu"),
    ),
    "not_given": _list(
        "The registers that lead to roots and were not given, so that nothing is known of the"
        " addresses which these serve: on arm64 and POWER.",
        _name("By the option.", "ttbr0", "ttbr1", "quadrant0", "quadrant3"),
    ),
    "assumed": _list(
        "What was assumed, since the source does not record it.", _text("A sentence.")
    ),
    "notes": _list(
        "What else there is to know: CR0.WP=0, CR4.LASS=1, and departures of the engine that runs a"
        " guest, as which its tables are read.",
        _text("A sentence."),
    ),
}
_SEEN: Final = {
    "blocks": _number("Blocks of instructions."),
    "stores": _number("Stores into tables."),
    "narrowed": _number("Changes of entries that take something away."),
    "faults": _number("Page faults."),
}
_ENDED: Final = {
    "fault": _number("An access that faulted at the address, or walked the tables again."),
    "restoring": _number("None: the entry holds again what was cached."),
    "unknown": _number("Not known: too many were stale, or of another cause too."),
}
_PAT: Final = _list(
    "The memory types of IA32_PAT by index: those of --pat, else those after a reset.",
    _a("memory_type", "A type."),
)
_CUT: Final = _list(
    "What was not looked at, since there is too much; empty where all was.", _text("A sentence.")
)
_RULE: Final = _name(
    "The rule by which it faults.",
    *("not-canonical", "lass-user", "lass-fetch", "lass-data"),
    *("no-pdpte", "not-present", "reserved", "user-denied", "write-denied"),
    *("execute-denied", "smep", "smap", "shadow-stack", "pku", "pks"),
    *("no-memory", "sum", "supervisor-fetch", "read-denied", "not-accessed", "not-dirty"),
    *("out-of-range", "el0-kept-out", "half-off", "root-size", "invalid", "address-size"),
    *("access-flag", "unaligned", "alignment", "pan", "el0-writable", "wxn"),
    *("asce-type", "outside", "low-address"),
    *("segment", "no-process", "bad-tree", "unsupported", "guarded", "privileged", "key"),
    *("not-referenced", "not-changed"),
)
_REASON: Final = _text(
    "That rule as a sentence, with its section in volume 3A of the Intel SDM, or in what takes its"
    " place for the architecture."
)
_OUTCOME: Final = {
    "outcome": _name(
        "What it comes to; unknown where the walk ends outside memory, or its root is not given.",
        *("allowed", "fault", "unknown"),
    ),
    "physical": _or_null(_hex("The physical address that it reaches, if it is allowed.")),
    "vector": _or_null(_name("The exception, if it faults; else null.", "PF", "GP", "SS")),
    "error": _or_null(_hex("Its error code.")),
    "error_bits": _or_null(
        _list("The names of the bits set in it.", _text("A name, like P or RSVD."))
    ),
    "cr2": _or_null(_hex("CR2 after the fault; null where it stays as it was.")),
    "level": _or_null(_number("Where the walk ended; null where there was none.")),
    "rule": _or_null(_RULE),
    "reason": _or_null(_REASON),
}
_EFFECTIVE: Final = (
    "Those in `rights` that have an effect beside the page's other rights and bits, and what the"
    " supervisor has whatever entries say: writing, with CR0.WP=0. On arm64 EL1 executes nothing"
    " that EL0 may write, and with WXN=1 no one executes what he may write; on POWER nothing is"
    " fetched from guarded storage. Not applied, so that accesses can come to something else:"
    " accessed and dirty bits, protection keys, SMAP, LASS, PAN, E0PD and MXR."
)
_SPAN: Final = {
    "first": _hex("The first address."),
    "last": _hex("The last address, which is included."),
}
_PLACE: Final = {
    "slot": _or_null(
        _a(
            "slot",
            "Where the entry is; null of a PDPTE, which is a register, and where it is not known.",
        )
    ),
    "level": _number("The level of the entry."),
    "entry": _text("What an entry of its level is called, like PTE."),
    "raw": _hex("The entry."),
}
_BITS: Final = {
    "bits": _text("Which bits, as the manual writes them: 63, or 62:59."),
    "mask": _hex("The same bits, set."),
    "name": _text("What they are called."),
    "value": _hex("What they hold, as a number of their own; of an address, as they stand."),
    "meaning": _text("What that says here, for people."),
}
_EVERY_BIT: Final = _list(
    "Every bit once, from the highest down.",
    _object(
        "Neighbouring bits that are one thing.",
        **_BITS,
        role=_name(
            "What they are for.",
            *("present", "kind", "address", "right", "type", "use", "global", "key"),
            *("mark", "reserved", "unchecked", "ignored"),
        ),
        section=_text("Where volume 3A of the Intel SDM says so."),
        wrong=_flag("Whether they are set and must not be."),
    ),
)

_READING: Final = {
    "level": _number("The level at which the entry is read."),
    "entry": _text("What an entry of that level is called, like PTE."),
    "raw": _hex("The entry."),
    "kind": _name("What it is to the machine.", "absent", "malformed", "page", "table"),
    "says": _text("What it says, as a phrase."),
    "section": _text("Where volume 3A of the Intel SDM describes such an entry."),
    "physical": _or_null(
        _hex("Where the page or the table begins to which it leads; null where it leads nowhere.")
    ),
    "size": _or_null(_number("Bytes of the page; null where it is not one.")),
    "reserved": _or_null(_hex("The reserved bits that are set, of a malformed entry.")),
    "memory_type": _or_null(
        _a(
            "memory_type",
            "Of the page or the table to which it leads, by IA32_PAT as after a reset.",
        )
    ),
    "pat_index": _or_null(_number("The entry of IA32_PAT that PAT, PCD and PWT choose.")),
    "likely": _list(
        "What an entry that makes no sense probably is, and what speaks for that: guesses.",
        _text("A phrase, for people."),
    ),
    "parts": _EVERY_BIT,
    "linux": _or_null(
        _object(
            "What Linux keeps in the entry; null without --linux, and of a register.",
            kind=_name(
                "What the entry is to Linux.",
                *("absent", "malformed", "page", "table", "prot-none", "swap", "migration"),
                *("device", "poison", "marker", "unknown"),
            ),
            says=_text("The same as a phrase, with the marks that are set."),
            memory_type=_or_null(
                _a("memory_type", "Of a page, by IA32_PAT as Linux loads it; else null.")
            ),
            parts=_list(
                "The bits that the machine ignores, each once, from the highest down.",
                _a("bits", "Neighbouring bits that are one thing."),
            ),
        )
    ),
}
_RANGE: Final = {
    **_SPAN,
    "kind": _name(
        "What all of it is: pages; malformed entries; tables without memory; slots that lead back"
        " up; tables that were not read.",
        *("page", "malformed", "unbacked", "self-map", "unread"),
    ),
    "level": _number("Where its entries are."),
    "size": _number("Bytes that each entry spans."),
    "pages": _number("How many entries follow each other."),
    "rights": _a("rights", "Those that the entries from a root to here give together."),
    "own_rights": _a("rights", "Those that its own entries give."),
    "effective_rights": _a("rights", _EFFECTIVE),
    "memory_type": _or_null(_a("memory_type", "Of pages, by `pat`; null of all else.")),
    "common": _hex(
        "What its entries have in common: of pages all bits that the machine reads but the"
        " address, A and D, and the bit that makes them global where a pointer has it; of malformed"
        " entries the reserved bits."
    ),
    "raw": _hex("The first entry."),
    "physical": _hex(
        "Where the first page lies; of a self-map or a table not read, the table to which it leads;"
        " of a table without memory, where it is."
    ),
    "pieces": _number("How many runs of frames that follow each other; 1 where all do."),
    "one_frame": _flag("Whether all pages are the same frame."),
    "accessed": _number("How many of the entries have A set, those of equal ranges included."),
    "dirty": _number("How many have D set."),
    "aliases": _number("At how many addresses each page is: `paths` times `times`."),
    "paths": _number("At how many addresses the range is because tables are shared."),
    "times": _number("How many equal ranges there are in the same table."),
    "stride": _number("Bytes from one of these to the next; 0 where it is the only one."),
    "highest": _hex("The first address of the last of all its aliases."),
    "below": _number(
        "Of a self-map or a table not read, how many ends lie below each slot in sum."
    ),
}
_TABLE: Final = {
    "address": _hex("Its physical address."),
    "level": _number("The level at which it is used."),
    "entries": _number("How many of its slots are not absent."),
    "ends": _number("How many pages and other ends lie in and under it."),
    "paths": _number("In how many ways it is reached from the roots."),
    "slots": _number("How many slots lead to it, in tables that are each counted once."),
    "leaders": _list("The first of these slots, 8 at most; none of a root.", _a("slot", "A slot.")),
}
_EXECUTOR: Final = _text(
    "Who executed, and in which version: the engine with its emulator's, as `bochs 3.0`, or behind"
    " KVM the kernel's module with the kernel's; empty where none did."
)
_ANSWERS: Final = _list(
    "What every engine of the host says of the same question, that of the run too; empty where none"
    " was asked: of the first disagreements alone, and of none of `check`.",
    _object(
        "An answer.",
        engine=_text("The engine."),
        executor=_EXECUTOR,
        agrees=_or_null(
            _flag(
                "Whether it is what the rules say, or a known quirk of the engine; null where that"
                " could not be asked."
            )
        ),
        said=_text("What was observed, or why nothing was, for people."),
    ),
)
_FINDING: Final = {
    "oracle": _text("Who was asked: `probe`, an access that the guest made, or the monitor."),
    "address": _hex("The virtual address of the question; of table bytes, the physical one."),
    "access": _or_null(
        _a("access", "The access of the question; null where it has none, or values name it.")
    ),
    "ac": _flag("EFLAGS.AC in that access."),
    "expected": _text("What the reference says, for people."),
    "observed": _text("What the machine says, for people."),
    "walk": _or_null(
        _list("The reference's walk, for people; null where there is none.", _text("A line."))
    ),
    "case": _or_null(
        _text("The file with which `pagetable replay` asks again; null where none was written.")
    ),
    "answers": _ANSWERS,
}
_COMPARED: Final = {
    "compared": _number("Questions that have a verdict: agree, disagree, or known quirk."),
    "disagreements": _number("How many of them disagree."),
    "quirks": _counts("How often each known departure of the engine showed, by its name."),
    "not_comparable": _counts("How many questions have no verdict, by the reason."),
    "news": _counts(
        "How often the engine followed a rule from which it is known to depart, or departed as"
        " another does, by a sentence. The exit code is 4 where there is news and no disagreement."
    ),
}
_MACHINE: Final = {
    "engine": _text("What executed the guest: tcg, kvm or bochs."),
    "qemu": _text("QEMU's version, or Bochs's with engine bochs; empty where none answered."),
    "not_run_on": _list(
        "What answered in a version on which this project was not yet run.",
        _text("Who, in which version, and the versions of which its quirks are known."),
    ),
}
_RUN: Final = {
    "seconds": {"description": "Wall time in seconds.", "type": "number", "minimum": 0},
    "failure": _or_null(_text("Why the machine failed before all was asked; null where all was.")),
}
_ORACLES: Final = _list(
    "What came of each way to ask.",
    _object("One way to ask.", oracle=_text("What it is called."), **_COMPARED),
)
_MODE: Final = _text("The paging mode, by the architecture's name for it.")
_BY_MODE: Final[Schema] = {
    "type": "object",
    "additionalProperties": _counts("How many, by the name of a rule, or `allowed`."),
}

# ---- the definitions ----

_SHARED: Final = {
    "hex": {
        "description": "A number of up to 64 bits in hexadecimal, without leading zeros.",
        "type": "string",
        "pattern": "^0x(0|[1-9a-f][0-9a-f]{0,15})$",
    },
    "access": {
        "description": "Who does what. An implicit access is one to a system structure; that of"
        " a guest of RISC-V has the state of its hart, that of one of arm64 its PSTATE, that of one"
        " of s390 its address space.",
        "type": "string",
        "pattern": "^((implicit )?(user|supervisor)"
        " (read|write|fetch|AMO|push|pop|shadow stack read|shadow stack write)"
        "( with SUM=[01] MXR=[01](, by MPRV)?)?"
        "|EL[01] (read|write|fetch|AMO|LDTR|STTR)(, not aligned)?( with PAN=[01] UAO=[01])?"
        "|(problem|supervisor)-state (read|write|fetch) in the (primary|secondary|home) space"
        "|(problem-state|privileged) (read|write|fetch))$",
    },
    "memory_type": {
        "description": "A memory type, by the PAT alone: MTRRs are not looked at; on RISC-V by"
        " PBMT; on arm64 by MAIR_EL1, inner before outer, or the reserved byte of it; on s390 all"
        " memory is storage; on POWER by ATT.",
        "type": "string",
        "pattern": "^(UC|WC|WT|WP|WB|UC-|PMA|NC|IO|nGnRnE|nGnRE|nGRE|GRE|(WB|WT|NC)/(WB|WT|NC)"
        "|WB, tagged|storage|0x[0-9a-f]{2}|normal|SAO|non-idempotent|tolerant)$",
    },
    "rights": _list(
        "What pages allow.",
        _name(
            "A right; on arm64 to execute is one of the user and one of the supervisor.",
            *("read", "write", "user", "execute", "user-execute", "supervisor-execute"),
        ),
    ),
    "cpu": _object(
        "The state of a processor that decides how it translates and what it allows.",
        mode=_name("The paging mode; 4 and 5 are levels.", "32", "pae", "4", "5"),
        cr0=_hex("CR0."),
        cr3=_or_null(_hex("CR3; null where it is not known, with --entries and --oops.")),
        cr4=_hex("CR4."),
        root=_or_null(
            _hex(
                "Where CR3 leads, to the root's table or in PAE paging to the PDPTEs: CR3 without"
                " the bits that are no part of the address. Null where CR3 is."
            )
        ),
        efer=_hex("IA32_EFER."),
        pkru=_hex("PKRU."),
        pkrs=_hex("IA32_PKRS."),
        ac=_flag("EFLAGS.AC."),
        maxphyaddr=_number("MAXPHYADDR, the width of physical addresses in bits."),
        page1gb=_flag("Whether it has 1-GByte pages."),
        pse36=_flag("Whether it has 4-MByte pages above 4 GiB."),
        lam=_flag("Whether it has linear-address masking."),
        amd=_flag("Whether entries are read as AMD has it where that differs from Intel's."),
        c_bit=_or_null(_number("The bit that marks encrypted memory (SME, SEV); else null.")),
        shared_bit=_or_null(_number("The bit that marks shared memory (TDX); else null.")),
        pdptes=_or_null(
            _list("The four PDPTE registers, in PAE paging; else null.", _hex("A register."))
        ),
    ),
    "flushes_seen": _object(
        "How much was seen of a guest of x86.",
        **_SEEN,
        invlpg=_number("INVLPG."),
        mov_cr3=_number("MOV to CR3."),
        control=_number("Changes of CR0 and CR4 that drop all that is cached."),
    ),
    "riscv_flushes_seen": _object(
        "How much was seen of a guest of RISC-V.",
        **_SEEN,
        fence_all=_number("SFENCE.VMA for all addresses and address spaces."),
        fence_space=_number("SFENCE.VMA for all addresses of an address space."),
        fence_page=_number("SFENCE.VMA for an address, and SINVAL.VMA."),
        satp=_number("Writes of satp."),
    ),
    "flushes_ended": _object(
        "How many cached entries each flush of x86 ended.",
        invlpg=_number("INVLPG."),
        mov_cr3=_number("MOV to CR3."),
        control=_number("A change of CR0 or CR4."),
        **_ENDED,
    ),
    "riscv_flushes_ended": _object(
        "How many cached entries each fence of RISC-V ended.",
        fence_all=_number("SFENCE.VMA for all addresses and address spaces."),
        fence_space=_number("SFENCE.VMA for all addresses of an address space."),
        fence_page=_number("SFENCE.VMA for an address, or SINVAL.VMA."),
        **_ENDED,
    ),
    "riscv_cpu": _object(
        "The state of a RISC-V hart that decides how it translates and what it allows.",
        architecture=_name("Which it is.", "riscv"),
        mode=_name("The mode.", "sv32", "sv39", "sv48", "sv57"),
        satp=_or_null(_hex("The register satp; null where it is not known, with --entries.")),
        mstatus=_hex("The register mstatus."),
        menvcfg=_hex("The register menvcfg, on RV32 with menvcfgh."),
        senvcfg=_hex("The register senvcfg."),
        root=_or_null(_hex("Where satp leads, to the root's table; null where satp is.")),
        xlen=_number("The width of registers in bits."),
        svnapot=_flag("Whether it has Svnapot."),
        svrsw60t59b=_flag("Whether it has Svrsw60t59b."),
        svade=_flag("Whether A=0 and D=0 fault where menvcfg.ADUE=0."),
    ),
    "arm64_cpu": _object(
        "The state of an arm64 processor that decides how EL1&0 translates and what it allows.",
        architecture=_name("Which it is.", "arm64"),
        ttbr0=_or_null(_hex("TTBR0_EL1; null where it is not known.")),
        ttbr1=_or_null(_hex("TTBR1_EL1; null where it is not known.")),
        tcr=_hex("TCR_EL1, as it was given; a half whose root is not given is in `not_given`."),
        mair=_hex("MAIR_EL1."),
        sctlr=_hex("SCTLR_EL1."),
        pan=_flag("PSTATE.PAN."),
        uao=_flag("PSTATE.UAO."),
        halves=_list(
            "The lower half of the addresses, and the upper.",
            _object(
                "A half; all else is null where it is turned off, its root where it is not known.",
                half=_name("Which it is.", "lower", "upper"),
                root=_or_null(_hex("Where its root's table is.")),
                granule=_or_null(_name("Its granule.", "4K", "16K", "64K")),
                address_bits=_or_null(_number("The width of its addresses.")),
                physical_bits=_or_null(_number("The width of physical addresses.")),
                levels=_or_null(_number("The levels of its tables.")),
            ),
        ),
    ),
    "s390_cpu": _object(
        "The state of an s390 processor that decides how it translates and what it allows.",
        architecture=_name("Which it is.", "s390"),
        mode=_name(
            "The table at which walks begin.",
            *("segment", "region-third", "region-second", "region-first"),
        ),
        asce=_hex("The address-space-control element."),
        cr0=_hex("CR0."),
        root=_hex("Where the ASCE leads, to the root's table."),
        quarters=_number("How many of the 4 quarters of that table are there."),
        private=_flag("Whether the space is private."),
        edat1=_flag("Whether the enhanced-DAT facility 1 is there, and on."),
        edat2=_flag("Whether facility 2 is, too."),
        iep=_flag("Whether instruction-execution protection is there, and on."),
    ),
    "power_cpu": _object(
        "The state of a POWER processor that decides how it translates and what it allows.",
        architecture=_name("Which it is.", "power"),
        quadrant0=_or_null(
            _hex(
                "The first doubleword of the process table entry of the process in PIDR; null where"
                " there is none, or it is not known."
            )
        ),
        quadrant3=_or_null(
            _hex("The same of process 0; 0x0 where it has no tree, null where it is not known.")
        ),
        amr=_hex("AMR."),
        iamr=_hex("IAMR."),
        roots=_list(
            "Of each quadrant that can have a tree.",
            _object(
                "A quadrant.",
                quadrant=_number("Which it is, 0 or 3."),
                root=_or_null(_hex("Where its root's table is; null where it has none.")),
            ),
        ),
        smallest_page=_number(
            "The bytes of the smallest pages in whose format tables are read first; a tree may have"
            " both sizes."
        ),
        sets_marks=_flag("Whether the processor sets R and C itself."),
    ),
    "slot": _object(
        "The place of an entry.",
        address=_hex("Its physical address."),
        table=_hex("The physical address of its table."),
        level=_number("The level of the table."),
        index=_number("Its index in the table."),
    ),
    "span": _object("A range of addresses.", **_SPAN),
    "bits": _object("Neighbouring bits of a word that are one thing.", **_BITS),
    "translation": _object(
        "What becomes of an address.",
        virtual=_hex("The address as it was given."),
        translated=_hex("The one that is translated: without metadata where LAM masks it."),
        canonical=_flag("Whether the machine translates it at all."),
        why=_text("The bits that decide about that, for people."),
        split=_list(
            "How the address splits, from the root down to the offset in the page, or in the"
            " smallest page where there is none.",
            _object(
                "A part of the address.",
                level=_or_null(_number("The level of the table; null of the offset.")),
                name=_text("What an entry there is called, like PML4E, or `offset`."),
                bits=_text("Its bits, like 47:39."),
                value=_number("The index, or the offset in bytes."),
            ),
        ),
        steps=_list(
            "Every entry on the way, from the root down.",
            _object(
                "An entry.",
                slot=_PLACE["slot"],
                rights=_a("rights", "Those that all entries so far give together."),
                taken=_a("rights", "Those that it takes and the entries above it gave."),
                **_READING,
            ),
        ),
        unbacked=_or_null(
            _a("slot", "Where the next entry would be if there were memory; else null.")
        ),
        end=_name(
            "How the walk ends; no-root is one that never begins, not-given one that ends at an"
            " entry that --entries or --oops does not have.",
            *("page", "absent", "malformed", "unbacked", "no-root", "not-given"),
        ),
        rule=_or_null({**_RULE, "description": "The rule by which any access faults; else null."}),
        reason=_or_null(_REASON),
        physical=_or_null(_hex("The physical address; null where there is no page.")),
        size=_or_null(_number("Bytes of the page; null where there is none.")),
        in_memory=_or_null(
            _flag("Whether the page is in memory; null where there is none or that is not known.")
        ),
        rights=_or_null(_a("rights", "Of the page, over all levels; null where there is none.")),
        effective_rights=_or_null(_a("rights", _EFFECTIVE + " Null where there is no page.")),
        memory_type=_or_null(_a("memory_type", "Of the page, by IA32_PAT as after a reset.")),
    ),
    "range": _object("Neighbours that say the same, merged.", **_RANGE),
    "table": _object("A table that is in use at a level.", **_TABLE),
}

_COMMANDS: Final = {
    "decode": _command(
        "decode",
        "What a raw entry means.",
        cpu=_either(
            "The state in which the entry is read; where its root is plays no part.",
            *("cpu", "riscv_cpu", "arm64_cpu", "s390_cpu", "power_cpu"),
        ),
        assumed=_list("What was assumed.", _text("A sentence.")),
        readings=_list(
            "Of each entry, in their order: at its level, or where none was named at every level,"
            " from 0 up.",
            _object("The entry at one level.", **_READING),
        ),
        registers=_list(
            "Of each value of CR3, satp, TTBRn_EL1, TCR_EL1, an ASCE, PTCR, or a process table"
            " entry, in their order.",
            _object(
                "The register.",
                register=_name(
                    "Which it is.",
                    *("CR3", "satp", "TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "ASCE", "PTCR"),
                    "process table entry of the process in PIDR",
                    "process table entry of process 0",
                ),
                raw=_hex("Its value."),
                leads_to=_or_null(
                    _hex(
                        "Where the root table is, or in PAE paging the PDPTEs, or of PTCR the"
                        " partition table; null of TCR_EL1, which does not say that."
                    )
                ),
                reserved=_hex("The bits that are set and must not be."),
                parts=_EVERY_BIT,
            ),
        ),
        cut=_CUT,
    ),
    "walk": _command(
        "walk",
        "How addresses are translated.",
        **_LOOKED_AT,
        walks=_list("One for each address, in their order.", _a("translation", "A walk.")),
    ),
    "fault": _command(
        "fault",
        "What accesses come to; with --code, what a fault that was seen says.",
        source=_or_null(_LOOKED_AT["source"]),
        cpu=_or_null(_LOOKED_AT["cpu"]),
        not_given=_LOOKED_AT["not_given"],
        assumed=_LOOKED_AT["assumed"],
        notes=_LOOKED_AT["notes"],
        report=_or_null(_text("What kind of text --oops was, for people; else null.")),
        readings=_list(
            "The entries of a text that has no address, from the root down; else empty.",
            _object("An entry by itself.", **_READING),
        ),
        virtual=_or_null(
            _hex("The address asked about, with --code that in CR2; null without a source.")
        ),
        seen=_or_null(
            _either(
                "The fault that was seen, by its architecture; null where no code is known.",
                *("seen", "riscv_seen", "arm64_seen", "s390_seen", "power_seen"),
            )
        ),
        given=_or_null(
            _flag(
                "Whether the tables as they are give that fault; null where that is not asked, or"
                " the root, or an entry on which it depends, is not known."
            )
        ),
        explanations=_list(
            "What else there is to say of that; why it may not be given.", _text("A sentence.")
        ),
        outcomes=_list(
            "Of each access that was asked about, what it comes to; with --code, of the accesses"
            " that give the fault, or if none does, of those that raise such a one.",
            _either(
                "An access, by its architecture.",
                *("outcome", "riscv_outcome", "arm64_outcome", "s390_outcome", "power_outcome"),
            ),
        ),
        walk=_or_null(
            _a(
                "translation",
                "The walk, where --oops tells of an entry and of no fault; else null.",
            )
        ),
        agreement=_or_null(
            _object(
                "The entries of --oops beside those of the source; null where there are not both.",
                source=_text("What the source is, for people."),
                same=_flag("Whether all are the same."),
                entries=_list(
                    "Those of the text, from the root down.",
                    _object(
                        "An entry.",
                        level=_PLACE["level"],
                        entry=_PLACE["entry"],
                        raw=_PLACE["raw"],
                        tables=_or_null(
                            _hex("What the source holds there; null where its walk ends above.")
                        ),
                    ),
                ),
            )
        ),
    ),
    "dump": _command(
        "dump",
        "All that a space holds.",
        **_LOOKED_AT,
        pat=_PAT,
        ends=_number(
            "How many ends the whole space has: pages at every address, malformed entries and the"
            " like."
        ),
        tables_read=_number("How many tables were read, once a level."),
        total=_number("How many ranges there are of the kind asked for, listed or not (--limit)."),
        ranges=_list("The first of them, by address.", _a("range", "A range.")),
        cut=_CUT,
    ),
    "find": _command(
        "find",
        "Who leads to physical memory; which tables there are; what is mapped more than once.",
        **_LOOKED_AT,
        total=_or_null(
            _number(
                "How many tables or pieces of memory there are, listed or not (--limit); null of"
                " places, each of which has its own."
            )
        ),
        places=_or_null(
            _list(
                "One for each physical address; null where none is given.",
                _object(
                    "A place in physical memory.",
                    physical=_hex("The physical address."),
                    total=_number("How many virtual addresses it has, listed or not (--limit)."),
                    addresses=_list(
                        "The first of them, by root and address.",
                        _object(
                            "A virtual address of the place.",
                            virtual=_hex("The address."),
                            physical=_hex("Where its page begins."),
                            size=_number("Bytes of that page."),
                            level=_number("The level of the entry that maps it."),
                            raw=_hex("That entry."),
                            rights=_a("rights", "Those that all entries on the way give."),
                            effective_rights=_a("rights", _EFFECTIVE),
                        ),
                    ),
                    tables=_list("The tables that are there.", _a("table", "A table.")),
                    malformed=_list(
                        "The first entries that would lead there, were they not malformed.",
                        _object(
                            "A malformed entry.",
                            slot=_a("slot", "Where it is."),
                            raw=_hex("The entry."),
                            why=_text("What is wrong with it."),
                        ),
                    ),
                ),
            )
        ),
        tables=_or_null(
            _list(
                "The first tables in use, from the roots' level down; null without --tables.",
                _a("table", "A table."),
            )
        ),
        shared=_or_null(
            _list(
                "The first pieces of memory that are mapped more than once, those with the most"
                " addresses first; null without --aliases.",
                _object(
                    "Neighbouring physical memory.",
                    **_SPAN,
                    aliases=_number("How many virtual addresses each byte of it has."),
                ),
            )
        ),
        cut=_CUT,
    ),
    "lint": _command(
        "lint",
        "What is odd about a space.",
        **_LOOKED_AT,
        pat=_PAT,
        broken=_list(
            "The rules that are broken.",
            _object(
                "A rule that is broken.",
                rule=_text("Its name, which --ignore takes."),
                severity=_name(
                    "An error is what faults or is undefined, or lets user code change tables; a"
                    " warning is legal and seldom meant; a note is legal and common.",
                    *("error", "warning", "note"),
                ),
                sentence=_text("What it finds, for people."),
                section=_or_null(
                    _text("Where volume 3A of the Intel SDM says so; null where it does not.")
                ),
                total=_number("How many findings there are, listed or not (--limit)."),
                count=_number("The sum of the counts of all of them."),
                findings=_list(
                    "The first of them, by address.",
                    _object(
                        "Neighbours that break the rule in the same way.",
                        where=_or_null(
                            _a(
                                "span",
                                "Their lowest virtual addresses; null of what is named by"
                                " physical ones alone.",
                            )
                        ),
                        memory=_or_null(
                            _a("span", "The physical memory that is meant; null where none is.")
                        ),
                        slot=_or_null(
                            _a("slot", "That of the first entry; null where there is none.")
                        ),
                        count=_number(
                            "How many entries they are, at all their addresses; how many"
                            " addresses the memory has where `where` is null."
                        ),
                        detail=_text("What else there is to say, for people; may be empty."),
                    ),
                ),
            ),
        ),
        cut=_CUT,
    ),
    "diff": _command(
        "diff",
        "What is different between two spaces.",
        before=_a("looked_at", "The first."),
        after=_a("looked_at", "The second, or the first again, later."),
        pat=_PAT,
        same=_flag("Whether nothing is different, and all was compared."),
        total=_number("How many ranges differ, listed or not (--limit)."),
        counts=_counts("How many entries differ in each way, at all addresses, by its name."),
        changes=_list(
            "The first ranges that differ, by address.",
            _object(
                "Neighbours that are different in the same way.",
                change=_list(
                    "All that is different, the weightiest first.",
                    _name(
                        "A way. Attributes are memory type, G and key, and rights of the own entry"
                        " that come to nothing; software is what the machine does not look at.",
                        *("mapped", "unmapped", "kind", "moved", "rights", "attributes", "size"),
                        *("A/D", "software"),
                    ),
                ),
                **_SPAN,
                paths=_number("At how many addresses the range is because tables are shared."),
                before=_or_null(_a("side", "How it was; null where there was nothing.")),
                after=_or_null(_a("side", "How it is; null where there is nothing.")),
            ),
        ),
        cut=_CUT,
    ),
    "check": _command(
        "check",
        "What came of checking a guest's tables with its machine.",
        **_LOOKED_AT,
        **_MACHINE,
        **_COMPARED,
        oracles=_ORACLES,
        findings=_list("The first disagreements of each oracle.", _a("finding", "A disagreement.")),
    ),
    "prove": _command(
        "prove",
        "What came of proving a program's tables.",
        **_LOOKED_AT,
        **_MACHINE,
        **_COMPARED,
        oracles=_ORACLES,
        findings=_list("The first disagreements of each oracle.", _a("finding", "A disagreement.")),
        expected=_or_null(
            _number("How many expectations these tables are to meet; null where none was given.")
        ),
        other_levels=_number("How many are left out, as they are of other numbers of levels."),
        strict=_flag("Whether nothing else may be mapped."),
        unmet=_list(
            "What is not as expected.",
            _object(
                "Addresses that are not so, all in the same way.",
                expected=_or_null(
                    _text("What was expected of them; null of what no expectation names.")
                ),
                where=_or_null(_text("The place of the expectation in its file.")),
                span=_or_null(_object("The addresses of the expectation.", **_SPAN)),
                address=_hex("The first address that is not so."),
                wanted=_text("What was expected there, a phrase."),
                size=_number("How many bytes are not so."),
                also=_list("Other accesses that show it.", _text("An access.")),
                change=_or_null(
                    _hex("What the page's entry would have to hold; null where it cannot mend it.")
                ),
                missing=_or_null(
                    _a(
                        "missing",
                        "Where nothing is mapped, the entries that the expectation asks for; null"
                        " where there are none, or something is mapped.",
                    )
                ),
                instead=_or_null(
                    _text("Another address that leads where this one should, a sentence.")
                ),
                ranges=_list(
                    "Where it is so, of what no expectation names.",
                    _object(
                        "Pages that follow each other, with the same rights.",
                        **_SPAN,
                        effective_rights=_a("rights", _EFFECTIVE),
                        physical=_hex("Where the first of them lies."),
                    ),
                ),
                explained=_a("outcome", "What an access comes to that shows it."),
            ),
        ),
        impassable=_list(
            "Entries that no access can pass and that were not allowed.", _text("A line.")
        ),
        left_out=_list("What the machine was not asked about.", _text("A sentence.")),
    ),
    "flushes": _command(
        "flushes",
        "What came of watching the flushes of a guest.",
        arch=_name("The guest's architecture.", "x86", "riscv"),
        verdict=_name(
            "Whether a flush is missing; unwatched where the guest never had paging on, did what"
            " is not followed (on x86 set CR4.PCIDE), or ran nothing by which the plugin could"
            " check itself, or QEMU executed nothing under TCG; failed where QEMU crashed, or ended"
            " before the guest ran.",
            *("none", "missing", "unwatched", "failed"),
        ),
        fail_on=_name("Which uses make a flush missing.", "late", "stale"),
        ended=_name("What ended QEMU.", "itself", "limit", "interrupt"),
        exit_code={
            "description": "QEMU's, negative for the signal that ended it.",
            "type": "integer",
        },
        qemu=_text("QEMU's version."),
        not_run_on=_list(
            "QEMU, where the plugin was not yet run in its version.",
            _text("Its version, and those in which it was run."),
        ),
        notes=_list("What to know before one relies on the rest.", _text("A sentence.")),
        seconds={"description": "Wall time.", "type": "number", "minimum": 0},
        processors=_number("How many of the guest's processors executed something."),
        seen=_either(
            "How much was seen, by the architecture.", "flushes_seen", "riscv_flushes_seen"
        ),
        uses=_number("Stale uses, late ones among them."),
        late=_number("Those that no flush to come excuses."),
        denied=_number("Those that are page faults which what was cached would have spared."),
        uses_without_author=_number(
            "Those of changes whose store was not seen, which are never late."
        ),
        uses_without_cause=_number("Those of causes for which there was no more room."),
        forgotten=_number("Cached entries that were forgotten, for which there was no room."),
        causes=_list(
            "Uses that are alike, those with the most late ones first.",
            _object(
                "A cause.",
                uses=_number("How many uses."),
                late=_number("How many of them are late."),
                entries=_number("How many cached entries were used so."),
                flushed=_either(
                    "How many of these each flush ended, by the architecture.",
                    *("flushes_ended", "riscv_flushes_ended"),
                ),
                unflushed=_number("How many of them no flush was seen to end."),
                cached=_name(
                    "What was cached: a translation, an entry above the page, or a PDPTE register.",
                    *("translation", "structure", "register"),
                ),
                change=_object(
                    "The change after which they are stale.",
                    entry=_or_null(
                        _text(
                            "What the manual calls the entry; null where it is the register of"
                            " the root that was written."
                        )
                    ),
                    slot=_or_null(_hex("Where the entry is; null likewise.")),
                    level=_or_null(_number("Its level; null likewise.")),
                    lost=_name(
                        "What the change took.",
                        *("present", "frame", "read", "write", "user", "execute", "root", "other"),
                    ),
                    old=_hex("What the entry, or that register, held."),
                    new=_hex("What it holds."),
                    processor=_or_null(
                        _number("Which processor stored it; null where no store was seen.")
                    ),
                    pc=_or_null(_hex("By which instruction; null likewise.")),
                    symbol=_or_null(_text("In which function; null where that is not known.")),
                ),
                use=_object(
                    "One of the uses, a late one if there is any.",
                    address=_hex("The address."),
                    kind=_name("The access.", "read", "write", "fetch"),
                    user=_flag("Whether it was made in user mode."),
                    denied=_flag("Whether the guest took a page fault."),
                    physical=_hex("Where what was cached leads."),
                    processor=_number("Which processor made it."),
                    pc=_hex("By which instruction."),
                    symbol=_or_null(_text("In which function; null where that is not known.")),
                    cpu=_either("The state of that processor.", "cpu", "riscv_cpu"),
                    was=_or_null(
                        _list(
                            "The walk by what was cached; null where it is not known whole.",
                            _text("A line."),
                        )
                    ),
                    now=_or_null(_list("The walk by the tables; null likewise.", _text("A line."))),
                ),
            ),
        ),
    ),
    "validate": _command(
        "validate",
        "What came of comparing layouts with the machine.",
        arch=_name("The architecture.", *NAMES),
        **_MACHINE,
        layouts=_list(
            "Each layout that was compared, at each number of levels.",
            _object(
                "A layout at one number of levels.",
                layout=_text("Its name."),
                title=_text("Its title, for people."),
                levels=_number("At how many levels it was built."),
                compared=_COMPARED["compared"],
                disagreements=_COMPARED["disagreements"],
                seconds=_RUN["seconds"],
                oracles=_ORACLES,
                findings=_list(
                    "The first disagreements of each oracle.", _a("finding", "A disagreement.")
                ),
            ),
        ),
        **_COMPARED,
        skipped=_list(
            "What was not compared.",
            _object(
                "A layout at one number of levels.",
                layout=_text("Its name."),
                levels=_number("The number of levels."),
                reason=_text("Why not."),
            ),
        ),
        **_RUN,
    ),
    "matrix": _command(
        "matrix",
        "What came of comparing enumerated accesses with the machine.",
        arch=_name("The architecture.", *NAMES),
        **_MACHINE,
        executor=_EXECUTOR,
        accesses=_number("How many were executed and compared; the same as `compared`."),
        **_COMPARED,
        masked=_counts("What was left to the machine and not compared, by what it is."),
        skipped=_list(
            "What was not tried.",
            _object(
                "Cases that were not tried.",
                reason=_text("Which, and why not."),
                accesses=_number("How many accesses; 0 where a whole mode was left out uncounted."),
            ),
        ),
        rules={**_BY_MODE, "description": "By mode, how many accesses come to which rule."},
        departed={
            **_BY_MODE,
            "description": "How many of these came to something else, as a known quirk has it.",
        },
        disagreed={**_BY_MODE, "description": "How many of these did without such a quirk."},
        findings=_list(
            "The first disagreements.",
            _object(
                "A disagreement.",
                **_FINDING,
                mode=_MODE,
                values=_text("The values of the axes of the case, as --where takes them."),
                words=_list("The entries of the case, from the lowest up.", _hex("An entry.")),
            ),
        ),
        **_RUN,
    ),
    "rules": _command(
        "rules",
        "The rules by which accesses fault, and all that executed them.",
        arch=_name("The architecture.", *NAMES),
        mode=_text("The paging mode, by the architecture's name for it; all is all of them."),
        rules=_list(
            "Every rule.",
            _object(
                "A rule.",
                rule=_text("Its name, as in `rules` of the matrix."),
                reason=_REASON,
                witnesses=_number(
                    "How many engines follow it: in some version they did as it says at least once,"
                    " and otherwise only by a known quirk. kvm_amd and kvm_intel are two, as the"
                    " processors are that answer there."
                ),
                executions=_list(
                    "Who executed accesses that come to it.",
                    _object(
                        "An engine in one version.",
                        engine=_text("The engine."),
                        executor=_EXECUTOR,
                        accesses=_number("How many accesses."),
                        departed=_number(
                            "How many of them came to something else, as a known quirk has it."
                        ),
                        disagreed=_number("How many did without such a quirk."),
                    ),
                ),
            ),
        ),
        differing=_list(
            "The first cases on which an engine disagrees.",
            _object(
                "A case.",
                mode=_MODE,
                values=_text("The values of its axes, as --where of the matrix takes them."),
                expected=_FINDING["expected"],
                observed=_FINDING["observed"],
                case=_FINDING["case"],
                answers=_ANSWERS,
            ),
        ),
        unseen=_list(
            "What no access shows, whichever engine makes it.",
            _object("A rule.", rule=_text("What it is about."), why=_text("Why it is not seen.")),
        ),
        failures=_list(
            "Runs that were broken off, so that not all was executed.",
            _object("A run.", executor=_EXECUTOR, failure=_text("Why.")),
        ),
    ),
}

_POINTER: Final = _or_null(
    _text(
        "What the address probably is that was never meant as one, for people; null where it looks"
        " like any other."
    )
)

_BECAUSE: Final = _list(
    "The entries by which the rule denies it, from the root down; where the walk ends"
    " outside memory, the one that leads there.",
    _object("An entry.", **_PLACE),
)
_SETS: Final = _list(
    "What the machine notes in entries if the access is allowed.",
    _object(
        "An entry.",
        **_PLACE,
        name=_name("The bit that is set; AP[2]=0 is cleared.", "A", "D", "AF", "AP[2]=0"),
    ),
)
_REMEDIES: Final = _list(
    "What would let it pass, changes of entries first and what switches protection off"
    " last, of each kind the smallest first; each was tried but where `unread` says so.",
    _object(
        "One change in all its parts; without any of them the access does not pass.",
        cost=_number("How many bits it changes."),
        suspect=_flag(
            "Whether it clears reserved bits of an address, so that the entry leads to"
            " another place than it names now."
        ),
        reaches=_or_null(
            _hex(
                "The physical address that the access then reaches; null where a page must"
                " be made, and where that is not known."
            )
        ),
        in_memory=_or_null(
            _flag("Whether there is memory at that address; null where that is not known.")
        ),
        unread=_or_null(
            _a(
                "slot",
                "The entry that the walk then needs and that was not read, so that what the"
                " access comes to is not known; else null.",
            )
        ),
        entries=_list(
            "Entries that are to hold other bits.",
            _object(
                "An entry.",
                slot=_or_null(_a("slot", "Where it is; null where that is not known.")),
                entry=_PLACE["entry"],
                old=_hex("What it holds."),
                new=_hex("What it must hold."),
                first=_hex("The first virtual address that it serves."),
                last=_hex("The last one."),
                flush=_flag("Whether its addresses must be flushed from the TLB."),
                breaks=_flag("Whether it must be absent, and flushed, before it holds that."),
            ),
        ),
        settings=_list(
            "Registers that are to hold other bits.",
            _object(
                "A register.",
                name=_text("The bit or bits, like CR0.WP."),
                register=_name(
                    "The key of `cpu`.",
                    *("cr0", "cr4", "efer", "ac", "pkru", "pkrs", "mstatus", "menvcfg"),
                    *("tcr", "sctlr", "pan", "amr", "iamr"),
                ),
                old=_hex("What it holds."),
                new=_hex("What it must hold."),
            ),
        ),
        missing=_or_null(_a("missing", "Entries that must be made; null where none is missing.")),
    ),
)
_NOTHING: Final = {"description": "Said of x86 alone.", "type": "null"}
_NONE: Final = {"description": "Said of x86 alone.", "type": "array", "maxItems": 0}


def _outcome(
    arch: str, words: Sequence[str] = ("allowed", "fault"), sets: Schema = _SETS, **left: Schema
) -> Schema:
    """What an access comes to, of another architecture than x86.

    words  what it comes to, in a word
    sets   the flags that it sets
    left   what a fault leaves behind
    """
    return _object(
        f"What an access of {arch} comes to, and why.",
        access=_a("access", "The access."),
        outcome=_name("What it comes to.", *words),
        physical=_or_null(_hex("The address in memory that it reaches, if it is allowed.")),
        **left,
        level=_or_null(_number("Where the walk ended, 0 the lowest; null where there was none.")),
        rule=_or_null(_RULE),
        reason=_or_null(_REASON),
        because=_BECAUSE,
        sets=sets,
        pointer=_POINTER,
        otherwise=_NONE,
        remedies=_REMEDIES,
        elsewhere=_NONE,
        translation=_a("translation", "How the address is translated."),
    )


_PARTS: Final = {
    "outcome": _object(
        "What an access comes to, and why.",
        access=_a("access", "The access."),
        **_OUTCOME,
        because=_BECAUSE,
        sets=_SETS,
        elsewhere=_list(
            "Where the walk ends outside memory, what machines make of the access; else empty.",
            _object(
                "What it comes to where memory that is not there reads in one way.",
                reads=_name("As what such memory reads.", "zeros", "ones"),
                who=_text("Which machines do, for people."),
                **_OUTCOME,
            ),
        ),
        pointer=_POINTER,
        otherwise=_list(
            "What it comes to where what was assumed of the processor is not so; the assumptions"
            " that change nothing are left out.",
            _object(
                "Another processor.",
                assumed=_text("What was assumed, as NAME=VALUE."),
                instead=_text("What it is there, for people."),
                **_OUTCOME,
            ),
        ),
        remedies=_REMEDIES,
        translation=_a("translation", "How the address is translated."),
    ),
    "seen": _object(
        "A page fault that was seen.",
        error=_hex("Its error code."),
        cr2=_or_null(_hex("CR2; null where it was not given.")),
        rip=_or_null(_hex("RIP; null where it was not given.")),
        parts=_list(
            "The bits of the error code that every processor has, and others that are set, from"
            " the lowest up.",
            _a("bits", "A bit."),
        ),
        raised_by=_list("Which accesses raise it.", _a("access", "An access.")),
        impossible=_list("Why no processor raises it.", _text("A sentence.")),
        quirk=_or_null(_text("The known departure of an engine that it is; else null.")),
        hints=_list("What CR2 and RIP tell together.", _text("A sentence.")),
    ),
    "riscv_seen": _object(
        "An exception of RISC-V that was seen.",
        cause=_number("Which it is, as in scause."),
        exception=_text("What the specification calls it."),
        tval=_or_null(_hex("What stval held; null where it was not given.")),
        raised_by=_list("Which accesses raise it.", _a("access", "An access.")),
    ),
    "riscv_outcome": _outcome(
        "RISC-V",
        cause=_or_null(_number("The exception, as in scause, if it faults.")),
        tval=_or_null(_hex("What stval holds after the fault.")),
    ),
    "arm64_seen": _object(
        "An abort of arm64 that was seen.",
        esr=_hex("ESR_EL1."),
        exception=_text("What it is, with the level as its entries are called."),
        far=_or_null(_hex("What FAR_EL1 held; null where it was not given.")),
        said=_list("What ESR_EL1 says besides.", _text("A phrase.")),
        raised_by=_list("Which accesses raise it.", _a("access", "An access.")),
    ),
    "arm64_outcome": _outcome(
        "arm64",
        esr=_or_null(_hex("What ESR_EL1 holds after the fault.")),
        far=_or_null(_hex("What FAR_EL1 holds after the fault.")),
    ),
    "s390_seen": _object(
        "A program interruption of s390 that was seen.",
        code=_hex("Its code."),
        interruption=_text("What the manual calls it."),
        teid=_or_null(_hex("The translation-exception identification; null where not given.")),
        address=_or_null(_hex("The address of the access; null where it was not given.")),
        raised_by=_list("Which accesses end in it.", _a("access", "An access.")),
    ),
    "s390_outcome": _outcome(
        "s390",
        sets=_NONE,
        code=_or_null(_hex("The code of the program interruption, if it faults.")),
        teid=_or_null(_hex("Its translation-exception identification; null where it has none.")),
    ),
    "power_seen": _object(
        "An interrupt of POWER that was seen.",
        vector=_hex("Its vector."),
        exception=_text("What the manual calls it."),
        status=_or_null(
            _hex("DSISR, or what SRR1 says of a failed fetch; null where it was not given.")
        ),
        address=_or_null(_hex("What DAR held, or SRR0; null where it was not given.")),
        said=_list("What the status says.", _text("A phrase.")),
        raised_by=_list("Which accesses raise it.", _a("access", "An access.")),
    ),
    "power_outcome": _outcome(
        "POWER",
        words=("allowed", "fault", "machine check"),
        vector=_or_null(_hex("The vector of the interrupt, if it faults.")),
        status=_or_null(_hex("DSISR, or what SRR1 says of a failed fetch; 0 of a segment's.")),
        address=_or_null(_hex("What DAR holds, or SRR0 of a failed fetch.")),
    ),
    "missing": _object(
        "Entries that must be made.",
        slot=_or_null(
            _a(
                "slot",
                "Where the first must be; null of a PDPTE register, and where that is not known.",
            )
        ),
        old=_hex("What that slot holds."),
        entries=_list(
            "That in the slot, and those in new tables below it.",
            _object(
                "An entry.",
                level=_PLACE["level"],
                entry=_PLACE["entry"],
                leads_to=_name("What it must lead to.", "page", "table"),
                new=_hex("What it must hold besides the address of that."),
            ),
        ),
    ),
    "looked_at": _object("One of two sources.", **_LOOKED_AT),
    "side": _object(
        "A range, and what its pages are.",
        **_RANGE,
        page_size=_number("Bytes of the pages themselves, which may be larger than the entries."),
    ),
    "finding": _object("A disagreement.", **_FINDING),
}

COMMANDS: Final = tuple(_COMMANDS)
"""The commands that have `--json`."""

_DEFINITIONS: Final = {**_SHARED, **_PARTS, **_COMMANDS}


def schema(command: str | None = None) -> Schema:
    """The form of what a command of COMMANDS prints, with the definitions that it needs; without a
    command, of what any of them prints."""
    root: Schema = {"$ref": f"#/$defs/{command}"}
    if command is None:
        root = {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in COMMANDS]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"What pagetable {command or 'COMMAND'} --json prints, version {VERSION}",
        "description": PROMISE,
        **root,
        "$defs": {name: _DEFINITIONS[name] for name in dict.fromkeys(_needed(root))},
    }


def _needed(part: object) -> Iterator[str]:
    """The names of the definitions to which a part of a schema leads, some of them repeatedly."""
    if isinstance(part, dict):
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            yield name
            yield from _needed(_DEFINITIONS[name])
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _needed(inner)
