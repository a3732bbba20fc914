"""The commands that look at tables, on those of RISC-V, as people run them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from harness.check import layouts
from harness.check.layouts import described
from harness.inspect import architecture
from harness.inspect.sources import layout as source
from harness.paging.memory import BufferMemory
from tests.cli.commands import run

MODES = {2: "Sv32", 3: "Sv39", 4: "Sv48", 5: "Sv57"}
BASE = 2 << 30
LAYOUTS = [path.stem for path in layouts.shipped("riscv")]


def of(name: str, levels: int) -> tuple[object, ...]:
    return ("--layout", f"riscv/{name}", "--levels", levels)


def in_file(tmp_path: Path, name: str, levels: int) -> tuple[object, ...]:
    """The options that name the tables of a layout as a file of memory."""
    layout = layouts.load(layouts.find(name, "riscv"))
    # Of a file of 2 GiB what is not stored takes no time.
    octets = np.memmap(tmp_path / "ram", np.uint8, "w+", shape=(layout.ram,))
    memory = BufferMemory(octets, described("riscv").ram_base)
    cpu = architecture.named("riscv").build(layout, levels, memory, {})
    octets.flush()
    return ("--ram", f"ram@{BASE:#x}", "--satp", f"{cpu.satp:#x}")


@pytest.mark.parametrize("levels", MODES)
def test_a_walk_names_the_mode_every_step_and_the_page(levels: int, tmp_path: Path) -> None:
    address = "0x3fdff123"
    code, out, _ = run("walk", address, *of("page-sizes", levels), cwd=tmp_path)
    assert code == 0
    words = [line.split() for line in out.splitlines()]
    assert f"({MODES[levels]}, root at 0x82000000)" in out
    page = "0x831ff123, in a 4M page" if levels == 2 else "0x83400123, in a 4K page"
    assert f"0x3fdff123: {page}" in out
    assert [row[1] for row in words if row and row[0] == "address"] == ["PTE"]
    steps = [row for row in words if row[:2] in [[str(n), "PTE"] for n in range(levels)]]
    assert len(steps) == (1 if levels == 2 else levels)
    assert steps[-1][-4:] == ["read", "write", "execute", "user"]
    assert f"memory type PMA: {'no entry says otherwise' if levels == 2 else 'PBMT=0'}" in out


def test_what_is_wrong_with_an_address_is_said_with_its_step(tmp_path: Path) -> None:
    _, out, _ = run("walk", "0x1000", "0x4000000000", *of("smallest", 3), cwd=tmp_path)
    assert "no translation at level 1: the entry has V=0 (step 3)" in out
    assert "bits 63:38 are not all the same: bit 63 is 0, bit 38 is 1" in out
    assert "no translation: the upper bits of the address differ" in out
    code, _, err = run("walk", "0x100000000", *of("smallest", 2), cwd=tmp_path)
    assert (code, err) == (
        2,
        "pagetable: there is no address 0x100000000 on a hart of 32 bits\n",
    )


@pytest.mark.parametrize("levels", MODES)
def test_an_entry_that_is_made_as_it_is_said_lets_the_access_pass(
    levels: int, tmp_path: Path
) -> None:
    asked = ("--access", "write", "--user", *in_file(tmp_path, "smallest", levels))
    _, out, _ = run("fault", "0x405000", *asked, cwd=tmp_path)
    (made,) = re.findall(r"PTE at (\w+), now 0x0: (.* \| the address of a page.*)", out)
    entry = eval(made[1].replace("the address of a page", "0x83001000"))
    with (tmp_path / "ram").open("r+b") as file:
        file.seek(int(made[0], 0) - BASE)
        file.write(entry.to_bytes(4 if levels == 2 else 8, "little"))
    _, out, _ = run("fault", "0x405000", *asked, cwd=tmp_path)
    assert "user write at 0x405000: allowed, reaches 0x83001000" in out


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_of_memory_says_what_its_layout_says(name: str, tmp_path: Path) -> None:
    for levels in layouts.load(layouts.find(name, "riscv")).levels:
        file = in_file(tmp_path, name, levels)
        built = run("dump", *of(name, levels), "--csv", cwd=tmp_path)
        read = run("dump", *file, "--csv", cwd=tmp_path)
        assert built[0] == read[0] == 0
        assert built[1] == read[1]


def test_a_dump_has_the_pages_that_the_layout_maps(tmp_path: Path) -> None:
    """By the file of the layout, as far as it says where its pages are."""
    for name in LAYOUTS:
        layout = layouts.load(layouts.find(name, "riscv"))
        for levels in layout.levels:
            answer = json.loads(run("dump", *of(name, levels), "--json", cwd=tmp_path)[1])
            maps = [m for m in layout.maps if not m.levels or levels in m.levels]
            if layout.shares or layout.entries:
                continue
            assert answer["ends"] == sum(one.count for one in maps)
            ranges = answer["ranges"]
            for one in maps:
                wanted = set(one.rights or ("read", "write", "execute", "user"))
                [there] = (
                    r for r in ranges if int(r["first"], 16) <= one.virtual <= int(r["last"], 16)
                )
                assert set(there["rights"]) == wanted
                assert (there["kind"], there["size"]) == ("page", one.size)


def test_conditions_know_the_right_to_read(tmp_path: Path) -> None:
    asked = ("dump", *of("rights", 3), "--where")
    every = run("dump", *of("rights", 3), cwd=tmp_path)[1]
    shown = run(*asked, "x and not r", cwd=tmp_path)[1]
    assert "--x" in every and "--x" in shown and "urwx" not in shown
    assert "IA32_PAT" not in every
    code, _, err = run(*asked, "keys", cwd=tmp_path)
    assert code == 2 and "keys" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--satp", "0x80082000", "--cr3", "0x1000"), "is of x86, where --satp means nothing"),
        (("--satp", "0x0"), "paging is off: satp is 0x0, MODE Bare"),
        (("--satp", "0x1000000000000001"), "satp 0x1000000000000001 has the reserved MODE 1"),
        (("--mstatus", "0x40000"), "is of x86, where --mstatus means nothing"),
    ],
)
def test_bad_input_ends_in_a_sentence(
    options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "ram").write_bytes(bytes(4096))
    code, out, err = run("walk", "0", "--ram", "ram", *options, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in err and err.count("\n") == 1


def test_registers_of_another_architecture_are_refused_of_a_layout(tmp_path: Path) -> None:
    code, _, err = run("walk", "0", *of("smallest", 3), "--cr4", "0x20", cwd=tmp_path)
    assert code == 2 and "is of RISC-V, where --cr4 means nothing" in err
    code, _, err = run("walk", "0", "--layout", "smallest", "--satp", "1", cwd=tmp_path)
    assert code == 2 and "is of x86, where --satp means nothing" in err
    code, _, err = run("decode", "1", "--mode", "sv39", "--no-nxe", cwd=tmp_path)
    assert code == 2 and "sv39 is a mode of RISC-V, where --no-nxe means nothing" in err
    others = ("--cr4", "1", "--efer", "0")
    code, _, err = run("walk", "0x1000", *of("smallest", 3), *others, cwd=tmp_path)
    assert code == 2 and "is of RISC-V, where --cr4 and --efer mean nothing" in err
    for command in ("walk", "fault"):
        entries = ("--entries", "PTE=c7", "--satp", "0x8000000000082000", "--cr4", "1")
        code, _, err = run(command, "0x1000", *entries, cwd=tmp_path)
        assert code == 2 and "the list of entries is of x86, where --satp means nothing" in err
    code, _, err = run("dump", *of("smallest", 3), "--pat", "6", cwd=tmp_path)
    assert code == 2 and "RISC-V has no PAT" in err


def test_a_fault_that_was_seen_is_compared_with_the_tables(tmp_path: Path) -> None:
    asked = ("fault", "0x409123", *of("rights", 3))
    code, out, _ = run(*asked, "--code", 13, cwd=tmp_path)
    assert code == 0
    assert "load page fault (cause 13), stval 0x409123" in out
    assert "access    user read or supervisor read" in out
    assert "The tables as they are give this fault.\n\nsupervisor read at 0x409123" in out
    answer = json.loads(run(*asked, "--code", "0xd", "--user", "--json", cwd=tmp_path)[1])
    assert (answer["given"], answer["seen"]["cause"]) == (False, 13)
    assert [one["access"] for one in answer["outcomes"]] == ["user read"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--code", 13), "does not record scause and stval: name the ADDRESS"),
        ((), "does not record scause and stval: name the ADDRESS"),
        (("0x1000", "--code", 2), "cause 2 is no fault of translation: those are 1, 5 and 7"),
        (("--code", 13, "--cr2", "0x1"), "is of RISC-V, where --cr2 means nothing"),
        (("0x1000", "--code", 13, "--rip", "0x1"), "is of RISC-V, where --rip means nothing"),
        (("0x1000", "--ac"), "is of RISC-V, where --ac means nothing"),
    ],
)
def test_faults_of_x86_are_refused_of_a_hart(
    options: tuple[object, ...], sentence: str, tmp_path: Path
) -> None:
    code, out, err = run("fault", *of("smallest", 3), *options, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in err and err.count("\n") == 1


def test_spaces_of_two_architectures_are_not_compared(tmp_path: Path) -> None:
    code, _, err = run("diff", "layout:smallest@4", "layout:riscv/smallest@4", cwd=tmp_path)
    assert (code, err) == (
        2,
        "pagetable: the tables are of x86 and RISC-V: compare two of one architecture\n",
    )


OOPS = "app[7]: segfault at 75b800000034 ip 75b800000000 sp 7ffc0 error 4 in app[1000+2000]\n"
"""A fault that Linux reports on x86."""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--layout", "riscv/smallest", "--oops", "oops"), "the text is of x86, and layout"),
        (("--satp", "1", "--oops", "oops"), "the text in oops is of x86, where --satp means"),
        (
            ("0x1000", "--entries", "PTE=1", "--satp", "1", "--cr0", "0"),
            "the list of entries is of x86, where --satp means nothing",
        ),
        (("0x1000", "--case", "of-riscv"), "of-riscv holds no case: "),
    ],
)
def test_what_is_of_x86_is_not_asked_of_riscv(
    options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "oops").write_text(OOPS)
    (tmp_path / "of-riscv").write_text('{"arch": "riscv"}')
    code, out, err = run("fault", *options, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in err and err.count("\n") == 1


def test_a_root_where_nothing_is_raises_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(8192))
    out = run("walk", "0", "--ram", f"ram@{BASE:#x}", "--satp", "0x8000000000080000", cwd=tmp_path)
    assert "though no entry of the root's table is valid" in out[1]
    out = run("walk", "0", "--ram", f"ram@{BASE:#x}", "--satp", "0x8000000000090000", cwd=tmp_path)
    assert "though there is no memory where the root's table would be" in out[1]


def test_lint_of_a_root_in_doubt_has_no_word_of_x86(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(8192))
    out = run("lint", "--ram", f"ram@{BASE:#x}", "--satp", "0x8000000000080000", cwd=tmp_path)
    assert (out[0], out[2]) == (0, "")
    assert "may be no tables at all: see what is assumed." in out[1]
    assert "CR3" not in out[1]


def test_satp_is_decoded(tmp_path: Path) -> None:
    out = run("decode", "satp=0x8000100000082000", "--mode", "sv39", cwd=tmp_path)[1]
    assert "0x8000100000082000 as satp: the root table is at 0x82000000" in out
    assert "address space 0x1 of the TLB" in out


LARGEST = """
title = "The largest page there is"
arch = "riscv"
levels = [5]
ram = "64M"

[[map]]
virtual = 0x1_0000_0000_0000
size = "256T"
physical = 0x1_0000_0000_0000
"""


def test_a_page_larger_than_all_memory_can_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "largest.toml").write_text(LARGEST)
    code, out, err = run("dump", "--layout", "largest.toml", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "0x1000000000000..0x1ffffffffffff  256T  1 x 256T" in out
    low = LARGEST.replace("physical = 0x1_0000_0000_0000", "physical = 0")
    (tmp_path / "low.toml").write_text(low)
    code, _, err = run("dump", "--layout", "low.toml", cwd=tmp_path)
    assert code == 2 and "below 0x83000000 lie the machine's own memory and the tables" in err


def test_a_root_of_another_architecture_asks_for_its_mode(tmp_path: Path) -> None:
    for words, sentence in (
        (("satp=0x8000000000080000", "--mode", "5"), "satp is no register of x86"),
        (("0x8000000000080000", "--level", "satp", "--mode", "5"), "satp is no register of x86"),
        (("cr3=1000", "satp=0x8000000000080000"), "satp is no register of x86"),
        (("satp=8000000000080000", "cr3=1000"), "cr3 is no register of RISC-V"),
        (("CR3=0x1000", "--mode", "sv48"), "CR3 is no register of RISC-V"),
    ):
        code, out, err = run("decode", *words, cwd=tmp_path)
        like = "sv39" if "satp" in sentence else "4"
        assert (code, out) == (2, "")
        assert f"{sentence}: name a mode that has it, like --mode {like}\n" in err


def test_the_title_names_the_mode() -> None:
    assert source.snapshot("riscv/smallest", 3, {}).title == "layout smallest at sv39"


def test_a_fault_of_a_layout_says_what_of_the_hart_it_assumes(tmp_path: Path) -> None:
    asked = ("fault", "0x409123", *of("rights", 3), "--access", "write", "--user")
    assert (
        "Assumed: mstatus.SUM=0 and MXR=0 (--mstatus); menvcfg=0x6000000000000000, by which the"
        " hart sets A and D (--menvcfg)." in run(*asked, cwd=tmp_path)[1]
    )
    out = run(*asked, "--mstatus", "0", "--menvcfg", "0x0", cwd=tmp_path)[1]
    assert "Assumed" not in out and "Svade" in out


def test_memory_where_another_architecture_has_it_raises_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(8192))
    placed = ("walk", "0", "--ram", f"ram@{BASE:#x}")
    said = (
        "this is memory of x86 (--cr3), though it begins at 0x80000000, where RISC-V's machines"
        " have theirs (--satp)"
    )
    assert said in run(*placed, "--cr3", hex(BASE), cwd=tmp_path)[1]
    assert "this is memory" not in run(*placed, "--satp", "0x8000000000080000", cwd=tmp_path)[1]
    assert "this is memory" not in run("walk", "0", "--ram", "ram", "--cr3", 0, cwd=tmp_path)[1]
