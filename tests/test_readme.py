"""What the README shows is what happens."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sysconfig
from pathlib import Path

import pytest

from tests.cli.commands import run

pytest_plugins = ["pytester"]

README = Path(__file__).parent.with_name("README.md").read_text()
BLOCKS = re.findall(
    r"^```python\n(.*?)^```\n+(?:^```\n(.*?)^```$)?", README, re.DOTALL | re.MULTILINE
)
PROGRAMS = [(code, shown) for code, shown in BLOCKS if "def test_" not in code]
COMMANDS = re.findall(
    r"^\$ pagetable ((?:decode|walk|fault|dump|find|lint|diff) .*)\n((?:(?!\$ |```).*\n)*)",
    README,
    re.MULTILINE,
)
TESTS = [code for code, _ in BLOCKS if "def test_" in code]


@pytest.mark.parametrize(("code", "shown"), PROGRAMS)
def test_a_program_prints_what_is_shown(
    code: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", installed, prepend=os.pathsep)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == shown


@pytest.mark.parametrize(("command", "shown"), COMMANDS)
def test_a_command_prints_what_is_shown(command: str, shown: str, tmp_path: Path) -> None:
    _, printed, errors = run(*shlex.split(command), cwd=tmp_path)
    parts = [re.escape(part) for part in shown.split("...\n")]
    assert re.fullmatch(r"(.+\n)?".join(parts), printed, re.DOTALL), printed
    assert errors == ""


def test_a_space_is_built_forked_and_torn_down_in_twenty_lines() -> None:
    [code] = [code for code, _ in PROGRAMS if "copy_range" in code and "tear_down" in code]
    assert len(code.splitlines()) <= 20


@pytest.mark.hw
def test_the_tests_for_other_projects_pass(pytester: pytest.Pytester) -> None:
    for number, code in enumerate(TESTS):
        pytester.makepyfile(**{f"test_{number}": code})
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--pagetable-engine=tcg")
    result.assert_outcomes(passed=2 * len(TESTS))
