"""Known departures of QEMU's TCG from POWER's rules, each with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache, cached_property
from typing import Final

from harness.check.quirk import Quirk, Version, expected_of, not_yet_run
from harness.paging.format import Field, Format, Pattern, Shape, bits
from harness.paging.power.cpu import Cpu

RUNS: Final[tuple[Version, ...]] = ((7, 2, 22), (10, 0, 13), (11, 1, 3))
"""The versions of QEMU on which all layouts and the matrix of POWER were run."""

ROOT_LEAF: Final = Quirk(
    name="tcg-power-root-leaf",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="pages have 4K, 64K, 2M or 1G: an entry of the root that is a leaf is an unsupported"
    " configuration (POWER9 User's Manual, \"Supported Radix Tree Configurations and Resulting Page"
    ' Sizes")',
    departs="takes it for a page of 512G",
    evidence="seen in all three versions. ppc_radix64_is_valid_level() in target/ppc/mmu-radix64.c,"
    " of 7.1 on (commit 47e83d9107), names that section and checks the sizes of tables alone",
)

KEPT_CODE: Final = Quirk(
    name="tcg-power-tlbie-keeps-code-of-large-page",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="tlbie of any address in a page drops all that is cached for that page (tlbie)",
    departs="code that was executed at other addresses of a large page is executed again, whatever"
    " the entries say now",
    evidence="seen by executing it; data of the same page is dropped. The same as on arm64",
)

KNOWN: Final[Mapping[str, Quirk]] = {one.name: one for one in (ROOT_LEAF, KEPT_CODE)}
"""All of them by name."""


class _WithRootLeaves(Cpu):
    """A processor that has pages of 512G."""

    @cached_property
    def format(self) -> Format:
        return _with_root_leaves(super().format)

    @cached_property
    def other_format(self) -> Format:
        return _with_root_leaves(super().other_format)


def departing(cpu: Cpu, engine: str, version: Version) -> Cpu | None:
    """The processor as an engine departs from it; None where it is not expected to."""
    if not expected_of(ROOT_LEAF, engine, version):
        return None
    return _WithRootLeaves(**{one.name: getattr(cpu, one.name) for one in fields(cpu)})


@cache
def _with_root_leaves(format: Format) -> Format:
    below, root = format.levels[-2:]
    leaf, pointer = below.leaf, root.pointer
    assert leaf is not None and pointer is not None
    page = replace(leaf, address=(Field(leaf.address_mask & ~bits(root.shift - 1, 0)),))
    directory: Shape = replace(
        pointer,
        when=Pattern(leaf.when.mask, pointer.when.value),
        reserved=tuple(part for part in pointer.reserved if not part.mask & leaf.when.mask),
    )
    level = replace(root, shapes=(directory, page))
    return replace(format, name=f"{format.name}, 512G", levels=(*format.levels[:-1], level))


def not_run_on(version: Version) -> tuple[str, ...]:
    """That TCG was not yet run in this version, in a sentence; none where it was."""
    return not_yet_run({"tcg": (version, RUNS)})
