"""Two roots for one space: which one is loaded decides what is reached."""

from dataclasses import replace

import pytest

from harness.paging.address import Span, Virtual
from harness.paging.copy import copy_range
from harness.paging.format import Format
from harness.paging.isolation import IsolatedSpace
from harness.paging.reshape import split
from harness.paging.space import Space
from harness.paging.sync import sync_roots
from harness.paging.table import Root
from harness.paging.walk import walk
from harness.paging.x86.access import Access, Allowed, Kind, Outcome, outcome
from harness.paging.x86.cpu import Cpu
from harness.paging.x86.formats import long_mode, paging32
from tests.paging.spaces import FORMATS, UNEVEN, World, granted, physical


class Pair:
    """An isolated space, and what each of its roots reaches."""

    def __init__(self, name: str) -> None:
        self.world = World(FORMATS[name])
        self.space = self.another()
        self.half, self.kernel_half = (root.span for root in self.space.roots)

    def another(self) -> IsolatedSpace:
        world = self.world
        top = len(world.format.levels) - 1
        roots = world.new_roots()
        if len({root.table for root in roots}) > 1:
            roots = halves(roots[0])
        user_table = world.allocator.allocate(world.format, top)
        return IsolatedSpace(world.memory, roots, world.allocator, roots[0], user_table)

    def user(self, address: int, space: IsolatedSpace | None = None) -> set[str] | None:
        """The rights that the user's root gives at an address, None where nothing is mapped."""
        for root in (space or self.space).user_roots:
            if address in root.span:
                found = walk(self.world.memory, root, Virtual(address))
                rights = self.world.format.rights_of(found.granted)
                return None if found.leaf is None else set(rights)
        raise AssertionError(f"{address:#x} is not served")


def halves(root: Root) -> tuple[Root, Root]:
    """The same table, serving two halves."""
    middle = root.span.size // 2
    return (
        Root(root.table, Span(0, middle - 1)),
        Root(root.table, Span(middle, root.span.last)),
    )


@pytest.fixture(params=FORMATS)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


@pytest.mark.parametrize("format", [paging32(40, True, True), long_mode(4, 40, False, True)])
def test_a_format_without_a_right_to_execute_cannot_be_isolated(format: Format) -> None:
    """32-bit paging has no XD; with EFER.NXE=0 it is reserved (SDM 4.3, 4.5.4)."""
    world = World(FORMATS["x86-4"])
    top = len(format.levels) - 1
    tables = [world.allocator.allocate(format, top) for _ in range(2)]
    whole = Span.of(0, format.levels[top].size * format.levels[top].entries)
    roots = halves(Root(tables[0], whole))
    with pytest.raises(ValueError, match="cannot withhold execution"):
        IsolatedSpace(world.memory, roots, world.allocator, roots[0], tables[1])


def test_a_format_whose_root_has_no_pointers_cannot_be_isolated() -> None:
    world = World(UNEVEN)
    flat = replace(UNEVEN, levels=UNEVEN.levels[:1])
    tables = [world.allocator.allocate(flat, 0) for _ in range(2)]
    roots = halves(Root(tables[0], Span(0, 8 * 64 - 1)))
    with pytest.raises(ValueError, match="cannot withhold execution"):
        IsolatedSpace(world.memory, roots, world.allocator, roots[0], tables[1])


@pytest.mark.parametrize("denied", [False, True], ids=["a bit that gives", "a bit that denies"])
def test_the_kernel_executes_what_users_may_not_reach(denied: bool) -> None:
    """A root entry that gives users nothing keeps its right to execute under both roots."""
    user = UNEVEN.rights["user"] if denied else 0
    world = World(replace(UNEVEN, denied=UNEVEN.denied | user, exclusive=0))
    roots = halves(world.space.roots[0])
    user_table = world.allocator.allocate(world.format, 2)
    space = IsolatedSpace(world.memory, roots, world.allocator, roots[0], user_table)
    page = world.size(2)
    space.map(Virtual(0), world.frames(1, 2), 2, world.rights("execute"))
    space.map(Virtual(page), world.frames(1, 2), 2, world.rights("user", "execute"))
    assert granted(space, 0) == {"execute"}
    assert granted(space, page) == {"user"}


def test_both_roots_reach_the_user_half_and_only_the_user_s_executes_it(pair: Pair) -> None:
    world = pair.world
    bits = world.rights("write", "user", "execute")
    pair.space.map(Virtual(world.page), world.frames(1), 0, bits)
    assert pair.user(world.page) == {"write", "user", "execute"}
    assert granted(pair.space, world.page) == {"write", "user"}
    assert physical(pair.space, world.page) == world.frames(1)[0]


def test_a_page_at_the_root_level_is_mirrored_too() -> None:
    pair = Pair("uneven")
    bits = pair.world.rights("user", "execute")
    pair.space.map(Virtual(0), pair.world.frames(2, 2), 2, bits)
    assert pair.user(0) == {"user", "execute"}
    assert granted(pair.space, 0) == {"user"}
    split(pair.space, Virtual(0)).done()
    assert pair.user(0) == {"user", "execute"}
    pair.space.unmap(Span.of(0, 2 * pair.world.size(2))).done()
    assert pair.user(0) is None


@pytest.mark.parametrize("dirty_in", ["the kernel's root", "the user's root"])
def test_what_the_machine_noted_under_either_root_is_known(dirty_in: str) -> None:
    pair = Pair("uneven")
    world, format = pair.world, pair.world.format
    pair.space.map(Virtual(0), world.frames(1, 2), 2, world.rights("write", "user"))
    notes = [format.dirty, format.accessed]
    if dirty_in == "the user's root":
        notes.reverse()
    for root, bit in (pair.space.roots[0], notes[0]), (pair.space.user_roots[0], notes[1]):
        at = root.table.slot(0).address
        raw = world.memory.load(at, format.entry_bytes)
        assert raw is not None
        world.memory.store(at, format.entry_bytes, raw | bit)
    assert pair.space.read(pair.space.slot(Virtual(0), 2)) & format.dirty
    split(pair.space, Virtual(0)).done()
    raw = pair.space.read(pair.space.slot(Virtual(0), 1))
    assert raw & (format.dirty | format.accessed) == format.dirty | format.accessed


def test_the_user_s_root_reaches_nothing_of_the_kernel_but_the_entry(pair: Pair) -> None:
    world, first = pair.world, pair.kernel_half.first
    pair.space.map(Virtual(first), world.frames(2), 0, world.rights("write"))
    assert pair.user(first) is None
    pair.space.entry.map(Virtual(first), world.frames(1), 0, world.rights("execute"))
    assert pair.user(first) == {"execute"}
    assert pair.user(first + world.page) is None
    assert granted(pair.space, first) == {"write"}


def test_the_first_and_the_last_root_slot_of_the_user_half_are_mirrored(pair: Pair) -> None:
    world = pair.world
    for at in pair.half.first, pair.half.last + 1 - world.page:
        pair.space.map(Virtual(at), world.frames(1), 0, world.rights("user", "execute"))
        assert pair.user(at) == {"user", "execute"}
        assert granted(pair.space, at) == {"user"}
    for at in pair.kernel_half.first, pair.kernel_half.last + 1 - world.page:
        pair.space.map(Virtual(at), world.frames(1), 0, world.rights("execute"))
        assert pair.user(at) is None


def test_in_a_format_without_a_user_s_right_all_of_the_user_half_is_the_user_s() -> None:
    rights = {name: UNEVEN.rights[name] for name in ("write", "execute")}
    world = World(replace(UNEVEN, rights=rights, exclusive=0))
    roots = halves(world.space.roots[0])
    user_table = world.allocator.allocate(world.format, 2)
    space = IsolatedSpace(world.memory, roots, world.allocator, roots[0], user_table)
    space.map(Virtual(0), world.frames(1, 2), 2, world.rights("execute"))
    assert granted(space, 0) == set()


def test_a_user_half_that_is_none_of_the_roots_is_refused(pair: Pair) -> None:
    table = pair.space.user_roots[0].table
    roots = pair.space.roots
    other = Root(roots[0].table, Span(0, roots[0].span.last - 1))
    with pytest.raises(ValueError, match="one root table that serves"):
        IsolatedSpace(pair.world.memory, roots, pair.world.allocator, other, table)


def test_what_is_unmapped_is_gone_under_both_roots(pair: Pair) -> None:
    world = pair.world
    pair.space.map(Virtual(0), world.frames(1), 0, world.rights("user"))
    pair.space.unmap(world.pages(0, 1)).done()
    pair.space.free_empty(world.pages(0, 1)).done()
    assert pair.user(0) is None
    top = pair.space.user_roots[0].table
    assert all(pair.space.read(slot) == 0 for slot in top.slots())


def test_shared_kernel_entries_stay_out_of_the_user_s_root(pair: Pair) -> None:
    kernel = pair.world.space
    first = pair.kernel_half.first
    kernel.map(Virtual(first), pair.world.frames(1), 0, pair.world.rights("write"))
    sync_roots(kernel, [pair.space], Span.of(first, pair.world.page))
    assert physical(pair.space, first) == pair.world.frames(1)[0]
    assert pair.user(first) is None


def test_a_fork_gives_the_child_s_user_root_what_the_parent_s_has(pair: Pair) -> None:
    world = pair.world
    pair.space.map(Virtual(0), world.frames(1), 0, world.rights("write", "user", "execute"))
    child = pair.another()
    copy_range(pair.space, child, world.pages(0, 1)).flush.done()
    for space in pair.space, child:
        assert pair.user(0, space) == {"user", "execute"}
        assert granted(space, 0) == {"user"}


def test_a_failed_fork_leaves_nothing_in_either_root_of_the_child(pair: Pair) -> None:
    world = pair.world
    pair.space.map(Virtual(0), world.frames(1), 0, world.rights("write", "user"))
    child = pair.another()
    account = child.account()
    world.allocator.remaining = 1
    with pytest.raises(ValueError, match="allowance"):
        copy_range(pair.space, child, world.pages(0, 1))
    assert child.account() == account
    assert pair.user(0, child) is None
    assert pair.user(0) == {"write", "user"}


def test_the_account_knows_both_roots_and_is_zero_in_the_end(pair: Pair) -> None:
    world = pair.world
    assert pair.space.account().tables[-1] == 2
    pair.space.map(Virtual(0), world.frames(1), 0, world.rights("user"))
    pair.space.entry.map(Virtual(pair.kernel_half.first), world.frames(1), 0, world.rights())
    below = len(world.format.levels) - 1
    assert pair.space.account().tables == (*[2] * below, 2)
    sizes = [world.format.table_bytes(level) for level in range(below + 1)]
    assert pair.space.account().bytes == 2 * sum(sizes)
    assert pair.space.account().counted == 2 * sum(sizes[:3])  # those that Linux counts
    user_table = pair.space.user_roots[0].table
    pair.space.tear_down().done()
    assert not any(pair.space.account().tables)
    assert not world.allocator.gave(user_table)


def test_a_space_taken_over_again_is_the_same(pair: Pair) -> None:
    world = pair.world
    pair.space.map(Virtual(0), world.frames(1), 0, world.rights("user"))
    again = IsolatedSpace(
        world.memory,
        pair.space.roots,
        world.allocator,
        pair.space.roots[0],
        pair.space.user_roots[0].table,
    )
    assert again.account() == pair.space.account()
    again.tear_down().done()
    assert not any(again.account().tables)


def test_roots_that_do_not_tell_user_and_kernel_apart_are_refused(pair: Pair) -> None:
    table = pair.space.user_roots[0].table
    one = pair.space.roots[:1]
    with pytest.raises(ValueError, match="one root table that serves"):
        IsolatedSpace(pair.world.memory, one, pair.world.allocator, one[0], table)
    apart = World(FORMATS["uneven"])
    for roots, user in (
        (pair.space.roots, Root(table, pair.half)),
        (apart.space.roots, apart.space.roots[0]),
    ):
        with pytest.raises(ValueError, match="one root table that serves"):
            IsolatedSpace(pair.world.memory, roots, pair.world.allocator, user, table)


def test_a_format_that_cannot_withhold_execution_is_refused() -> None:
    world = World(long_mode(4, 40, False, True))
    roots = world.new_roots()
    with pytest.raises(ValueError, match="cannot withhold execution"):
        IsolatedSpace(world.memory, roots, world.allocator, roots[0], roots[0].table)


def test_what_only_software_understands_is_the_same_in_both_roots() -> None:
    pair = Pair("uneven")
    note = pair.world.format.rights["user"] | 0x60
    pair.space.write(pair.space.roots[0].table.slot(1), note)
    for root in pair.space.roots[0], pair.space.user_roots[0]:
        assert pair.world.memory.load(root.table.slot(1).address, 8) == note


@pytest.mark.parametrize("levels", [4, 5])
def test_a_cpu_with_either_root_loaded_reaches_what_it_should(levels: int) -> None:
    pair = Pair(f"x86-{levels}")
    world, kernel_page = pair.world, pair.kernel_half.first
    pair.space.map(Virtual(0), world.frames(1), 0, world.rights("user", "execute"))
    pair.space.map(Virtual(kernel_page), world.frames(1), 0, world.rights("write", "execute"))
    kernel = Cpu.long_mode(levels, pair.space.roots[0].table.address)
    user = replace(kernel, cr3=pair.space.user_roots[0].table.address)
    assert kernel.roots == pair.space.roots
    assert user.roots == pair.space.user_roots

    def goes(cpu: Cpu, address: int, kind: Kind, by_user: bool) -> bool:
        result: Outcome = outcome(cpu, world.memory, Virtual(address), Access(kind, by_user))
        return isinstance(result, Allowed)

    assert goes(user, 0, Kind.FETCH, True)
    assert not goes(kernel, 0, Kind.FETCH, True)
    assert not goes(kernel, 0, Kind.FETCH, False)
    assert goes(kernel, 0, Kind.READ, False)
    assert goes(kernel, kernel_page, Kind.WRITE, False)
    assert not goes(user, kernel_page, Kind.READ, False)


def test_the_entry_is_a_space_of_the_kernel_half_alone(pair: Pair) -> None:
    assert isinstance(pair.space.entry, Space)
    assert [root.span for root in pair.space.entry.roots] == [pair.kernel_half]
