"""What a layout says is what its tables hold, and what it may not say is refused in a sentence.

What is expected is read from the files here, by arithmetic of its own.
"""

import re
import textwrap
import tomllib
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from harness.architectures import NAMES
from harness.check import layouts
from harness.check.layouts import LayoutError, described, find, load, parse, shipped
from harness.check.x86.layouts import Built, build
from harness.inspect import architecture
from harness.inspect.sources import layout as source
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.bulk import End, Leaves
from harness.paging.entry import Pointer
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.walk import Walk, walk

MIB = 1 << 20
UNITS = {"K": 1 << 10, "M": MIB, "G": 1 << 30, "T": 1 << 40}
MACHINE = 32 * MIB
TABLES = 16 * MIB
MAXPHYADDR = 40

PAGE_LEVELS = {"4K": 0, "2M": 1, "1G": 2}
SHIFTS = (12, 21, 30, 39, 48)
"""Bits of an address below the index at each level."""

PRESENT = 1
ACCESSED_DIRTY = 1 << 5 | 1 << 6
RIGHTS = {"w": "write", "u": "user", "x": "execute"}

CASES = [(path, levels) for path in shipped() for levels in load(path).levels]
every_layout = pytest.mark.parametrize(
    ("path", "levels"), CASES, ids=[f"{path.stem}-{levels}" for path, levels in CASES]
)

WITHOUT_SHARES = [case for case in CASES if "share" not in tomllib.loads(case[0].read_text())]


class Page(NamedTuple):
    """A page as the file has it: `physical` is None where the harness is to choose."""

    virtual: int
    level: int
    physical: int | None
    rights: set[str]


def size_of(value: int | str) -> int:
    return value if isinstance(value, int) else int(value[:-1]) * UNITS[value[-1]]


def parts(path: Path, name: str, levels: int) -> list[dict[str, Any]]:
    """The tables of one name that count at this number of levels."""
    found: list[dict[str, Any]] = tomllib.loads(path.read_text()).get(name, [])
    return [part for part in found if levels in part.get("levels", [levels])]


def pages(path: Path, levels: int) -> Iterator[Page]:
    """Every page that the file maps, with the rights that all levels give together.

    A table has the rights that the first map gives it that needs it.
    """
    tables: dict[tuple[int, int], set[str]] = {}
    for part in parts(path, "map", levels):
        size, level = size_of(part["size"]), PAGE_LEVELS[part["size"]]
        for number in range(part.get("count", 1)):
            virtual = part["virtual"] + number * size_of(part.get("step", size))
            physical = part.get("physical", "any")
            if isinstance(physical, int):
                physical += number * size_of(part.get("physical_step", size))
            rights = set(part.get("rights", "wux"))
            for above in range(level + 1, levels):
                given = set(part.get("table_rights", "wux"))
                rights &= tables.setdefault((above, virtual >> SHIFTS[above]), given)
            yield Page(virtual, level, None if isinstance(physical, str) else physical, rights)


@cache
def built(path: Path, levels: int) -> tuple[Built, BufferMemory]:
    layout = load(path)
    memory = BufferMemory(np.zeros(layout.ram, np.uint8))
    return build(layout, levels, memory, MAXPHYADDR, True), memory


def walk_of(path: Path, levels: int, address: int) -> Walk:
    made, memory = built(path, levels)
    (root,) = (root for root in made.cpu.roots if address in root.span)
    return walk(memory, root, Virtual(address))


def leaves_of(path: Path, levels: int) -> Leaves:
    made, memory = built(path, levels)
    return bulk.leaves(memory, made.cpu.roots)


def shipped_at(name: str, levels: int) -> tuple[Path, int]:
    return find(name), levels


@every_layout
def test_a_layout_maps_the_pages_that_its_file_names(path: Path, levels: int) -> None:
    for page in pages(path, levels):
        found = walk_of(path, levels, page.virtual)
        assert found.level == page.level, hex(page.virtual)
        assert found.physical is not None, hex(page.virtual)
        assert page.physical in (None, found.physical), hex(page.virtual)
        rights = set(found.root.table.format.rights_of(found.granted))
        assert rights == {RIGHTS[letter] for letter in page.rights}, hex(page.virtual)


@every_layout
def test_frames_that_the_harness_chooses_are_free_and_no_page_has_them_twice(
    path: Path, levels: int
) -> None:
    file = tomllib.loads(path.read_text())
    first = MACHINE + size_of(file.get("tables", TABLES))
    taken = np.zeros(size_of(file["ram"]) >> SHIFTS[0], np.uint8)
    made, memory = built(path, levels)
    chosen = [page for page in pages(path, levels) if page.physical is None]
    virtual = np.array([page.virtual for page in chosen], np.uint64)
    walks = bulk.walk(memory, made.cpu.roots, virtual)
    assert (walks.end == bulk.End.LEAF).all()
    for page, physical in zip(chosen, walks.physical.tolist(), strict=True):
        size = 1 << SHIFTS[page.level]
        assert physical >= first
        assert physical % size == 0
        frames = taken[physical >> SHIFTS[0] : physical + size >> SHIFTS[0]]
        assert len(frames) << SHIFTS[0] == size
        frames += 1
    named = np.zeros_like(taken)
    for page in pages(path, levels):
        if page.physical is not None:
            named[page.physical >> SHIFTS[0] : page.physical + (1 << SHIFTS[page.level]) >> 12] = 1
    assert not (taken + named > 1).any()


@pytest.mark.parametrize(
    ("path", "levels"),
    WITHOUT_SHARES,
    ids=[f"{path.stem}-{levels}" for path, levels in WITHOUT_SHARES],
)
def test_a_layout_holds_nothing_but_what_its_file_names(path: Path, levels: int) -> None:
    raw = [entry for entry in parts(path, "entry", levels) if entry["value"] & PRESENT]
    assert leaves_of(path, levels).total == len(list(pages(path, levels))) + len(raw)


@every_layout
def test_a_raw_entry_stands_where_the_file_puts_it(path: Path, levels: int) -> None:
    for entry in parts(path, "entry", levels):
        last = walk_of(path, levels, entry["virtual"]).steps[-1]
        assert (last.slot.level, last.raw) == (entry["level"], entry["value"])


@every_layout
def test_a_share_leads_to_the_table_that_the_file_names(path: Path, levels: int) -> None:
    for share in parts(path, "share", levels):
        level = share.get("level", levels - 1)
        target = built(path, levels)[0].cpu.cr3
        if "like" in share:
            like = {step.slot.level: step for step in walk_of(path, levels, share["like"]).steps}
            target = like[level - 1].slot.table.address
        for number in range(share.get("count", 1)):
            address = share["virtual"] + (number << SHIFTS[level])
            steps = {step.slot.level: step for step in walk_of(path, levels, address).steps}
            entry = steps[level].entry
            assert isinstance(entry, Pointer)
            assert entry.table.address == target
            given = {RIGHTS[letter] for letter in share.get("rights", "wux")}
            format = entry.table.format
            assert set(format.rights_of(format.granted(steps[level].raw, level))) == given


@every_layout
def test_no_entry_is_accessed_or_dirty_before_the_machine_uses_it(path: Path, levels: int) -> None:
    leaves = leaves_of(path, levels)
    mapped = leaves.raw[leaves.end == End.LEAF]
    assert not (mapped & np.uint64(ACCESSED_DIRTY)).any()


@every_layout
def test_the_root_has_a_slot_to_spare_for_the_window(path: Path, levels: int) -> None:
    made, memory = built(path, levels)
    slots = [slot for root in made.cpu.roots for _, slot in root.slots()]
    assert any(memory.load(slot.address, 8) == 0 for slot in slots)


@every_layout
def test_tables_lie_above_the_machines_memory_and_below_the_frames(path: Path, levels: int) -> None:
    made, _ = built(path, levels)
    assert made.tables.first == MACHINE
    assert made.frames.first == made.tables.last + 1
    assert made.frames.last == made.layout.ram - 1
    tables = leaves_of(path, levels).tables.address
    assert tables.min() >= made.tables.first
    assert tables.max() <= made.tables.last


SWITCHES = ("wp", "nxe", "smep", "smap", "lass")


@every_layout
def test_a_layout_has_the_control_state_that_its_file_asks_for(path: Path, levels: int) -> None:
    asked = tomllib.loads(path.read_text()).get("cpu", {})
    cpu = built(path, levels)[0].cpu
    assert cpu.levels == levels
    assert (cpu.wp, cpu.nxe) == (asked.get("wp", True), asked.get("nxe", True))
    assert (cpu.smep, cpu.smap) == (asked.get("smep", False), asked.get("smap", False))
    assert cpu.lass == asked.get("lass", False)


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("on", [True, False])
def test_each_switch_of_the_cpu_is_its_own(switch: str, on: bool) -> None:
    switches = dict.fromkeys(SWITCHES, not on) | {switch: on}
    lines = [f"{name} = {str(value).lower()}\n" for name, value in switches.items()]
    layout = parse(HEAD + CPU + "".join(lines), "x.toml")
    memory = BufferMemory(np.zeros(TABLES, np.uint8), MACHINE)
    cpu = build(layout, 4, memory, MAXPHYADDR, True).cpu
    assert {name: getattr(cpu, name) for name in switches} == switches


def test_any_frame_is_the_lowest_that_nothing_names() -> None:
    text = HEAD + PAGE.replace("0x40", "0x80") + "count = 2\n"
    text += PAGE + "count = 3\nphysical = 0x300_0000\n"
    text += ENTRY.replace("0x40", "0xc0").replace("0x300_0007", "0x300_4007")
    memory = BufferMemory(np.zeros(TABLES, np.uint8), MACHINE)
    root, _ = build(parse(text, "x.toml"), 4, memory, MAXPHYADDR, True).cpu.roots
    assert walk(memory, root, Virtual(0x80_0000)).physical == 0x300_3000
    assert walk(memory, root, Virtual(0x80_1000)).physical == 0x300_5000


@pytest.mark.parametrize("levels", [4, 5])
def test_the_dense_layout_has_65536_neighbours_on_frames_in_no_order(levels: int) -> None:
    leaves = leaves_of(*shipped_at("dense", levels))
    assert leaves.total == len(np.unique(leaves.physical)) == 65_536
    assert (np.diff(leaves.virtual) == 4096).all()
    neighbours = np.diff(leaves.physical.astype(np.int64)) == 4096
    assert neighbours.sum() < 100


@pytest.mark.parametrize("levels", [4, 5])
def test_a_page_has_65536_aliases_that_differ_in_bits_31_to_16(levels: int) -> None:
    leaves = leaves_of(*shipped_at("aliases", levels))
    aliases = leaves.virtual[leaves.physical == 0x300_0000]
    assert len(np.unique(aliases)) == 65_536
    assert set((aliases & np.uint64(0xFFFF_FFFF_0000_FFFF)).tolist()) == {0xFFFF_FF00_0000_4000}
    assert len(leaves.tables.address) < 10


@pytest.mark.parametrize("levels", [4, 5])
def test_a_walk_through_the_self_map_alone_ends_at_the_root(levels: int) -> None:
    path = find("self-map")
    (share,) = parts(path, "share", levels)
    index = share["virtual"] >> SHIFTS[levels - 1] & 0x1FF
    address = share["virtual"] | sum(index << shift for shift in SHIFTS[: levels - 1])
    made, _ = built(path, levels)
    assert walk_of(path, levels, address).physical == made.cpu.cr3


@pytest.mark.parametrize("levels", [4, 5])
def test_the_malformed_layout_has_reserved_bits_at_every_level(levels: int) -> None:
    leaves = leaves_of(*shipped_at("malformed", levels))
    assert set(leaves.level[leaves.end == End.MALFORMED].tolist()) == set(range(levels))


@pytest.mark.parametrize("levels", [4, 5])
def test_the_rights_layout_has_every_pair_of_rights_of_table_and_leaf(levels: int) -> None:
    rights, pairs = find("rights"), set()
    for page in pages(rights, levels):
        if page.level == 0:
            *_, above, leaf = walk_of(rights, levels, page.virtual).steps
            format = leaf.slot.table.format
            pairs.add((format.granted(above.raw, 1), format.granted(leaf.raw, 0)))
    assert len(pairs) == 64


@pytest.mark.parametrize("levels", [3, 4])
def test_tables_of_arm64_withhold_what_their_map_says_at_each_number_of_levels(levels: int) -> None:
    names = {"u": "user", "w": "write", "x": "user execute", "k": "supervisor execute"}
    path = find("arm64/table-rights")
    cpu, memory = (snapshot := source.snapshot(str(path), levels, {})).cpu, snapshot.memory
    withheld = set()
    for one in tomllib.loads(path.read_text())["map"]:
        if (above := one.get("table_rights")) is None:
            continue
        address = Virtual(one["virtual"])
        root = root_for(cpu, address)
        assert root is not None
        given = cpu.format.rights_of(walk(memory, root, address).granted)
        assert set(given) == {names[letter] for letter in {*one["rights"]} & {*above}}
        withheld.add(above)
    assert len(withheld) == 2 ** len(names)


def test_every_level_count_and_page_size_has_a_layout() -> None:
    assert {levels for _, levels in CASES} == {4, 5}
    assert load(find("page-sizes")).page_sizes(4) == {"4K", "2M", "1G"}
    assert load(find("smallest")).page_sizes(5) == {"4K"}


def example() -> str:
    """The layout in the module's documentation."""
    assert layouts.__doc__ is not None
    _, _, indented = layouts.__doc__.partition("::\n\n")
    return textwrap.dedent(indented[: indented.index("\nSizes are")])


@pytest.mark.parametrize("levels", [4, 5])
def test_the_documented_example_can_be_built(levels: int) -> None:
    layout = parse(example(), "example.toml")
    build(layout, levels, BufferMemory(np.zeros(layout.ram, np.uint8)), MAXPHYADDR, True)


def test_the_documented_example_uses_every_key() -> None:
    used = set(re.findall(r"^(\w+) = ", example(), re.MULTILINE))
    keys = {
        field.name for kind in (layouts.Map, layouts.Share, layouts.Entry) for field in fields(kind)
    }
    keys |= {"title", "arch", "ram", "tables", "maxphyaddr", *SWITCHES}
    assert used == keys - {"where"}


@pytest.mark.parametrize(
    ("arch", "said"), [("x86", "4 and 5"), ("s390", "2, 3, 4 and 5"), ("power", "4")]
)
def test_the_numbers_of_levels_are_said_as_people_list_them(arch: str, said: str) -> None:
    assert load(find("smallest", arch)).written_for == said


def test_a_part_for_five_levels_is_no_matter_at_four() -> None:
    layout = parse(HEAD + PAGE + FIVE_LEVELS_ONLY, "x.toml")
    memory = BufferMemory(np.zeros(layout.ram, np.uint8))
    assert bulk.leaves(memory, build(layout, 4, memory, MAXPHYADDR, True).cpu.roots).total == 1
    assert bulk.leaves(memory, build(layout, 5, memory, MAXPHYADDR, True).cpu.roots).total == 2


def test_a_seed_means_the_same_frames_every_time() -> None:
    def frames(seed: int) -> list[int]:
        text = HEAD + f"{PAGE}count = 50\nphysical = 'random'\nseed = {seed}\n"
        layout = parse(text, "x.toml")
        memory = BufferMemory(np.zeros(layout.ram, np.uint8))
        roots = build(layout, 4, memory, MAXPHYADDR, True).cpu.roots
        listed: list[int] = bulk.leaves(memory, roots).physical.tolist()
        return listed

    assert frames(1) == frames(1)
    assert frames(1) != frames(2)


HEAD = """
title = "x"
levels = [4, 5]
ram = "64M"
"""

PAGE = """
[[map]]
virtual = 0x40_0000
size = "4K"
"""

FIVE_LEVELS_ONLY = """
[[map]]
virtual = 0xff_0000_0000_0000
size = "4K"
levels = [5]
"""

SHARE = """
[[share]]
virtual = 0x80_0000
level = 1
like = 0x40_0000
"""

ENTRY = """
[[entry]]
virtual = 0x40_1000
level = 0
value = 0x300_0007
"""

CPU = "\n[cpu]\n"


def edited(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return HEAD + text.replace(old, new)


REFUSED = {
    "an unknown key": (HEAD + "rams = 1\n", "x.toml: there is no key 'rams'"),
    "an unknown key of a map": (HEAD + PAGE + "sizes = 1\n", "x.toml, map 1: .* 'sizes'"),
    "an unknown key of the CPU": (HEAD + CPU + "pae = true\n", "x.toml, cpu: .* 'pae'"),
    "no title": ("levels = [4]\nram = '64M'", "title is missing"),
    "no address": (edited(PAGE, "virtual = 0x40_0000", ""), "map 1: virtual is missing"),
    "one table for a list": (HEAD + "map = 3\n", "x.toml, map is not a list of tables"),
    "a list of other things": (HEAD + "map = [3]\n", "x.toml, map 1: this is no table"),
    "a title of another type": ("title = 1\nlevels = [4]\nram = 1", "title is 1, no string"),
    "an address of another type": (edited(PAGE, "0x40_0000", "'0'"), "map 1: virtual is '0', no"),
    "an address that is a fraction": (edited(PAGE, "0x40_0000", "0.5"), "virtual is 0.5, no"),
    "a flag of another type": (HEAD + CPU + "wp = 1\n", "cpu: wp is 1, neither"),
    "a number that is a flag": (HEAD + PAGE + "count = true\n", "count is True, not a whole"),
    "bits of another type": (HEAD + PAGE + "bits = 'G'\n", "bits is 'G', not a list"),
    "levels of another type": ("title = ''\nlevels = 4\nram = 1", "levels is 4, not a list"),
    "a negative address": (edited(PAGE, "0x40_0000", "-4096"), "virtual is -4096, not a whole"),
    "a negative count": (HEAD + PAGE + "count = -1\n", "map 1: count is -1, not a whole"),
    "no pages": (HEAD + PAGE + "count = 0\n", "map 1: count is 0, but must be more"),
    "a size that is none": (edited(PAGE, "4K", "4KB"), "size is '4KB', not a size"),
    "a size that no page has": (edited(PAGE, "4K", "8K"), "map 1: size is 8K; .*4K, 2M, 1G"),
    "a misaligned page": (edited(PAGE, "4K", "2M").replace("0x40", "0x41"), "map 1: .*0x410000"),
    "a misaligned step": (HEAD + PAGE + "count = 2\nstep = 5000\n", "map 1: .*0x401388"),
    "a misaligned frame": (HEAD + PAGE + "physical = 0x3000001\n", "map 1: .*0x3000001"),
    "a non-canonical page": (edited(PAGE, "0x40", "0x8000_0000"), "map 1: .*0x800000000000"),
    "pages that leave their half": (
        edited(PAGE, "0x40_0000", "0x7fff_ffff_f000") + "count = 2",
        "map 1: .*0x7ffffffff000",
    ),
    "pages beyond the last address": (
        edited(PAGE, "0x40_0000", "0xffff_ffff_ffff_f000") + "count = 2",
        "map 1: .*0xfffffffffffff000",
    ),
    "an address that no word holds": (
        edited(PAGE, "0x40_0000", "0x1_0000_0000_0000_0000"),
        "map 1: .*0x10000000000000000",
    ),
    "pages that overlap": (HEAD + PAGE + PAGE, "x.toml, map 2: .*0x400000.* taken"),
    "pages that overlap themselves": (
        HEAD + PAGE + "count = 2\nstep = 1\n",
        "map 1: .*0x400001",
    ),
    "a page over a table": (HEAD + PAGE + PAGE.replace("4K", "2M"), "map 2: .*0x400000.* taken"),
    "a share over a table": (
        HEAD + PAGE + SHARE.replace("0x80", "0x40"),
        "share 1: virtual 0x400000 is taken",
    ),
    "an entry over a page": (HEAD + PAGE + ENTRY.replace("1000", "0000"), "entry 1: .* is taken"),
    "an unknown right": (
        HEAD + PAGE + "rights = 'rw'\n",
        "rights is 'rw', not made of the letters w",
    ),
    "a value that the field has not": (
        HEAD + PAGE + "bits = ['KEY=16']\n",
        "no value from 0 to 15",
    ),
    "a value below 0": (
        HEAD + PAGE + "bits = ['KEY=-1']\n",
        "map 1: bits has 'KEY=-1', which is no",
    ),
    "a value that is no number": (HEAD + PAGE + "bits = ['KEY=']\n", "no value from 0 to 15"),
    "two values of a bit": (HEAD + PAGE + "bits = ['G', 'G=0']\n", "and another value of G"),
    "a value of an unknown field": (
        HEAD + PAGE + "bits = ['ATTR=1']\n",
        "bits has 'ATTR=1'; a PTE",
    ),
    "an unknown bit": (HEAD + PAGE + "bits = ['G', 'Z']\n", "map 1: bits has 'Z'; a PTE has"),
    "a bit that is a right": (HEAD + PAGE + "bits = ['W']\n", "map 1: bits has 'W'"),
    "a bit that makes it a page": (HEAD + PAGE + "bits = ['P']\n", "map 1: .*0x1 are not free"),
    "a right that cannot be withheld": (
        HEAD + CPU + "nxe = false\n" + PAGE + "rights = 'w'\n",
        "map 1: .*0x8000000000000000 are not free",
    ),
    "another number of levels": ("title = ''\nlevels = [3]\nram = '64M'", "4 or 5 levels, not 3"),
    "a number of levels twice": ("title = ''\nlevels = [4, 4]\nram = '64M'", "names one twice"),
    "levels that the layout is not for": (HEAD + PAGE + "levels = [3]\n", "map 1: levels is"),
    "a width that no CPU has": (HEAD + CPU + "maxphyaddr = 60\n", "32 to 52 bits, not 60"),
    "a width that the CPU has not": (HEAD + CPU + "maxphyaddr = 41\n", "MAXPHYADDR 41, not 40"),
    "RAM in odd pieces": (HEAD.replace("64M", "65M"), "ram is 65M, no multiple of 2M"),
    "too much RAM": (HEAD.replace("64M", "4G"), "ram is 4G; a guest has at most 3G"),
    "too little RAM": (HEAD.replace("64M", "48M"), "ram is 48M, too little"),
    "tables in odd pieces": (HEAD + "tables = '4K'\n", "tables is 4K, no multiple"),
    "tables that leave no frames": (HEAD + "tables = '32M'\n", "ram is 64M, too little"),
    "tables used up": (
        HEAD
        + "tables = '2M'\n"
        + (PAGE + "count = 200\nstep = '1G'\n")
        + PAGE.replace("0x40_0000", "0x400_0000_0000")
        + "count = 200\nstep = '1G'\n",
        "map 2: .*0x2000000..0x21fffff is used up",
    ),
    "more tables than there is room for": (
        HEAD + "tables = '2M'\n" + PAGE + "count = 600\nstep = '1G'\n",
        "map 1: 1,203 tables are needed, and `tables` .2M. has room for 512",
    ),
    "a count beyond all tables": (
        HEAD + PAGE + "count = 1000000000000\n",
        "1,000,000,000,000 entries are asked for, and `tables` .16M. has room for 2,097,152",
    ),
    "frames used up": (HEAD + PAGE + "count = 5000\n", "ram has 4096 free frames of 4K"),
    "no frame of the size": (edited(PAGE, "0x40_0000", "0").replace("4K", "1G"), "ram has 0 free"),
    "a frame of the machine's": (HEAD + PAGE + "physical = 0x100000\n", "a page at 0x100000; bel"),
    "a frame of the tables'": (HEAD + PAGE + "physical = 0x2fff000\n", "a page at 0x2fff000; bel"),
    "a frame beyond MAXPHYADDR": (
        HEAD + PAGE + "physical = 0xff_ffff_f000\ncount = 2\n",
        "map 1: physical reaches 0x10000000000, beyond MAXPHYADDR 40",
    ),
    "a physical word": (HEAD + PAGE + "physical = 'some'\n", "physical is 'some', neither"),
    "steps from nowhere": (HEAD + PAGE + "physical_step = 0\n", "map 1: physical_step needs"),
    "a seed for nothing": (HEAD + PAGE + "seed = 1\n", "map 1: seed is of use with"),
    "a share of nothing": (HEAD + SHARE, "share 1: like is 0x400000, whose walk uses no"),
    "a share of a page": (
        HEAD + PAGE.replace("4K", "2M") + SHARE,
        "share 1: like is 0x400000, whose walk uses no table at level 0",
    ),
    "a share of no address": (
        HEAD + PAGE + SHARE.replace("0x40_0000", "1_000_000_000_000_000"),
        "share 1: like is 0x38d7ea4c68000, whose walk",
    ),
    "a share without like": (HEAD + PAGE + SHARE.replace("like", "# like"), "share 1: .*both"),
    "a share of the root and more": (HEAD + PAGE + SHARE + "root = true", "share 1: .*both"),
    "a share at the bottom": (HEAD + PAGE + SHARE.replace("= 1", "= 0"), "share 1: level is 0"),
    "a share above the root": (HEAD + PAGE + SHARE.replace("= 1", "= 4"), "share 1: level is 4;"),
    "a misaligned share": (HEAD + PAGE + SHARE.replace("0x80", "0x90"), "share 1: virtual is 0x90"),
    "an entry above the root": (HEAD + ENTRY.replace("= 0\n", "= 4\n"), "entry 1: level is 4; "),
    "a misaligned entry": (HEAD + ENTRY.replace("0x40_1000", "0x40_1008"), "entry 1: virtual is"),
    "an entry that is too wide": (
        HEAD + ENTRY.replace("0x300_0007", "0x1_0000_0000_0000_0000"),
        "entry 1: value is 0x10000000000000000, wider than 8 bytes",
    ),
    "a table outside RAM": (
        HEAD + ENTRY.replace("= 0\n", "= 1\n").replace("1000", "0000").replace("300", "4000"),
        "entry 1: value leads to the level-0 table at 0x40000000, outside of the tables",
    ),
    "a table in a frame": (
        HEAD + ENTRY.replace("= 0\n", "= 1\n").replace("1000", "0000"),
        "entry 1: value leads to the level-0 table at 0x3000000, outside of the tables",
    ),
    "an entry to the machine's": (HEAD + ENTRY.replace("300", "100"), "value has a page at 0x1000"),
    "a key that is written twice": (HEAD + "ram = '64M'\n", "x.toml is not TOML: "),
    "no TOML": ("]" * 3, "x.toml is not TOML: "),
    "brackets without end": ("a = " + "[" * 100_000, "x.toml is not TOML: "),
    "a number without end": ("a = " + "9" * 100_000, "x.toml is not TOML: "),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_layout_may_not_say_is_refused_in_a_sentence(text: str, said: str) -> None:
    # Just where the tables go: a write anywhere else would be an error of another kind.
    memory = np.full(TABLES, 0xA5, np.uint8)
    with pytest.raises(LayoutError) as refused:
        build(parse(text, "x.toml"), 4, BufferMemory(memory, MACHINE), MAXPHYADDR, True)
    sentence = str(refused.value)
    assert re.search(said, sentence)
    assert "\n" not in sentence
    assert refused.value.__cause__ is None
    assert (memory == 0xA5).all()


@every_layout
def test_without_ram_all_that_is_mapped_has_room(path: Path, levels: int) -> None:
    """Every frame that the file names below 3 GiB is in it, and frames can be chosen for the
    rest."""
    text = re.sub(r"^ram = .*$", "", path.read_text(), flags=re.MULTILINE)
    layout = parse(text, str(path))
    made = build(layout, levels, BufferMemory(np.zeros(layout.ram, np.uint8)), MAXPHYADDR, True)
    named = [page for page in pages(path, levels) if page.physical is not None]
    for page in named:
        assert page.physical is not None
        end = page.physical + (1 << SHIFTS[page.level])
        assert end <= layout.ram or end > 3 << 30
    assert made.frames.last == layout.ram - 1


@pytest.mark.parametrize(
    ("maps", "ram"),
    [
        ("", 50),  # 32M of the machine's, 16M of tables, and the least there can be
        ('size = "4K"', 50),
        ('size = "4K"\ncount = 513', 52),
        ('size = "2M"\ncount = 3', 54),
        ('size = "1G"', 2048),
        ('size = "4K"\nphysical = 0x500_0000', 82),
        ('size = "4K"\nphysical = 0x300_0000\ncount = 2\nphysical_step = "4M"', 54),
        ('size = "4K"\nphysical = 0xfee0_0000', 50),
        ('size = "4K"\nphysical = 0x100_0000_0000', 50),
        ('size = "2M"\nphysical = 0xbfe0_0000', 3072),
    ],
)
def test_without_ram_there_is_as_much_as_the_maps_need(maps: str, ram: int) -> None:
    part = f"[[map]]\nvirtual = 0x4000_0000\n{maps}\n" if maps else ""
    assert parse(f"title = 'x'\nlevels = [4]\n{part}", "x.toml").ram == ram << 20


def test_pages_of_1g_are_refused_for_a_processor_without_them() -> None:
    layout = load(find("page-sizes"))
    memory = BufferMemory(np.zeros(layout.ram, np.uint8))
    with pytest.raises(LayoutError, match=r"map 3: size is 1G; .* have 4K, 2M$"):
        build(layout, 4, memory, MAXPHYADDR, False)


def test_a_number_of_levels_that_a_layout_is_not_for_is_refused() -> None:
    layout = load(find("five-level-only"))
    with pytest.raises(LayoutError, match="five-level-only is written for 5 levels, not 4"):
        build(layout, 4, BufferMemory(np.zeros(layout.ram, np.uint8)), MAXPHYADDR, True)


def test_a_page_may_lie_beyond_ram() -> None:
    layout = parse(HEAD + PAGE + "physical = 0xfee0_0000\n", "x.toml")
    memory = BufferMemory(np.zeros(layout.ram, np.uint8))
    roots = build(layout, 4, memory, MAXPHYADDR, True).cpu.roots
    assert walk(memory, roots[0], Virtual(0x40_0123)).physical == 0xFEE0_0123


def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'title = "\xe4"')
    for path, said in {
        tmp_path / "none.toml": "No such file or directory",
        tmp_path: "Is a directory",
        latin: "is not text in UTF-8",
        Path("a\0b.toml"): "is not a name of a file",
    }.items():
        with pytest.raises(LayoutError, match=said):
            load(path)


def test_a_layout_is_found_by_name_or_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(HEAD)
    assert find("dense") in shipped()
    assert find(str(mine)) == mine
    assert find("riscv/dense", "riscv") == find("dense", "riscv") != find("dense")
    assert load(mine).name == "mine"
    with pytest.raises(LayoutError, match=r"no layout is called 'dence': did you mean dense\?"):
        find("dence")


def test_an_installed_package_brings_its_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "__file__", str(tmp_path / "harness/check/layouts.py"))
    with pytest.raises(LayoutError, match="comes without layouts"):
        shipped()
    for directory in (tmp_path / "harness" / "images", tmp_path / "images"):
        directory.mkdir(parents=True)
        (directory / "one.toml").touch()
    assert shipped() == [tmp_path / "harness" / "images" / "one.toml"]


ROOMY = "title = ''\nlevels = [4]\nram = '3G'\ntables = '2G'\n"
ONE_FRAME = "physical = 0xc000_0000\nphysical_step = 0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROOMY + PAGE + ONE_FRAME + "count = 268435456\n", r"map 1: 525,317 tables are needed"),
        (ROOMY + (PAGE + ONE_FRAME + "count = 268435456\n") * 4, r"1,073,741,824 entries are"),
        (HEAD + (PAGE + ONE_FRAME + "count = 2000000\n") * 60, r"120,000,000 entries are asked"),
        (
            HEAD + PAGE + ONE_FRAME + "count = 2000000\nstep = '8K'\n",
            r"map 1: 7,831 tables are needed, and `tables` \(16M\) has room for 4,096",
        ),
        (
            ROOMY + PAGE + ONE_FRAME + "count = 2000000\nstep = '8K'\n",
            r"2,000,000 entries are asked for that are put one by one .*, which takes 60 s or more",
        ),
        (
            ROOMY + PAGE + ONE_FRAME + "count = 200000000\n",
            r"200,000,000 entries are asked for, which take 80 s and 6,103 MiB to build",
        ),
        (
            ROOMY + PAGE + "\n[[share]]\nvirtual = 0x8000_0000\nlevel = 1\nlike = 0x40_0000\n"
            "count = 1000000\n",
            r"1,000,001 entries|1,000,000 entries are asked for that are put one by one",
        ),
    ],
    ids=["l1", "l4", "l60", "lstep", "steps", "pages", "shares"],
)
def test_a_layout_is_bounded_before_it_is_built(text: str, said: str) -> None:
    """By its description: building would take minutes, or all memory."""
    memory = np.zeros(8, np.uint8)  # which nothing could be built in
    layout = parse(text, "x.toml")
    tracemalloc.start()
    try:
        with pytest.raises(LayoutError, match=said):
            build(layout, 4, BufferMemory(memory, MACHINE), MAXPHYADDR, True)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 20


@pytest.mark.parametrize(("path", "levels"), CASES, ids=[f"{p.stem}-{n}" for p, n in CASES])
def test_the_bound_of_tables_is_no_more_than_what_is_built(path: Path, levels: int) -> None:
    layout = load(path)
    memory = BufferMemory(np.zeros(layout.ram, np.uint8))
    space = build(layout, levels, memory, layout.control.maxphyaddr or MAXPHYADDR, True).space
    built = len(np.unique(bulk.leaves(memory, space.roots).tables.address))
    for run in layouts._runs(layout, space.roots):
        assert run.tables <= built


def test_the_bound_of_tables_is_exact_for_one_map() -> None:
    for more in ("count = 1", "count = 1025", "count = 300\nstep = '8K'", "count = 9\nstep = '1G'"):
        layout = parse(HEAD + PAGE + f"{more}\n", "x.toml")
        memory = BufferMemory(np.zeros(layout.ram, np.uint8))
        space = build(layout, 4, memory, MAXPHYADDR, True).space
        (run,) = layouts._runs(layout, space.roots)
        assert run.tables == len(np.unique(bulk.leaves(memory, space.roots).tables.address))


EVERY_KEY: dict[str, dict[str, str]] = {
    "": {"title": "''", "levels": "[4]", "ram": "'64M'", "tables": "'2M'"},
    "[cpu]": {
        **dict.fromkeys(SWITCHES, "true"),
        "maxphyaddr": "40",
    },
    "[[map]]": {
        **{"virtual": "0x400000", "size": "'4K'", "count": "2", "step": "'8K'"},
        **{"physical": "0x3000000", "physical_step": "0", "rights": "'w'", "bits": "['G']"},
        **{"table_rights": "'wux'", "levels": "[4]"},
    },
    "[[map]] # random": {
        **{"virtual": "0x800000", "size": "'4K'", "physical": "'random'", "seed": "7"},
    },
    "[[share]]": {
        **{"virtual": "0x80_0000_0000", "level": "2", "like": "0x400000", "count": "2"},
        **{"rights": "'w'", "levels": "[4]"},
    },
    "[[share]] # root": {"virtual": "0x100_0000_0000", "root": "true"},
    "[[entry]]": {"virtual": "0x180_0000_0000", "level": "3", "value": "0", "levels": "[4]"},
}
OF_EVERY_TYPE = (
    *("true", "7", "-1", "1" + "0" * 18, "0x7fff_ffff_ffff_ffff", "1" + "0" * 30, "1.5", "nan"),
    *("inf", "'x'", "''", "'4K'", "[]", "[1]", "['x']", "[[]]", "{}", "{a = 1}", "1979-05-27"),
)
"""A value of every type that TOML has."""


def in_toml(sections: dict[str, dict[str, str]]) -> str:
    return "\n".join(
        f"{head}\n" + "\n".join(f"{key} = {value}" for key, value in keys.items())
        for head, keys in sections.items()
    )


@pytest.mark.parametrize(
    ("head", "key"), [(head, key) for head, keys in EVERY_KEY.items() for key in keys]
)
def test_a_value_of_any_type_is_taken_or_refused_in_a_sentence(head: str, key: str) -> None:
    refused = 0
    for value in (EVERY_KEY[head][key], *OF_EVERY_TYPE):
        text = in_toml({**EVERY_KEY, head: {**EVERY_KEY[head], key: value}})
        memory = BufferMemory(np.zeros(1 << 21, np.uint8), MACHINE)
        try:
            build(parse(text, "x.toml"), 4, memory, MAXPHYADDR, True)
        except LayoutError as error:
            refused += 1
            assert "\n" not in str(error)
            assert len(str(error)) < 300
    assert refused >= (0 if key == "title" else 5)


PLACED = {
    "the same page": ("[[map]]\nvirtual = 0x40_0000\nsize = '4K'\n", "map 2: 0x400000 is", "map 1"),
    "a page within a row": (
        "[[map]]\nvirtual = 0x80_0000\nsize = '4K'\ncount = 9\n"
        "[[map]]\nvirtual = 0x80_5000\nsize = '4K'\n",
        "map 3: 0x805000 is",
        "map 2",
    ),
    "a page within a large one": (
        "[[map]]\nvirtual = 0x80_0000\nsize = '2M'\n[[map]]\nvirtual = 0x80_5000\nsize = '4K'\n",
        "map 3: 0x805000 is",
        "map 2",
    ),
    "a large page over a small one": (
        "[[map]]\nvirtual = 0x80_0000\nsize = '4K'\nstep = '8K'\ncount = 4\n"
        "[[map]]\nvirtual = 0x80_0000\nsize = '2M'\n",
        "map 3: 0x800000 is",
        "map 2",
    ),
    "an entry over a page": (
        "[[entry]]\nvirtual = 0x40_0000\nlevel = 0\nvalue = 0x3ff_f003\n",
        "entry 1: virtual 0x400000 is",
        "map 1",
    ),
    "a page over a share": (
        "[[share]]\nvirtual = 0x4000_0000\nlevel = 1\nlike = 0x40_0000\n"
        "[[entry]]\nvirtual = 0x4000_0000\nlevel = 1\nvalue = 0x300_0083\n",
        "entry 1: virtual 0x40000000 is",
        "share 1",
    ),
    "a share over a page": (
        "[[share]]\nvirtual = 0x40_0000\nlevel = 1\nlike = 0x40_0000\n",
        "share 1: virtual 0x400000 is",
        "map 1",
    ),
}


@pytest.mark.parametrize(("more", "refused", "by"), PLACED.values(), ids=PLACED)
def test_what_is_put_over_something_names_the_part_that_put_it_there(
    more: str, refused: str, by: str
) -> None:
    layout = parse(HEAD + PAGE + more, "x.toml")
    with pytest.raises(LayoutError) as error:
        build(layout, 4, BufferMemory(np.zeros(layout.ram, np.uint8)), 40, page1gb=True)
    assert str(error.value).startswith(f"x.toml, {refused} taken: its level-")
    assert str(error.value).endswith(f", put there by x.toml, {by}")


FIELDS = [
    # Where the manuals have them: SDM 4.6.2; Svpbmt; Arm ARM, table D8-52.
    *(
        ("x86", 4, [f"KEY={text}"], value << 59)
        for text, value in (("0", 0), ("5", 5), ("0xf", 15))
    ),
    ("x86", 4, ["KEY"], 15 << 59),
    ("x86", 5, ["G=1", "PCD = 1", "PWT=0"], 1 << 8 | 1 << 4),
    *(("riscv", 3, [f"PBMT={value}"], value << 61) for value in range(3)),
    *(("arm64", 3, [f"AttrIndx={value}", "AF"], value << 2 | 1 << 10) for value in range(8)),
    ("arm64", 3, ["AttrIndx"], 7 << 2),
    ("arm64", 3, ["ATTR"], 7 << 2),  # as files had it before
    ("arm64", 3, ["SH=3", "AttrIndx=4", "AttrIndx=4"], 3 << 8 | 4 << 2),
]


@pytest.mark.parametrize(("arch", "levels", "names", "bits"), FIELDS)
def test_a_field_has_the_value_that_a_map_gives_it(
    arch: str, levels: int, names: list[str], bits: int
) -> None:
    base = described(arch).ram_base
    head = f"title = ''\narch = '{arch}'\nlevels = [{levels}]\n"
    page = "[[map]]\nvirtual = 0x40_0000\nsize = '4K'\n"
    plain, named = (parse(f"{head}{page}bits = {chosen}\n", "x.toml") for chosen in ([], names))
    raws = []
    for layout in (plain, named):
        memory = BufferMemory(np.zeros(layout.ram, np.uint8), base)
        cpu = architecture.named(arch).build(layout, levels, memory, {})
        root = root_for(cpu, Virtual(0x40_0000))
        assert root is not None
        raws.append(walk(memory, root, Virtual(0x40_0000)).steps[-1].raw)
    assert raws[0] ^ raws[1] == bits


@pytest.mark.parametrize("arch", NAMES)
def test_every_key_of_cpu_is_described(arch: str) -> None:
    """With the value that it has by default, or one that it can have."""
    told = dict(re.findall(r"^ +(\w+) = ([^ ]+)", layouts.__doc__ or "", re.MULTILINE))
    for key, read in described(arch).cpu.items():
        assert key in told, key
        read(tomllib.loads(f"value = {told[key]}")["value"])


def test_a_sample_of_mappings_is_asked_about_where_a_monitor_translates() -> None:
    """By `gva2gpa`, which QEMU has for x86 and arm64; of others, all there is, is asked."""
    assert {arch for arch in NAMES if described(arch).thorough} == {"x86", "arm64"}
