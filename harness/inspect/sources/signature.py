"""What a file is, by its first bytes, where it is another thing than was said."""

from __future__ import annotations

import codecs
import struct
from pathlib import Path
from typing import Final, NamedTuple

from harness.inspect.snapshot import SourceError
from harness.inspect.sources import kdump
from harness.inspect.sources.content import Content


class Known(NamedTuple):
    """A kind of file: how it begins, what it is, and how to get from it what can be read."""

    begins: bytes
    what: str
    way: str


_ANALYSED: Final = (
    "write the memory flat (Volatility 3: layerwriter.LayerWriter) and give that with --ram"
)
_LIME: Final = "capture again with LiME 1.9, or with format=padded and give that with --ram"
_AVML: Final = (
    "convert it to the format of LiME (avml-convert --format lime), and give that with --ram"
)
_KDUMP: Final = "give it with --core"
_DUMP_AGAIN: Final = (
    "write an ELF core instead, for --core: QEMU's dump-guest-memory without -z, -l and -s, or"
    " virsh dump --memory-only --format elf"
)
_RESUME: Final = (
    "have a QEMU with the same options take it up (-S -incoming 'exec:cat FILE'), and ask that with"
    " --qmp"
)
_RESTORE: Final = (
    "virsh restore --paused FILE, then virsh dump --memory-only --format elf for --core"
)
_VMEM: Final = (
    "the memory is in the .vmem file beside it, which goes with --ram where the guest has less"
    " than 3 GiB"
)

KNOWN: Final = (
    Known(b"EMiL", "a memory capture of LiME of another version than 1", _LIME),
    Known(b"AVML", "a memory capture of AVML of another version than 2", _AVML),
    Known(kdump.KDUMP, "a kdump-compressed core", _KDUMP),
    Known(b"DISKDUMP", "a diskdump core", _DUMP_AGAIN),
    Known(kdump.FLATTENED, "a flattened core of makedumpfile", _KDUMP),
    Known(b"QEVM\0\0\0", "a migration stream of QEMU", _RESUME),
    Known(b"LibvirtQemudSave", "a saved guest of libvirt", _RESTORE),
    Known(b"LibvirtQemudPart", "a guest of libvirt that was not saved whole", _RESTORE),
    Known(b"\xd0\xbe\xd2\xbe", "a suspended guest of VMware", _VMEM),
    Known(b"\xd1\xba\xd1\xba", "a suspended guest of VMware", _VMEM),
    Known(b"\xd2\xbe\xd2\xbe", "a suspended guest of VMware", _VMEM),
    Known(b"\xd3\xbe\xd3\xbe", "a suspended guest of VMware", _VMEM),
    Known(
        b"\x7fVirtualBox SavedState",
        "a saved guest of VirtualBox",
        "restore it and write a core (VBoxManage debugvm NAME dumpvmcore --filename FILE), for"
        " --core with --cr3",
    ),
    Known(b"PAGEDUMP", "a crash dump of Windows", _ANALYSED),
    Known(b"PAGEDU64", "a crash dump of Windows", _ANALYSED),
    Known(b"MDMP\x93\xa7", "a minidump of Windows", "it holds no page tables: take a full dump"),
    *(
        Known(
            word,
            "a hibernation file of Windows",
            "write the memory flat (Volatility 3: windows.hibernation.Dump), and give that with"
            " --ram",
        )
        for word in (b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR")
    ),
    Known(
        b"LinuxGuestRecord",
        "a saved guest of Xen",
        "restore it paused and write a core (xl dump-core), for --core with --cr3",
    ),
    Known(
        b"\xff\xff\xff\xff\xff\xff\xff\xffXENF",
        "a saved guest of Xen",
        "restore it paused and write a core (xl dump-core), for --core with --cr3",
    ),
    Known(
        b"minidump FreeBSD/",
        "a minidump of FreeBSD",
        "it holds no page tables as they were: take a full dump (sysctl debug.minidump=0)",
    ),
    Known(b"VMA\0", "a backup of Proxmox", "it is of the disks: there is no memory in it"),
    Known(
        b"QFI\xfb",
        "a disk image (qcow2)",
        "load the snapshot in it (-loadvm NAME -S), and ask that QEMU with --qmp",
    ),
    Known(b"KDMV", "a disk image (VMDK)", "it is a disk: there is no memory in it"),
    Known(b"vhdxfile", "a disk image (VHDX)", "it is a disk: there is no memory in it"),
    Known(b"EVF\x09\x0d\x0a\xff\0", "an EnCase image", "unpack it: ewfexport -f raw FILE"),
    Known(b"\x1f\x8b\x08", "compressed by gzip", "unpack it: gunzip FILE"),
    Known(b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: unzstd FILE"),
    Known(b"\xfd7zXZ\0", "compressed by xz", "unpack it: unxz FILE"),
    Known(b"BZh91AY&SY", "compressed by bzip2", "unpack it: bunzip2 FILE"),
    Known(b"\x04\x22\x4d\x18", "compressed by lz4", "unpack it: unlz4 FILE"),
    Known(b"\x89LZO\0\r\n\x1a\n", "compressed by lzop", "unpack it: lzop -d FILE"),
    Known(b"\xff\x06\0\0sNaPpY", "compressed by snappy", "unpack it"),
    Known(b"PK\x03\x04", "a zip archive", "unpack it: unzip FILE"),
    Known(b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it: 7z x FILE"),
)
"""Kinds of files that are neither an ELF core nor memory as it is.  Memory from address 0 on begins
with vectors of real mode, zeros or firmware's data, none of which looks like these."""

_TAR: Final = 257, b"ustar"
_ELF: Final = b"\x7fELF"
_ELF_TYPE: Final = 16
_CORE: Final = 4
_ELF_HEADER: Final = 64
_UNCOUNTED: Final = 0xFFFF
"""In place of a number of segments that is larger (PN_XNUM)."""


class _ElfForm(NamedTuple):
    """Where in a header the offsets of the tables of segments and sections are, and the sizes and
    numbers of their entries; and a segment's entry, as `struct` calls it: its offset and size."""

    word: str
    tables: int
    counts: int
    segment: str


_ELF_FORMS: Final = {
    b"\x02": _ElfForm("Q", 32, 54, "8xQ16xQ16x"),
    b"\x01": _ElfForm("I", 28, 42, "4xI8xI12x"),
}
"""By class (System V ABI, ELF header and program header)."""

_ELF_ORDERS: Final = {b"\x01": "<", b"\x02": ">"}
"""Byte orders, as `struct` calls them."""

_LOOKED_AT: Final = 4096
_LEAST_TEXT: Final = 16
"""Bytes; fewer may be letters by chance."""


def as_memory(path: Path, content: Content) -> str | None:
    """Raises SourceError where a file is not memory from address 0 on, byte by byte; a sentence
    where that is doubtful.

    A program that was loaded at address 0 leaves its ELF header there, which describes less than
    the whole memory; an ELF file ends where its header says.
    """
    begin = content.part(0, _LOOKED_AT).tobytes()
    insist = "; --flat reads it as memory all the same"
    if begin.startswith(_ELF):
        whole_pages = len(content) % _LOOKED_AT == 0
        end = _described(content) if whole_pages else None
        if end is not None and end <= len(content) - _LOOKED_AT:
            return (
                f"{path} is memory, though it begins with an ELF header: what that describes ends"
                f" at {end:#x}, and the file at {len(content):#x}"
            )
        order = _ELF_ORDERS.get(begin[5:6], "<")
        core = struct.unpack_from(f"{order}H", begin.ljust(_ELF_HEADER), _ELF_TYPE)[0] == _CORE
        what = "an ELF core: give it with --core" if core else "an ELF program or library"
        raise SourceError(f"{path} is not flat memory but {what}{insist}")
    if known := _known(begin):
        raise SourceError(f"{path} is not flat memory but {known.what}: {known.way}{insist}")
    if _is_text(begin):
        raise SourceError(f"{path} is not flat memory but text{insist}")
    return None


def _described(content: Content) -> int | None:
    """Where in its file, of a page at least, ends what an ELF header describes (System V ABI); None
    where it has no byte order or no class, and where its table of segments has entries of another
    size, more than it can count, or some behind the end of the file."""
    begin = content.part(0, _ELF_HEADER).tobytes()
    form, order = _ELF_FORMS.get(begin[4:5]), _ELF_ORDERS.get(begin[5:6])
    if form is None or order is None:
        return None
    segments, sections = struct.unpack_from(f"{order}2{form.word}", begin, form.tables)
    apiece, count, section, section_count = struct.unpack_from(f"{order}4H", begin, form.counts)
    segment = struct.Struct(order + form.segment)
    if count == _UNCOUNTED or (count and apiece != segment.size):
        return None
    size = count * segment.size
    table = content.part(segments, size).tobytes()
    if len(table) < size:
        return None
    ends = (offset + held for offset, held in segment.iter_unpack(table))
    return int(max(segments + size, sections + section * section_count, *ends))


def as_core(path: Path, content: Content) -> None:
    """Raises SourceError where a file is no ELF file."""
    begin = content.part(0, _LOOKED_AT).tobytes()
    if begin.startswith(_ELF):
        return
    if known := _known(begin):
        raise SourceError(f"{path} is not a core in ELF but {known.what}: {known.way}")
    if _is_text(begin):
        raise SourceError(f"{path} is not a core but text")
    raise SourceError(
        f"{path} is not a core: it does not begin as an ELF file; memory as it is goes with --ram"
        " and the register of its root, --cr3 say"
    )


def _known(begin: bytes) -> Known | None:
    for known in KNOWN:
        if begin.startswith(known.begins):
            return known
    at, word = _TAR
    if begin[at : at + len(word)] == word:
        return Known(word, "a tar archive", "unpack it: tar -xf FILE")
    return None


def _is_text(begin: bytes) -> bool:
    """Whether the beginning is lines of letters; memory that is filled with one is not."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return False
    lines = len(begin) >= _LEAST_TEXT and "\n" in text
    return lines and all(letter >= " " or letter in "\t\n\r\f\x1b" for letter in text)
