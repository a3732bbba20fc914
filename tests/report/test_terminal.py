"""What a terminal shows."""

from __future__ import annotations

import pytest
from rich.table import Table

from harness.report.terminal import print_all


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_no_terminal_is_so_narrow_that_numbers_are_cut(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    table = Table("layout", "levels", "compared", "disagree", "not comparable", "seconds")
    table.add_row("smallest", "4", "1,575,682", "1,234", "65,345", "12.3")
    print_all(table, (), "All agree.")
    shown = capsys.readouterr().out
    for word in ("smallest", "1,575,682", "1,234", "65,345", "12.3", "comparable"):
        assert word in shown
