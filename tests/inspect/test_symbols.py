"""Names of code addresses, from a list or from an ELF file."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.inspect.symbols import symbols
from harness.machine.errors import Misuse
from harness.machine.plugin import built_plugin
from harness.machine.x86.stub import BUILD

LIST = """\
ffffffff81000000 T _text
ffffffff81001000 t zap_pte_range
ffffffff81002000 T change_protection
ffffffff82000000 D some_data
ffffffffc0000000 t of_a_module\t[module]
not a line
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "System.map"
    path.write_text(LIST)
    return path


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0xFFFFFFFF81001000, "zap_pte_range"),
        (0xFFFFFFFF81001FFF, "zap_pte_range+0xfff"),
        (0xFFFFFFFF81002001, "change_protection+0x1"),
        (0xFFFFFFFFC0000010, "of_a_module+0x10"),
        (0xFFFFFFFF80FFFFFF, None),
        (0xFFFFFFFF820FFFFF, None),  # data has no code
        (0xFFFFFFFF81101FFF, "change_protection+0xfffff"),
        (0xFFFFFFFF81102000, None),
    ],
)
def test_an_address_has_the_name_of_its_function(
    listed: Path, address: int, name: str | None
) -> None:
    assert symbols(listed).name(address) == name


def test_an_elf_file_says_where_functions_end() -> None:
    found = symbols(BUILD.path)
    (begin, size, name), *_ = (one for one in found if one[1])
    assert found.name(begin) == name
    assert found.name(begin + size - 1) == f"{name}+{size - 1:#x}"
    assert (found.name(begin + size) or "").partition("+")[0] != name


def test_what_an_elf_file_takes_from_others_has_no_address_there() -> None:
    assert [name for begin, _, name in symbols(built_plugin("x86")) if not begin] == []


def test_what_kallsyms_hides_is_no_symbol(tmp_path: Path) -> None:
    hidden = tmp_path / "kallsyms"
    hidden.write_text("0000000000000000 T _text\n")
    with pytest.raises(Misuse, match="shows to root"):
        symbols(hidden)


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"none cannot be read: No such file or directory$"):
        symbols(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"\x7fELF\x02\x01\x01")
    with pytest.raises(Misuse, match="short is no ELF file that can be read: "):
        symbols(tmp_path / "short")
