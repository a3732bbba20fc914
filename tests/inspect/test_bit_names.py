"""A bit of an entry has one name, that of the manual, wherever it is named: where it is read bit by
bit, in lists of what is set, in conditions, in files, and in what a change does."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from harness.check import layouts
from harness.inspect import architecture, decode
from harness.inspect.expect import expectations
from harness.inspect.sources import layout
from tests.cli.commands import run

LAYOUTS = (
    *("linux-4", "linux-5", "riscv/page-sizes", "riscv/smallest", "s390/smallest"),
    *("arm64/page-sizes", "arm64/page-sizes-16k", "arm64/page-sizes-64k", "arm64/lpa2"),
    *("arm64/hardware", "arm64/hpd", "power/page-sizes", "power/page-sizes-64k"),
)


@pytest.mark.parametrize("name", LAYOUTS)
def test_formats_and_readings_have_the_same_names(name: str) -> None:
    cpu = layout.snapshot(name, None, {}).cpu
    wrong, compared = set(), 0
    for part in architecture.of(cpu).parts(cpu):
        for number, level in enumerate(part.format.levels):
            for shape in level.shapes:
                for called, mask in shape.bits.items():
                    raw = shape.when.value | mask
                    for reserved in shape.reserved:
                        raw = raw & ~reserved.mask | reserved.value
                    reading = decode.read(part, raw, number)
                    names = {one.name for one in reading.parts if one.mask & mask}
                    compared += 1
                    if names != {called}:
                        wrong.add((level.name, called, *names))
    assert not wrong and compared > 8


@pytest.mark.parametrize(
    ("name", "before", "bits"),
    [
        ("arm64/smallest", ["CONT", "AP2"], ["Contiguous", "AP[2]"]),
        ("power/smallest", ["READ", "X"], ["EAA1", "EAA3"]),
    ],
)
def test_files_with_names_that_bits_had_before_are_read(
    name: str, before: list[str], bits: list[str]
) -> None:
    arch = name.partition("/")[0]
    (read,) = expectations({0: {"bits": before}}, arch=arch).expects
    assert read.bits == tuple(bits)
    text = f"title = 'old'\nlevels = [4]\narch = '{arch}'\n"
    text += f"[[map]]\nvirtual = 0\nsize = '4K'\nbits = {before}\n"
    assert layouts.parse(text, "old.toml").maps[0].bits == tuple(bits)


def test_words_of_commands_name_bits_as_the_manual_does(tmp_path: Path) -> None:
    """The walk, the picture of it, the list of what is mapped, and what a change does."""
    asked = {
        "arm64/rights": ("0x401000", "AP[1]", "AP[2]"),
        "power/rights": ("0x401000", "EAA0", "EAA2"),
    }
    for name, (address, *bits) in asked.items():
        source = ("--layout", name)
        texts = [
            run("walk", address, *source, "--svg", "walk.svg", "--html", "walk.html", cwd=tmp_path),
            run("fault", address, *source, "--access", "write", "--user", cwd=tmp_path),
        ]
        said = "".join(out for _, out, _ in texts)
        said += "".join((tmp_path / one).read_text() for one in ("walk.svg", "walk.html"))
        assert any(bit in said for bit in bits), said
        assert not re.search(r"\b(AP[12]|APTable[01]|CONT|PRIV|RW)\b", said)


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [
        ("smallest", "0x400000", {"P present", "U user"}),
        ("riscv/smallest", "0x400000", {"R readable", "W writable"}),
        ("power/smallest", "0x400000", {"R referenced", "EAA1 readable"}),
        ("arm64/smallest", "0x400000", {"AP[1] EL0 too"}),
        ("s390/rights", "0x500000", {"P no stores"}),
    ],
)
def test_the_legend_of_a_picture_has_what_a_name_means_on_its_architecture(
    name: str, address: str, said: set[str], tmp_path: Path
) -> None:
    run("walk", address, "--layout", name, "--svg", "walk.svg", cwd=tmp_path)
    told = html.unescape((tmp_path / "walk.svg").read_text())
    legend = {one.strip() for one in re.split(r"[\u00b7<>\n]", told)}
    assert said <= legend
    assert name == "smallest" or "P present" not in legend


def test_a_condition_with_a_name_from_before_is_refused_with_todays(tmp_path: Path) -> None:
    def refused(name: str, source: str) -> str:
        code, out, errors = run("dump", "--layout", source, "--where", name, cwd=tmp_path)
        assert (code, out) == (2, "")
        return errors

    assert "'CONT' is now called Contiguous; write" in refused("w and CONT", "arm64/smallest")
    for name, source in (
        ("AP2", "arm64/smallest"),
        ("CONT", "linux-4"),
        ("READ", "power/smallest"),
    ):
        assert f"there is no axis '{name}', " in refused(name, source)
