"""What `--help` shows of the command and of each of its commands."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from harness.cli import GROUPS, application
from harness.cli.help import OUTPUT, REGISTERS, TABLES, first_sentence
from harness.cli.source import KINDS, Source
from tests.cli.commands import run

COMMANDS = {
    command.callback.__name__: command.callback
    for command in application().registered_commands
    if command.callback is not None
}

# A sentence of help may end with a list that goes on; nothing else ends so.
CUT = re.compile(r"\.\.\.$", re.MULTILINE)


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def shown(folder: Path, *command: str) -> str:
    code, printed, errors = run(*command, "--help", cwd=folder)
    assert (code, errors) == (0, "")
    return printed


def groups(text: str) -> dict[str, str]:
    """What stands under each heading."""
    parts = re.split(r"^(\w[^:\n]*):\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_command_has_a_whole_sentence_that_takes_two_lines_at_most(tmp_path: Path) -> None:
    words = " ".join(shown(tmp_path).split())
    for name, command in COMMANDS.items():
        sentence = first_sentence(command.__doc__ or "")
        assert f" {name} {sentence}" in words
        assert len(sentence) <= 2 * (80 - 12)


def test_commands_are_in_groups(tmp_path: Path) -> None:
    parts = groups(shown(tmp_path))
    for group, members in GROUPS.items():
        lines = parts[group or "Commands"].partition("\n\n")[0]
        listed = re.findall(r"^  (\w+)", lines, re.MULTILINE)
        assert listed == list(members)
    assert sum(map(len, GROUPS.values())) == len(COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_eighty_columns_are_enough_and_nothing_is_cut(tmp_path: Path, command: str) -> None:
    text = shown(tmp_path, *command.split())
    assert max(map(len, text.splitlines())) <= 80
    usage, _, rest = text.partition("\n\n")
    assert usage.startswith("Usage: ")
    assert not CUT.search(rest)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("fault 1 --access wirte", "'wirte' is not one of 'read', .* Did you mean 'write'?"),
        ("dump --layuot linux-4", "No such option: --layuot (Possible options: *--layout*)."),
        ("dump --layout smalest", "no layout is called 'smalest': did you mean smallest*?"),
        ("dump --layout x.y", "no layout is called 'x.y': choose one of aliases, dense, *"),
        ("lint --layout linux-4 --ignore write-exeute", "*: did you mean write-execute?"),
        ("schema wlak", "'wlak' prints no JSON: did you mean walk?"),
        ("wlak 1", "No such command 'wlak'. Did you mean 'walk'?"),
        ("decode", "Missing argument 'VALUE'."),
        ("decode 1 --mode", "Option '--mode' requires an argument."),
        ("decode 1 --maxphyaddr x", "Invalid value for '--maxphyaddr': 'x' is not a valid *."),
        ("--nope", "No such option: --nope"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_what_may_have_been_meant(
    tmp_path: Path, line: str, sentence: str
) -> None:
    code, out, errors = run(*line.split(), cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    pattern = re.escape(sentence).replace(r"\.\*", ".*").replace(r"\*", ".*")
    assert re.match(f"pagetable: .*{pattern}", errors)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_under_the_heading_of_what_they_are_about(tmp_path: Path, command: str) -> None:
    found = {
        option: group
        for group, lines in groups(shown(tmp_path, command)).items()
        for option in re.findall(r"^  (--[\w-]+)", lines, re.MULTILINE)
    }
    assert found["--help"] == "Options"
    for group, options in {
        TABLES: ("--layout", "--case", "--qmp", "--core", "--ram", "--vcpu", "--live", "--entries"),
        REGISTERS: ("--cr0", "--cr3", "--cr4", "--efer", "--page1gb", "--pkru", "--ac"),
        OUTPUT: ("--json", "--html", "--svg", "--csv", "--report"),
    }.items():
        own = command == "check" and group == TABLES  # of which it takes a running guest alone
        for option in found.keys() & set(options):
            assert found[option] == ("Options" if own else group)
    if command == "walk":
        assert set(found.values()) == {"Options", TABLES, REGISTERS, OUTPUT}


def test_every_option_that_names_a_source_has_its_row_in_the_readme() -> None:
    text = Path("harness/inspect/README.md").read_text()
    table = text.split("## Whose tables")[1].split("\n\n")[1]
    rows = set(re.findall(r"--[a-z][a-z0-9-]+", table)) - {"--memory-only"}  # virsh's
    options = {f"--{field.name.replace('_', '-')}" for field in fields(Source)}
    assert {f"--{kind}" for kind in KINDS} | {"--entries", "--held"} <= rows
    assert rows - {"--entries"} <= options
    section = text.split("## Whose tables")[1]
    told = set(re.findall(r"--[a-z][a-z0-9-]+", section))
    assert options - {"--page1gb"} <= told and "--no-page1gb" in told


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("dump", "no source is named: choose one of --layout, --case, --qmp, --gdb, --core, --ram"),
        ("walk 0", "no source is named: choose one of * --ram, --entries"),
        ("fault 0", "no source is named: choose one of * --ram, --entries"),
        ("lint --satp 1", "--satp says nothing without the memory that holds the tables: choose *"),
        ("find 0 --ttbr0 1 --tcr 2", "--ttbr0 and --tcr say nothing without the memory that *"),
        ("walk 0 --asce 1", "--asce says nothing without the memory * --ram, --entries"),
        ("explore --ptcr 1", "--ptcr says nothing without the memory that holds the tables: *"),
        ("prove --no-page1gb", "--no-page1gb says nothing without the memory that holds *"),
        ("lint --page1gb", "--page1gb says nothing without the memory that holds *"),
        ("dump --c-bit 47", "--c-bit says nothing without the memory that holds *"),
        ("dump --shared-bit 47 --cr3 1", "--cr3 and --shared-bit say nothing without *"),
        ("dump --layout riscv/smallest --no-page1gb", "RISC-V, where --no-page1gb means nothing"),
        ("dump --layout riscv/smallest --c-bit 47", "RISC-V, where --c-bit means nothing"),
        ("fault 0 --layout s390/smallest --no-ac", "s390, where --no-ac means nothing"),
        ("dump --layout q.z", "'q.z': choose * sparse, * riscv/* arm64/* s390/* power/sparse"),
        ("dump --layout lpa2", "no layout is called 'lpa2': did you mean arm64/lpa2?"),
        ("dump --layout power/linux-4", "no layout is called 'power/linux-4': *power/*"),
        ("dump --layout s390/q.z", "'s390/q.z': choose * s390/aliases, s390/* s390/without-iep"),
    ],
)
def test_where_a_source_is_missing_the_sentence_has_all_that_could_be_one(
    tmp_path: Path, line: str, sentence: str
) -> None:
    code, out, errors = run(*line.split(), cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    pattern = re.escape(sentence).replace(r"\*", ".*")
    assert re.fullmatch(f"pagetable: .*{pattern}\n", errors)
