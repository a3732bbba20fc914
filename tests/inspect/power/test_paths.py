"""Trees that lead to page tables of both sizes: what is mapped is found once, and as the hardware
follows it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.inspect import architecture, find, graph
from harness.inspect.graph import RowKind
from harness.inspect.lint import lint
from harness.inspect.power import paths
from harness.inspect.ranges import dump
from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import translate
from harness.paging.address import Physical, Virtual
from harness.paging.bulk import End
from harness.paging.power.cpu import Cpu
from tests.cli.commands import run
from tests.inspect.power.handmade import ROOT, TREE, Built, mixed

BOTH = [(9, 5)] * 6
SEEDS = list(enumerate([*BOTH, (9,), (5,)]))


def of(built: Built) -> Snapshot:
    return Snapshot("made by hand", Cpu(TREE | ROOT, sets_marks=False), built.memory, None)


def in_file(built: Built, directory: Path, name: str = "ram") -> tuple[str, ...]:
    (directory / name).write_bytes(built.octets.tobytes())
    return ("--ram", name, "--quadrant0", hex(TREE | ROOT))


@pytest.mark.parametrize(("seed", "sizes"), SEEDS)
def test_all_that_is_mapped_is_listed_once(seed: int, sizes: tuple[int, ...]) -> None:
    built = mixed(seed, sizes)
    pages, malformed = [], []
    for part in architecture.parts(of(built)):
        found = dump(part.memory, part.cpu.format, part.cpu.roots, exact=True)
        assert not found.cut
        for one in found.ranges:
            if one.kind == RowKind.PAGE:
                steps = range(0, one.pages * one.size, one.size)
                pages += [(one.first + at, (one.size, one.physical + at)) for at in steps]
            else:
                assert one.kind == RowKind.MALFORMED
                malformed += [one.first + number * one.size for number in range(one.pages)]
    expected = [(first, (size, physical)) for first, (size, physical, _) in built.pages.items()]
    assert sorted(pages) == sorted(expected)
    assert sorted(malformed) == sorted(built.malformed)


@pytest.mark.parametrize(("seed", "sizes"), SEEDS)
def test_an_address_is_translated_in_the_format_of_its_path(
    seed: int, sizes: tuple[int, ...]
) -> None:
    built = mixed(seed, sizes)
    snapshot = of(built)
    for first, (size, physical, word) in built.pages.items():
        found = translate(snapshot, Virtual(first + size - 1))
        assert found.physical == physical + size - 1
        assert found.stages[-1].reading.raw == word
        assert all(not part.wrong for stage in found.stages for part in stage.reading.parts)
        assert found.indices[-1].high == size.bit_length() - 2
    for first, bits in built.malformed.items():
        found = translate(snapshot, Virtual(first))
        assert found.end is End.MALFORMED
        wrong = [part.mask for part in found.stages[-1].reading.parts if part.wrong]
        assert sum(wrong) & bits == bits


def test_a_tree_of_one_size_is_one_part() -> None:
    for seed, sizes, bits in ((1, (9,), 12), (2, (5,), 16)):
        [part] = architecture.parts(of(mixed(seed, sizes)))
        assert part.cpu.page_bits == bits
    both = architecture.parts(of(mixed(3)))
    assert [part.cpu.page_bits for part in both] == [12, 16]
    assert len(architecture.apart(of(mixed(1, (9,))))) == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_frame_is_found_at_all_its_addresses(seed: int) -> None:
    built = mixed(seed)
    at: dict[int, list[int]] = {}
    for first, (_, physical, _) in built.pages.items():
        at.setdefault(physical, []).append(first)
    for physical, firsts in at.items():
        found = [
            one.virtual
            for part in architecture.parts(of(built))
            for one in find.addresses(
                graph.read(part.memory, part.cpu.format, part.cpu.roots), Physical(physical), 100
            ).shown
        ]
        assert set(firsts) <= set(found)
        assert len(found) == len(set(found))


@pytest.mark.parametrize("seed", range(4))
def test_lint_finds_what_is_malformed_and_nothing_that_is_followed(seed: int) -> None:
    built = mixed(seed)
    broken, cut = lint(of(built), ("normal", "SAO", "non-idempotent", "tolerant"), limit=1000)
    assert not cut
    counts = Counter({one.rule.name: one.count for one in broken})
    assert counts["reserved-bits"] == len(built.malformed)
    [wrong] = [one for one in broken if one.rule.name == "reserved-bits"]
    spans = [one.where for one in wrong.findings if one.where]
    assert all(any(first in span for span in spans) for first in built.malformed)
    assert not any(first in span for span in spans for first in built.pages)


def test_what_became_of_a_page_is_found_whatever_the_sizes(tmp_path: Path) -> None:
    small, large, both = mixed(1, (9,)), mixed(1, (5,)), mixed(1)
    sources = {}
    for name, built in (("small", small), ("large", large), ("both", both)):
        options = in_file(built, tmp_path, name)
        sources[name] = f"ram:{name},quadrant0={options[-1]}"
    differing = (("small", "both"), ("both", "small"), ("large", "both"), ("small", "large"))
    for before, after in differing:
        code, output, errors = run("diff", sources[before], sources[after], cwd=tmp_path)
        assert (code, errors) == (1, ""), errors
        assert "POWER radix 4K pages" in output and "POWER radix 64K pages" in output
    for name in sources:
        code, output, errors = run("diff", sources[name], sources[name], cwd=tmp_path)
        assert (code, errors) == (0, ""), output
    changed = mixed(1)
    first, (size, _, word) = next(
        (first, page) for first, page in changed.pages.items() if page[0] == 1 << 16
    )
    where = bytes(changed.octets).index(word.to_bytes(8, "big"))
    changed.put(where, word ^ 1)
    in_file(changed, tmp_path, "changed")
    after = sources["both"].replace("ram:both", "ram:changed")
    code, output, errors = run("diff", sources["both"], after, cwd=tmp_path)
    assert (code, errors) == (1, "")
    rows = [line for line in output.splitlines() if "0x" in line and ".." in line]
    assert [line for line in rows if f"{first:#x}..{first + size - 1:#x}" in line]


def test_more_tables_than_are_looked_at_are_taken_to_be_of_both_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paths, "MOST_TABLES", 1)
    assert len(architecture.parts(of(mixed(1, (9,))))) == 2


def test_commands_that_show_one_format_say_that_there_are_two(tmp_path: Path) -> None:
    options = in_file(mixed(1), tmp_path)
    code, output, errors = run("dump", *options, "--html", "page.html", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith("pagetable: --html shows tables of one format, and these have POWER")
