"""Entries of arm64 as a kernel prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
