"""Entries of arm64 as a kernel prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.inspect.arm64.entries import Tables, cpu_of, registers_of, snapshot
from harness.inspect.snapshot import QuestionError, SourceError
from tests.cli.commands import run

TCR = "0x580100010"
KERNEL = "ffff800080210123"
PRINTED = "pgd=1000000042a53003, p4d=1000000042a53003, pud=1000000042a54003, pmd=1000000042a55003"


def test_the_entries_of_an_oops_are_walked(tmp_path: Path) -> None:
    """Four levels have one entry for pgd and p4d."""
    said = f"{PRINTED}, pte=0"
    code, out, _ = run("walk", KERNEL, "--entries", said, "--tcr", TCR, cwd=tmp_path)
    assert code == 0
    assert "TTBR1_EL1 not given" in out
    assert "no translation at level 3: the descriptor is invalid" in out
    assert "table at 0x42a53000" in out and "0x42a55080" in out
    assert "not known" in out and "(withholds user-execute)" in out


def test_what_is_not_given_is_said(tmp_path: Path) -> None:
    entries = ("--entries", "pte=0020000043003fc3", "--tcr", TCR)
    asked = ("0x400123", *entries, "--ttbr0", "0x42000000")
    code, out, _ = run("fault", *asked, "--access", "write", "--user", cwd=tmp_path)
    assert code == 0
    assert "L0 and L1 and L2 lead here and withhold nothing (not given)" in out
    assert "clears AP[2]: opens this 4K page to writes" in out


@pytest.mark.parametrize(
    ("entries", "address", "sentence"),
    [
        ("pgd=1003 p4d=2003", KERNEL, "two entries are given for level 0, 0x1003 and 0x2003"),
        ("pge=1003", KERNEL, "has no level 'pge'"),
    ],
)
def test_entries_that_fit_no_walk_are_refused(
    entries: str, address: str, sentence: str, tmp_path: Path
) -> None:
    code, out, err = run("walk", address, "--entries", entries, "--tcr", TCR, cwd=tmp_path)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize("high", [False, True])
@pytest.mark.parametrize(
    ("granule", "width"),
    [("4K", 39), ("4K", 48), ("4K", 52), ("16K", 47), ("64K", 42), ("64K", 52)],
)
def test_a_processor_has_the_printed_half_alone(granule: str, width: int, high: bool) -> None:
    cpu = cpu_of(Tables(granule, width, high, 0x9_0000))
    half, other = (cpu.high, cpu.low) if high else (cpu.low, cpu.high)
    assert other is None and half is not None
    assert (half.granule, half.address_bits, half.root) == (granule, width, 0x9_0000)
    assert cpu.tcr >> 32 & 7 == (6 if width == 52 else 5)  # IPS: 52 bits, or 48
    assert cpu.tcr >> 59 & 1 == (width == 52 and granule != "64K")  # DS
    told = registers_of(Tables(granule, width, high, 0x9_0000))
    assert told == {"tcr": cpu.tcr, "ttbr1" if high else "ttbr0": 0x9_0000}
    unknown = Tables(granule, width, high, None)
    assert registers_of(unknown) == {"tcr": cpu.tcr} and cpu_of(unknown).roots


def test_tables_that_no_one_names_are_made_up_and_said_to_be() -> None:
    """Where none of the entries that are given leads, each at an address of its own."""
    registers = {"tcr": int(TCR, 16), "ttbr0": 0x7000}
    pairs = (("pmd", 0x9003), ("pte", 0x20000043003FC3))
    for known, count in ((registers, 2), ({"tcr": registers["tcr"]}, 3)):
        given = snapshot("made", pairs, 0x400123, known).given
        assert given is not None and given.levels == {0, 1}
        assert len(given.unplaced) == count and not {0x9000, 0x7000} & given.unplaced


def test_tables_of_two_levels_and_of_one_have_places_too() -> None:
    for width, count in ((42, 2), (29, 1)):
        printed = Tables("64K", width, False, None)
        given = snapshot("made", (("pte", 0x20000043000FC3),), 0x123, {}, printed).given
        assert given is not None and len(given.unplaced) == count


@pytest.mark.parametrize("tables", [Tables("8K", 48, False, 0), Tables("4K", 60, False, 0)])
def test_tables_that_none_can_be_are_refused(tables: Tables) -> None:
    with pytest.raises(QuestionError, match="no processor has such tables: "):
        cpu_of(tables)


def test_tcr_that_is_given_counts_in_place_of_what_is_printed() -> None:
    """The root that is printed, and the half, are then not those of a report."""
    printed, pairs = Tables("4K", 39, True, 0x9000), (("pte", 0x20000043003FC3),)
    usual = snapshot("made", pairs, 0x400123, {}, printed)
    assert (usual.cpu.ttbr1, usual.cpu.low) == (0x9000, None)
    given = snapshot("made", pairs, 0x400123, {"tcr": int(TCR, 16)}, printed)
    assert given.cpu.tcr & 63 == 16 and given.cpu.low is not None
    assert 0x9000 not in (given.cpu.ttbr0, given.cpu.ttbr1)
    one = snapshot("made", pairs, 0x400123, {"tcr": int(TCR, 16), "ttbr0": 0x7000})
    assert one.cpu.ttbr0 == 0x7000
    with pytest.raises(SourceError, match="nothing says how addresses are translated: add --tcr"):
        snapshot("made", pairs, 0x400123, {})
