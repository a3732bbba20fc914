"""What holds of every format, whatever its architecture: each check looks for what is wrong in the
data of a format and returns it as sentences, so that faults can be planted in data and be seen.

The checks know nothing of any manual: that a format says what its manual says is the business of
the tests of its architecture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bits import breaks, offending_bits, stale
from harness.paging.entry import Absent, Entry, Leaf, Malformed, Pointer
from harness.paging.format import Format, Level, Shape
from harness.paging.memory import BigEndianMemory, BufferMemory
from harness.paging.table import Root, Table
from harness.paging.walk import Walk, leaves, walk

Check = Callable[[Format], Iterator[str]]


def shapes(format: Format) -> Iterator[tuple[int, Level, Shape, str]]:
    """Every shape with its level, and what to call it."""
    for number, level in enumerate(format.levels):
        for place, shape in enumerate(level.shapes):
            yield number, level, shape, f"{level.name} at level {number}, shape {place}"


def single_bits(mask: int) -> list[int]:
    """The bits of a mask, one by one."""
    return [1 << bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def rights_bits(shape: Shape, format: Format) -> int:
    """The bits of an entry by which it gives and withholds rights."""
    if shape.grants is None:
        return format.rights_mask
    found = 0
    for one in shape.grants.values():
        found |= one.mask
    return found


def plain(format: Format, level: Level, shape: Shape) -> int | None:
    """A well-formed entry of a shape with address 0 and as few bits as can be, that of a whole
    table; None without."""
    giving = single_bits(rights_bits(shape, format) & ~shape.clean.mask)
    whole = shape.bounds.last if shape.bounds else 0
    for count in range(len(giving) + 1):
        for chosen in combinations(giving, count):
            raw = shape.clean.value | whole | sum(chosen)
            if level.matching(raw) is shape and not shape.offending(raw):
                return raw
    return None


def address_in(entry: Entry) -> int | None:
    if isinstance(entry, Pointer):
        return entry.table.address
    return entry.address if isinstance(entry, Leaf) else None


def alike(entry: Entry, shape: Shape, level: Level) -> bool:
    """Whether an entry is what the shape says."""
    if isinstance(entry, Leaf):
        return not shape.points and entry.size == level.page_size(shape)
    return isinstance(entry, Pointer) and shape.points


def every_bit_is_decoded_once(format: Format) -> Iterator[str]:
    """Each bit tells the shape, holds a bit of the address, is reserved, or is none of these; it
    does so in the data and in what is decoded."""
    for number, level, shape, what in shapes(format):
        seen = 0
        for mask in (shape.when.mask, shape.reserved_mask, *(one.mask for one in shape.address)):
            if mask & seen:
                yield f"{what}: bits {mask & seen:#x} are two things"
            seen |= mask
        if seen >> 8 * format.entry_bytes:
            yield f"{what}: bits {seen:#x} are wider than an entry"
        held: set[int] = set()
        base = plain(format, level, shape)
        if base is None:
            continue  # a check of its own
        for bit in single_bits((1 << 8 * format.entry_bytes) - 1 & ~level.telling):
            entry = format.decode(base ^ bit, number)
            if bit & shape.reserved_mask:
                if entry != Malformed(bit):
                    yield f"{what}: reserved bit {bit:#x} gives {entry}"
            elif bit & shape.address_mask:
                address = address_in(entry)
                if address is None or address.bit_count() != 1 or address in held:
                    yield f"{what}: bit {bit:#x} of the address gives {entry}"
                held.add(address or 0)
            elif isinstance(entry, Pointer | Leaf) and address_in(entry):
                yield f"{what}: bit {bit:#x} is none of the address, and gives {entry}"


def names_are_of_bits_of_their_own(format: Format) -> Iterator[str]:
    """Two names share no bit, and none is of the address."""
    for _, _, shape, what in shapes(format):
        for (one, mask), (other, others) in combinations(shape.bits.items(), 2):
            if mask & others:
                yield f"{what}: {one} and {other} share bits {mask & others:#x}"
        for name, mask in shape.bits.items():
            if mask & shape.address_mask:
                yield f"{what}: {name} is in the address"


def what_is_encoded_is_decoded(format: Format) -> Iterator[str]:
    """For each shape and each bit of its address."""
    for number, level, shape, what in shapes(format):
        base = plain(format, level, shape)
        if base is None:
            yield f"{what}: no entry has this shape"
            continue
        for part in shape.address:
            for bit in single_bits(part.mask):
                address = bit << part.shift
                entry = format.decode(base | shape.encode(address), number)
                if address_in(entry) != address or not alike(entry, shape, level):
                    yield f"{what}: {address:#x} is encoded, and {entry} decoded"
        if shape in (level.pointer, level.leaf):
            make = format.pointer if shape.points else format.leaf
            given = base & ~shape.clean.mask
            if make(0, number, given) != base:
                yield f"{what}: made of bits {given:#x} it is {make(0, number, given):#x}"


def no_shape_is_shadowed(format: Format) -> Iterator[str]:
    """Entries of each shape are read in it, and none of them is absent."""
    for number, level, shape, what in shapes(format):
        base = plain(format, level, shape)
        if base is None or not alike(format.decode(base, number), shape, level):
            yield f"{what}: it is read otherwise"


def what_is_empty_is_absent(format: Format) -> Iterator[str]:
    for number, level in enumerate(format.levels):
        if format.decode(level.empty, number) != Absent():
            yield f"an empty {level.name} is {format.decode(level.empty, number)}"
        for pattern in level.absent:
            if format.decode(pattern.value, number) != Absent():
                yield f"{level.name} {pattern.value:#x} is {format.decode(pattern.value, number)}"


def rights_come_back(format: Format) -> Iterator[str]:
    """Just those rights can be given that some entry gives, and an entry made so gives them; each
    is given by some entries and withheld by others, and no two are one."""
    for number, _, shape, what in shapes(format):
        free = [
            bit for bit in single_bits(rights_bits(shape, format)) if not bit & shape.clean.mask
        ]
        possible = set()
        for count in range(len(free) + 1):
            for chosen in combinations(free, count):
                raw = shape.clean.value | sum(chosen)
                if format.levels[number].matching(raw) is shape and not shape.offending(raw):
                    possible.add(format.granted(raw, number))
        names = list(format.rights if shape.grants is None else shape.grants)
        for name in names:
            where = format.rights[name] if shape.grants is None else shape.grants[name].mask
            if where and not where & ~shape.reserved_mask:
                continue  # XD where execution cannot be withheld
            if len({word & format.rights[name] for word in possible}) < 2:
                yield f"{what}: no entry gives {name}, or none withholds it"
        for one, other in combinations(names, 2):
            both = format.rights[one] | format.rights[other]
            if not {word & both for word in possible} - {0, both}:
                yield f"{what}: {one} and {other} are always given together"
        rest = format.rights_mask & ~sum(format.rights[name] for name in names)
        for count in range(len(names) + 1):
            for given in combinations(names, count):
                wanted = rest | sum(format.rights[name] for name in given)
                try:
                    raw = shape.clean.value | format.granting_in(shape, *given)
                except ValueError:
                    if wanted in possible:
                        yield f"{what}: {given} is refused, and can be given"
                    continue
                entry = format.decode(raw, number)
                if not alike(entry, shape, format.levels[number]):
                    if wanted in possible:
                        yield f"{what}: {given} makes it {entry}"
                elif format.granted(raw, number) != wanted:
                    yield f"{what}: {given} comes back as {format.granted(raw, number):#x}"


def pages_are_whole(format: Format) -> Iterator[str]:
    """A page is as large as its slot or as several, and its address is a multiple of its size."""
    for number, level, shape, what in shapes(format):
        if shape.points:
            continue
        size = level.page_size(shape)
        if size % level.size or size > level.size * level.entries:
            yield f"{what}: a page of {size:#x} bytes in slots of {level.size:#x}"
        held = shape.address_of(-1)
        if held & size - 1:
            yield f"{what}: an address can lie {held & size - 1:#x} inside a page"
        base = plain(format, level, shape)
        if base is None:
            continue
        table = Table(format, Physical(0), number)
        root = Root(table, Span.of(0, level.size * level.entries))
        raw = base | shape.encode(held & -held)
        group = max(size // level.size, 1)
        memory = memory_of(format, [raw] * group)
        for slot in range(group):
            found = walk(memory, root, Virtual(slot * level.size + 1)).physical
            if found != (held & -held) + slot * level.size + 1:
                yield f"{what}: slot {slot} of {group} leads to {found}"


def arrays_read_entries_as_scalars_do(format: Format) -> Iterator[str]:
    """Kinds, offending bits and rights of random entries."""
    source = random.Random(1)
    for number in range(len(format.levels)):
        raws = [random_entry(source, format, number, []) for _ in range(2000)]
        words = np.array(raws, np.uint64)
        found = bulk.kinds(format, number, words).tolist()
        wrong = offending_bits(format, number, words).tolist()
        all_rights = np.uint64(format.rights_mask)
        granted = bulk.granted_by(format, number, all_rights, words).tolist()
        for raw, kind, offending, given in zip(raws, found, wrong, granted, strict=True):
            entry = format.decode(raw, number)
            if kind != KINDS[type(entry)]:
                yield f"level {number}: {raw:#x} is {entry}, and {kind} to arrays"
            shape = format.levels[number].matching(raw)
            if shape and isinstance(entry, Malformed) and offending != entry.bits:
                yield f"level {number}: {raw:#x} has {offending:#x} to arrays, not {entry}"
            if given != format.granted(raw, number):
                yield f"level {number}: {raw:#x} grants {given:#x} to arrays"


KINDS = {
    Absent: int(bulk.End.ABSENT),
    Leaf: int(bulk.End.LEAF),
    Malformed: int(bulk.End.MALFORMED),
    Pointer: bulk.POINTER,
}


def arrays_walk_as_scalars_do(format: Format) -> Iterator[str]:
    """Walks, steps and leaves of random memory."""
    for seed in range(3):
        memory, roots, addresses = random_space(random.Random(seed), format)
        [root] = roots
        walks = bulk.walk(memory, roots, np.array(addresses, np.uint64))
        for lane, address in enumerate(addresses):
            scalar = answer(walk(memory, root, Virtual(address)))
            array = lane_of(walks, lane)
            if array != scalar:
                yield f"seed {seed}: {address:#x} is {scalar}, and {array} to arrays"
        listed = bulk.leaves(memory, roots)
        rows = zip(
            *(listed.virtual.tolist(), listed.end.tolist(), listed.level.tolist()),
            *(listed.raw.tolist(), listed.granted.tolist(), listed.physical.tolist()),
            strict=True,
        )
        if list(rows) != [(one.address, *answer(one)[:-1]) for one in leaves(memory, roots)]:
            yield f"seed {seed}: leaves are listed otherwise by arrays"


def arrays_walk_words_as_scalars_walk_memory(format: Format) -> Iterator[str]:
    """The entries of random walks, by level, and what walks come to that are given them."""
    for seed in range(3):
        memory, roots, addresses = random_space(random.Random(seed), format)
        [root] = roots
        paths = bulk.paths(memory, root, np.array(addresses, np.uint64))
        walks = bulk.walk_words(roots, paths.raw, np.array(addresses, np.uint64))
        for lane, address in enumerate(addresses):
            scalar = walk(memory, root, Virtual(address))
            read = {step.slot.level: (int(step.slot.address), step.raw) for step in scalar.steps}
            noted = {
                level: (int(paths.slot[level, lane]), int(paths.raw[level, lane]))
                for level in np.flatnonzero(paths.used[:, lane]).tolist()
            }
            if noted != read:
                yield f"seed {seed}: {address:#x} reads {read}, and {noted} in arrays"
            array = lane_of(walks, lane)
            if scalar.unbacked is None and array != answer(scalar):
                yield f"seed {seed}: {address:#x} is {answer(scalar)}, and {array} by words"


def lane_of(walks: bulk.Walks, lane: int) -> tuple[int, ...]:
    """What `answer` says of a walk, of a lane of arrays."""
    columns = (walks.end, walks.level, walks.raw, walks.granted, walks.physical, walks.above)
    return tuple(int(column[lane]) for column in columns)


def answer(found: Walk) -> tuple[int, ...]:
    """How a walk ended, its level, the entry, the rights, the physical address, and the rights that
    the entries above that level leave."""
    format = found.root.table.format
    above = format.rights_mask
    for step in found.steps:
        if step.slot.level > found.level:
            above &= format.granted(step.raw, step.slot.level)
    if found.unbacked is not None:
        return int(bulk.End.UNBACKED), found.level, 0, found.granted, 0, above
    if found.outside is not None:
        return int(bulk.End.OUTSIDE), found.level, 0, found.granted, 0, above
    raw, entry = found.steps[-1].raw, found.steps[-1].entry
    return KINDS[type(entry)], found.level, raw, found.granted, found.physical or 0, above


def what_leads_elsewhere_is_flushed(format: Format) -> Iterator[str]:
    """A change of any bit that tells what an entry is, where it leads, or that is reserved, whether
    it is set or cleared, and whatever the bit is in entries of another shape."""
    if format.flushing is None:
        return
    for number, level, shape, what in shapes(format):
        base = plain(format, level, shape)
        if base is None:
            continue
        bits = single_bits(shape.clean.mask | shape.address_mask)
        before = np.array([base] * len(bits) + [base | shape.address_mask] * len(bits), np.uint64)
        after = before ^ np.array(bits * 2, np.uint64)
        told = {"is not flushed": stale(format, number, before, after)}
        if format.flushing.breaks:
            told["breaks nothing"] = breaks(format, number, before, after)
        for how, found in told.items():
            for lane in np.flatnonzero(~found).tolist():
                yield f"{what}: {int(before[lane]):#x} to {int(after[lane]):#x} {how}"


def what_breaks_is_flushed(format: Format) -> Iterator[str]:
    """Of random entries that become others: what must be absent until a flush is in the flush."""
    source = random.Random(2)
    for number in range(len(format.levels)):
        raws = [random_entry(source, format, number, []) for _ in range(1000)]
        others = [
            source.choice(
                [random_entry(source, format, number, []), raw ^ 1 << source.randrange(64)]
            )
            for raw in raws
        ]
        whole = (1 << 8 * format.entry_bytes) - 1
        before, after = (
            np.array([raw & whole for raw in some], np.uint64) for some in (raws, others)
        )
        wrong = breaks(format, number, before, after) & ~stale(format, number, before, after)
        for lane in np.flatnonzero(wrong).tolist():
            yield f"level {number}: {raws[lane]:#x} to {others[lane]:#x} waits for no flush"


CHECKS: tuple[Check, ...] = (
    every_bit_is_decoded_once,
    names_are_of_bits_of_their_own,
    what_is_encoded_is_decoded,
    no_shape_is_shadowed,
    what_is_empty_is_absent,
    rights_come_back,
    pages_are_whole,
    arrays_read_entries_as_scalars_do,
    arrays_walk_as_scalars_do,
    arrays_walk_words_as_scalars_walk_memory,
    what_leads_elsewhere_is_flushed,
    what_breaks_is_flushed,
)


# ---- at random ----


def memory_of(format: Format, words: list[int]) -> BufferMemory:
    """Memory that holds entries from address 0 on."""
    content = b"".join(word.to_bytes(format.entry_bytes, format.byte_order) for word in words)
    content += bytes(-len(content) % 8)
    make = BigEndianMemory if format.byte_order == "big" else BufferMemory
    return make(content)


def random_entry(source: random.Random, format: Format, level: int, tables: list[int]) -> int:
    """An entry of one of the shapes, some with a bit changed, or any word; pointers lead to one of
    the tables, if there are any."""
    width = 8 * format.entry_bytes
    if source.random() < 0.1:
        return source.getrandbits(width)
    here = format.levels[level]
    if source.random() < 0.1:
        return source.choice([here.empty, *(pattern.value for pattern in here.absent)])
    shape = source.choice(here.shapes)
    raw = source.getrandbits(width) & ~(shape.clean.mask | shape.address_mask) | shape.clean.value
    if shape.points and tables:
        raw |= shape.encode(source.choice(tables))
    else:
        raw |= source.getrandbits(width) & shape.address_mask
    if source.random() < 0.3:
        raw ^= 1 << source.randrange(width)
    return raw


def random_space(
    source: random.Random, format: Format
) -> tuple[BufferMemory, tuple[Root, ...], list[int]]:
    """Tables at every level that lead to one another, right and wrong, their root, and addresses
    whose walks use the slots that are filled: the first, the last, and some others."""
    top = len(format.levels) - 1
    step = max(format.table_bytes(level) for level in range(top + 1))
    counts = [1 if level == top else 2 for level in range(top + 1)]
    places: dict[int, list[int]] = {}
    at = 0
    for level in range(top, -1, -1):
        places[level] = [at + step * number for number in range(counts[level])]
        at += step * counts[level]
    words = [0] * (at // format.entry_bytes)
    filled = [
        [0, level.entries - 1, source.randrange(level.entries), source.randrange(level.entries)]
        for level in format.levels
    ]
    for level, addresses in places.items():
        below = places.get(level - 1, [])
        entries = format.levels[level].entries
        for address in addresses:
            first = address // format.entry_bytes
            for index in range(entries):
                words[first + index] = format.levels[level].empty
            for index in filled[level]:
                words[first + index] = random_entry(source, format, level, below)
    here = format.levels[top]
    root = Root(Table(format, Physical(places[top][0]), top), Span.of(0, here.size * here.entries))
    addresses = [
        source.randrange(format.levels[0].size)
        | sum(
            source.choice(some) << level.shift
            for level, some in zip(format.levels, filled, strict=True)
        )
        for _ in range(300)
    ]
    return memory_of(format, words), (root,), addresses
