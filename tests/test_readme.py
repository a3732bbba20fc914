"""What every README shows is what happens: each example is executed and compared.

A block of a document is one of these, and nothing else:

- a session, of lines `$ command`, each with what is printed then. A line `...` stands for any
  lines, and `...` in a line for any part of it. A command that ends with `&` runs on until the
  session ends.
- a program in Python, and in the block that follows what it prints
- tests for pytest, which pass
- a file, named by the sentence before it, "This is `NAME`:"; it is there for what follows
- commands (`sh`) that succeed
- a tree of directories, which exist
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.check.x86 import quirks, verdicts
from harness.inspect.sources import layout
from harness.paging.address import Virtual
from harness.report.explorer import Explorer
from images.linux.build import NoKernel, build, build_arm64, build_riscv
from tests.cli.commands import ROOT, run
from tests.flushes import guests
from tests.machine.arm64 import present as arm64
from tests.machine.riscv.present import why_absent

pytest_plugins = ["pytester"]

DOCUMENTS = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
]

FENCED = re.compile(
    r"^```(\w*)\n(.*?)^```$(?:\n\n^```\n((?!\$ ).*?)^```$)?", re.DOTALL | re.MULTILINE
)
NAMED = re.compile(r"\b(?:is|as) `([\w./-]+)`[^`]*:\Z")
UNKNOWN = re.compile(r"If the quirk `([\w-]+)` were not known")
PICTURE = re.compile(r"^!\[.*\]\((.*)\)\n\n\*Drawn by `(.*)`\.\*$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")

NOT_RUN = {
    "sudo apt install qemu-system-x86 gcc make": "changes the machine; test_ci.py runs .ci/setup",
    "pip install .": "changes this environment; test_distribution.py installs the wheel",
    "make validate": "test_validate_command.py validates layouts",
    "make test": "is what runs this",
    "pagetable matrix": "takes minutes; test_matrix.py executes parts of it",
    "pagetable matrix --preset full": "takes minutes",
}
"""Commands that are not executed here, and why."""

ON_MACHINE = ("validate", "matrix", "rules", "check", "replay", "prove", "flushes")
"""Commands of `pagetable` that start a guest."""

MEASURED = {
    r"QEMU\\ \d+\\\.\d+\\\.\d+": r"QEMU \d+\.\d+\.\d+",
    r"(?:\\ )+\d+\\\.\d+$": r" +\d+\.\d+",
}
"""What differs each time, as it is in an escaped line: the version of the QEMU, and seconds."""

OF_THE_BOOT = r"\b(?!0\b)(?:0x)?[0-9a-f,]*\d[0-9a-f,]*"
"""What Linux decides anew when it boots: each number but 0."""


@dataclass(frozen=True)
class Block:
    """One block of a document, with what is around it."""

    document: Path
    line: int
    language: str
    text: str
    before: str  # the paragraph that leads to it
    shown: str | None  # the block that follows, where that is what this one prints
    files: tuple[tuple[str, str], ...]  # what the document has named until then, and itself

    @property
    def name(self) -> str | None:
        """Of the file that it is."""
        named = NAMED.search(self.before)
        return named.group(1) if named else None

    @property
    def kind(self) -> str:
        if self.language == "sh":
            return "commands"
        if self.text.startswith("$ "):
            return "session"
        if self.language == "python" and "def test_" in self.text:
            return "file" if self.name else "tests"
        if self.name:
            return "file"
        if self.language == "python":
            return "program"
        return "tree" if re.match(r"\S+/ +\w", self.text) else "unknown"

    def commands(self) -> list[tuple[str, str]]:
        """The commands of a session, each with what is shown for it."""
        return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", self.text, re.MULTILINE)

    def write_files(self, folder: Path) -> None:
        """Puts there what the document has named so far."""
        (folder / "build").mkdir()
        for name, text in self.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


def blocks(document: Path) -> Iterator[Block]:
    """All blocks of a document, in order."""
    text = document.read_text()
    files: list[tuple[str, str]] = []
    for match in FENCED.finditer(text):
        before = " ".join(text[: match.start()].rstrip().rpartition("\n\n")[2].split())
        line = text.count("\n", 0, match.start()) + 1
        block = Block(document, line, match[1], match[2], before, match[3], ())
        if block.name:
            files.append((block.name, block.text))
        yield Block(document, line, match[1], match[2], before, match[3], tuple(files))


BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]


def of_kind(kind: str) -> list[object]:
    """The blocks of a kind, each a case that is named by its place."""
    return [
        pytest.param(
            block,
            id=f"{block.document.relative_to(ROOT)}:{block.line}",
            marks=[pytest.mark.hw] if needs_guest(block) else [],
        )
        for block in BLOCKS
        if block.kind == kind
    ]


def needs_guest(block: Block) -> bool:
    """Whether a block runs something on the machine."""
    machine = "|".join(ON_MACHINE)
    asks = rf"^(\$ )?(pagetable ({machine})\b|pytest|python -m images)"
    return block.kind == "tests" or re.search(asks, block.text, re.MULTILINE) is not None


def pattern(shown: str, masks: dict[str, str]) -> str:
    """The expression of the lines that are printed where these are shown."""
    lines = []
    for line in shown.splitlines():
        escaped = re.escape(line)
        for what, mask in masks.items():
            escaped = re.sub(what, mask.replace("\\", r"\\"), escaped)
        lines.append("^" + escaped.replace(re.escape("..."), ".*") + "\n")
    return "".join(lines)


def compare(shown: str, printed: str, masks: dict[str, str]) -> None:
    """Fails unless this is what is shown, but for spaces at the ends of lines."""
    printed = re.sub(r" +$", "", printed, flags=re.MULTILINE).strip("\n") + "\n"
    *pieces, last = re.split(r"^ *\.\.\.\n", shown, flags=re.MULTILINE)
    at = 0
    for number, piece in enumerate([*pieces, last]):
        begin = "" if number else r"\A"
        end = r"\Z" if number == len(pieces) and piece else ""
        found = re.compile(begin + pattern(piece, masks) + end, re.MULTILINE).search(printed, at)
        assert found, f"after {at} characters there is not\n{piece}\nin\n{printed}"
        at = found.end()
    assert pieces or at == len(printed), printed


def environment() -> dict[str, str]:
    """In which `pagetable`, `pytest` and the modules of this clone are found."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}


def output_of(command: str, cwd: Path) -> str:
    """What a command prints, and then what it says on stderr."""
    program, *arguments = shlex.split(command)
    if program == "pagetable" and arguments[0] == "explore":
        return screen_of_explorer(arguments)
    if program == "pagetable":
        _, printed, errors = run(*arguments, cwd=cwd)
        return printed + errors
    if program == "pytest":
        arguments = ["-p", "no:cacheprovider", *arguments]
    ended = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return ended.stdout


def screen_of_explorer(arguments: list[str]) -> str:
    """What is on the screen of `pagetable explore ADDRESS --layout NAME`."""
    _, address, option, name = arguments
    assert option == "--layout"
    app = Explorer(layout.snapshot(name, None, {}), Virtual(int(address, 0)))

    async def picture() -> str:
        async with asyncio.timeout(60), app.run_test(size=(140, 16)) as pilot:
            while "0x0000000041001005:" not in (drawn := app.export_screenshot()):
                await pilot.pause()
            return drawn

    lines: dict[float, dict[int, str]] = {}
    text = r'<text class="terminal-[^"]*-r\d+" x="([\d.]+)" y="([\d.]+)".*?>(.*?)</text>'
    for x, y, part in re.findall(text, asyncio.run(picture())):
        lines.setdefault(float(y), {})[round(float(x) / 12.2)] = html.unescape(part)
    shown = []
    for _, parts in sorted(lines.items()):
        line = ""
        for column, part in sorted(parts.items()):
            line = line.ljust(column) + part
        shown.append(re.sub(r"[▁-█]", " ", line.replace("\xa0", " ")))  # without scroll bars
    return "\n".join(shown)


@contextlib.contextmanager
def in_background(command: str, shown: str, cwd: Path) -> Iterator[str]:
    """A command that runs on, once it has printed the last line that is shown; what it printed."""
    try:
        arch = re.search(r"--arch (\w+)", command)
        {"riscv": build_riscv, "arm64": build_arm64}.get(arch[1] if arch else "", build)()
    except NoKernel as reason:
        pytest.skip(f"there is no Linux to boot: {reason}")
    last = shown.splitlines()[-1]
    with subprocess.Popen(
        shlex.split(command), cwd=cwd, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            printed = ""
            for line in process.stdout:
                printed += line
                if line.rstrip("\n") == last:
                    break
            yield printed
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_broken_into_lines_that_fit_a_screen(document: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert not [line for line in text.splitlines() if len(line) > 120 and line[0] != "|"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_is_of_a_kind_that_is_executed(document: Path) -> None:
    of_no_kind = [
        block.text for block in BLOCKS if block.document == document and block.kind == "unknown"
    ]
    assert of_no_kind == []
    assert document.read_text().count("\n```") == 2 * sum(
        1 + (block.shown is not None) for block in BLOCKS if block.document == document
    )


@pytest.mark.parametrize("block", of_kind("session"))
def test_a_session_prints_what_is_shown(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block.write_files(tmp_path)
    of_riscv = "arch riscv" in block.text or "prove --layout riscv/" in block.text
    if of_riscv and (reason := why_absent(64)):
        pytest.skip(reason)
    if "arch arm64" in block.text and (reason := arm64.why_absent()):
        pytest.skip(reason)
    if "kernel.elf" in block.text:
        shutil.copy(guests.guest(4), tmp_path / "kernel.elf")
    if unknown := UNKNOWN.search(block.before):
        others = tuple(one for one in quirks.FAULT_QUIRKS if one.name != unknown[1])
        assert len(others) == len(quirks.FAULT_QUIRKS) - 1
        for module in (quirks, verdicts):
            monkeypatch.setattr(module, "FAULT_QUIRKS", others)
    with contextlib.ExitStack() as running:
        masks = MEASURED
        for command, shown in block.commands():
            if command.endswith(" &"):
                masks = {**MEASURED, OF_THE_BOOT: OF_THE_BOOT, r"(\\ )+": " +"}
                background = in_background(command.removesuffix(" &"), shown, tmp_path)
                compare(shown, running.enter_context(background), masks)
            else:
                compare(shown, output_of(command, tmp_path), masks)


@pytest.mark.parametrize("block", of_kind("program"))
def test_a_program_prints_what_is_shown(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", environment()["PATH"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, str(block.document), "exec"), {})
    assert printed.getvalue() == (block.shown or "")


@pytest.mark.parametrize("block", of_kind("tests"))
def test_tests_pass_at_each_number_of_levels(block: Block, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_example=block.text)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--pagetable-engine=tcg")
    result.assert_outcomes(passed=2 * block.text.count("def test_"))


def commands() -> list[tuple[Block, str]]:
    """Each line of the blocks of commands, without its comment."""
    lines = [
        (block, line.partition("#")[0].strip())
        for block in BLOCKS
        if block.kind == "commands"
        for line in block.text.splitlines()
    ]
    return [(block, line) for block, line in lines if line]


@pytest.mark.parametrize(
    ("block", "command"),
    [
        pytest.param(
            block, command, id=command, marks=[pytest.mark.hw] if needs_guest(block) else []
        )
        for block, command in commands()
        if command not in NOT_RUN
    ],
)
def test_a_command_succeeds(block: Block, command: str, tmp_path: Path) -> None:
    block.write_files(tmp_path)
    program, *arguments = shlex.split(command)
    assert program == "pagetable"
    code, printed, errors = run(*arguments, cwd=tmp_path)
    assert (code, errors) == (0, ""), printed


def test_a_command_that_is_not_run_is_there_to_be_read() -> None:
    assert set(NOT_RUN) <= {command for _, command in commands()}


def test_every_layout_that_comes_along_is_listed_with_its_title() -> None:
    text = (ROOT / "images" / "README.md").read_text()
    for file in (ROOT / "images").glob("*.toml"):
        title = tomllib.loads(file.read_text())["title"]
        assert f"| `{file.stem}` | {title} |" in text


@pytest.mark.parametrize("block", of_kind("tree"))
def test_a_tree_names_what_there_is(block: Block) -> None:
    for line in block.text.splitlines():
        assert (ROOT / line.split()[0]).is_dir(), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_picture_is_what_the_command_draws_now(document: Path, tmp_path: Path) -> None:
    for picture, command in PICTURE.findall(document.read_text()):
        program, *arguments, file = shlex.split(command)
        assert program == "pagetable"
        run(*arguments, file, cwd=tmp_path)
        assert (document.parent / picture).read_text() == (tmp_path / file).read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_its_section(document: Path) -> None:
    for path, section in LINK.findall(document.read_text()):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), path
        if section:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert section in anchors


def test_a_space_is_built_forked_and_torn_down_in_twenty_lines() -> None:
    [code] = [
        block.text
        for block in BLOCKS
        if block.kind == "program" and "copy_range" in block.text and "tear_down" in block.text
    ]
    assert len(code.splitlines()) <= 20


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("one\nthree\n", "one\ntwo\nthree\n"),
        ("one\n...\nthree\n", "one\ntwo\n"),
        ("one\n...\ntwo\n", "one\ntwo\nthree\n"),
        ("two\n...\n", "one\ntwo\nthree\n"),
        ("two\n...\none\n", "two\none two\n"),
        ("", "one\n"),
        ("4-11\n", "4.11\n"),
        ("... compared, 0 disagree\n", "9 compared, 1 disagree\n"),
        ("frame 0x1a2b\n", "frame none\n"),
    ],
)
def test_what_is_not_shown_is_found(shown: str, printed: str) -> None:
    with pytest.raises(AssertionError):
        compare(shown, printed, {**MEASURED, OF_THE_BOOT: OF_THE_BOOT})
