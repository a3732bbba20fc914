"""PDPTEs of PAE paging that no processor would load: shown, and read as the machine reads them."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import run
from tests.inspect.sources.kernel import NXE, PAE, ROOT, arguments
from tests.inspect.sources.machines import running

STATE = ("--cr4", "0x20", "--efer", "0x800", "--cr0", "0x80010001", "--maxphyaddr", "36")


def memory(path: Path, words: dict[int, int], size: int = 1 << 16) -> Path:
    """A file of memory with 64-bit words at these addresses, the rest a hole."""
    with path.open("wb") as file:
        file.truncate(size)
        for address, word in words.items():
            file.seek(address)
            file.write(struct.pack("<Q", word))
    return path


def told(*words: object, cwd: Path, expect: int = 0) -> Any:
    """What a command prints as JSON."""
    code, out, errors = run(*words, "--json", cwd=cwd)
    assert (code, errors) == (expect, "")
    return json.loads(out)


def ranges(found: Any) -> list[tuple[str, str, str]]:
    return [(one["first"], one["last"], one["kind"]) for one in found["ranges"]]


# ---- A is set in a PDPTE: TCG did that ----

USED = {0x1018: 0x2021, 0x2040: 0xE3}


def test_a_pdpte_with_a_set_is_read_as_tcg_reads_it(tmp_path: Path) -> None:
    path = memory(tmp_path / "ram", USED)
    where = ("--ram", path, "--cr3", "0x1000", *STATE)
    dump = told("dump", *where, cwd=tmp_path)
    assert ranges(dump) == [("0xc1000000", "0xc11fffff", "page")]
    code, out, errors = run("walk", "0xc1001234", *where, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "0xc1001234: 0x1234, in a 2M page" in out
    assert "PDPTE  0x1018  0x0000000000002021  table at 0x2000  P A  " in out
    assert "TCG departs from that (tcg-pdptes-are-entries)" in out
    assert "A is set in a PDPTE, so QEMU's TCG is assumed to have run this guest." in " ".join(
        out.split()
    )


def test_rights_are_no_concern_of_pdptes(tmp_path: Path) -> None:
    used = {**USED, 0x1018: 0x2021, 0x2040: 0xE7}
    path = memory(tmp_path / "ram", used)
    where = ("--ram", path, "--cr3", "0x1000", *STATE)
    for command in ("dump", "find 0x0"):
        code, out, _ = run(*command.split(), *where, cwd=tmp_path)
        assert code == 0
        assert "urwx" in out
    code, out, _ = run("fault", "0xc1001234", "--access", "write", "--user", *where, cwd=tmp_path)
    assert code == 0
    assert "allowed, reaches 0x1234" in out
    missing = ("fault", "0x0", "--access", "write", "--user", *where)
    (outcome,) = told(*missing, cwd=tmp_path)["outcomes"]
    made = [one["new"] for one in outcome["remedies"][0]["missing"]["entries"]]
    assert made == ["0x1", "0x7", "0x7"]


# ---- some that no machine takes, beside one that is right ----

MIXED = {0x1000: 0x2001, 0x1008: 0x3003, 0x1018: 0xFFFF_FFFF_0000_4001}
MIXED |= {0x2000: 0x4067, 0x3000: 0xE7, 0x4008: 0x8000_0000_0000_5027}


def test_a_pdpte_that_is_wrong_is_shown_beside_those_that_are_right(tmp_path: Path) -> None:
    where = ("--ram", memory(tmp_path / "ram", MIXED), "--cr3", "0x1000", *STATE)
    dump = told("dump", *where, cwd=tmp_path)
    assert ranges(dump) == [
        ("0x1000", "0x1fff", "page"),
        ("0x40000000", "0x7fffffff", "malformed"),
        ("0xc0000000", "0xffffffff", "malformed"),
    ]
    (note,) = dump["notes"]
    assert "MOV CR3 raises #GP(0) (SDM volume 3A, 4.4.1) for PDPTE 1" in note
    assert "; QEMU's TCG ignores bits 2:1 and 8:5" in note
    assert "PDPTE 1 0x3003 (0x2 is reserved)" in note
    assert "PDPTE 3 0xffffffff00004001 (0xfffffff000000000 is reserved)" in note
    lint = told("lint", *where, cwd=tmp_path, expect=1)
    assert [(one["rule"], one["total"]) for one in lint["broken"]] == [("reserved-bits", 2)]
    for command in ("find 0x5000", "find --tables", "find --aliases"):
        assert run(*command.split(), *where, cwd=tmp_path)[0] == 0
    assert run("walk", "0x1000", *where, "--html", "w.html", "--svg", "w.svg", cwd=tmp_path)[0] == 0
    assert run("dump", *where, "--html", "d.html", cwd=tmp_path)[0] == 0


def test_tcg_is_named_for_what_it_refuses_alone(tmp_path: Path) -> None:
    words = {0x1000: 0x2001, 0x1018: 0xFFFF_FFFF_0000_4001}
    where = ("--ram", memory(tmp_path / "ram", words), "--cr3", "0x1000", *STATE)
    (note,) = told("dump", *where, cwd=tmp_path)["notes"]
    assert note.endswith("(APM volume 2, 15.25.10) or QEMU's TCG")
    assert "PDPTE 1" not in note


def test_spaces_are_compared_whether_or_not_their_pdptes_can_be_loaded(tmp_path: Path) -> None:
    right = {address: word for address, word in MIXED.items() if address not in (0x1008, 0x1018)}
    words = []
    for name, tables in (("right", right), ("mixed", MIXED), ("used", {**MIXED, 0x1000: 0x2021})):
        memory(tmp_path / name, tables)
        words.append(f"ram:{tmp_path / name},cr3=0x1000,cr4=0x20,efer=0x800,maxphyaddr=36")
    first, second, third = words
    assert run("diff", first, first, cwd=tmp_path)[0] == 0
    found = told("diff", first, second, cwd=tmp_path, expect=1)["changes"]
    assert [(one["first"], one["change"]) for one in found] == [
        ("0x40000000", ["mapped"]),
        ("0xc0000000", ["mapped"]),
    ]
    found = told("diff", second, third, cwd=tmp_path, expect=1)["changes"]
    assert {one["first"] for one in found} == {"0x40000000", "0x40200000"}


# ---- all of them sign-extended 32-bit pointers, as in a kernel that was debugged in public ----


def test_a_fault_by_sign_extended_pdptes_is_explained(tmp_path: Path) -> None:
    base = 0x82DB_3000
    words = {base + 8 * n: 0xFFFF_FFFF_82DB_4001 + 0x1000 * n for n in range(4)}
    path = memory(tmp_path / "ram", words, 0x82E0_0000)
    state = ("--cr4", "0x300ee4", "--cr0", "0x80010013", "--efer", "0x800")
    where = ("--ram", path, "--cr3", hex(base), *state)
    code, out, _ = run("fault", "--code", "0x1d", "--cr2", "0x02a800ef", *where, cwd=tmp_path)
    assert code == 0
    assert "The tables as they are give this fault." in out
    assert "because   the PDPTE at 0x82db3000, level 2, holds 0xffffffff82db4001" in out
    assert "reserved: 0xfff0000000000000 bits 63:52 of a PDPTE, 0xfff0000000000 beyond" in out
    dump = told("dump", *where, cwd=tmp_path)
    assert ranges(dump) == [("0x0", "0xffffffff", "malformed")]


# ---- the machine itself ----

LIVE = {
    0x20_0FE0: 0x20_1007,  # TCG does not look at bits 2:1, and sets A
    0x20_0FE8: 0x20_1001,
    0x20_0FF8: 0x20_2001 | 1 << 60,  # and this is too wide for it, too
    0x20_1000: 0x83,
    0x20_1008: 0x8000_0000_0040_1083,  # XD and PAT
    0x20_1010: 0x20_3027,
    0x20_1018: 0x10_0083,  # bit 20 is reserved
    0x20_3000: 0x8000_0000_0000_5027,
    0x20_3008: 0x7063,
}


@pytest.mark.hw
def test_a_pae_guest_of_tcg_its_core_and_its_ram_give_one_answer(tmp_path: Path) -> None:
    ram = os.memfd_create("ram")
    os.ftruncate(ram, 64 << 20)
    backend = f"memory-backend-file,id=ram,size={64 << 20},mem-path=/proc/self/fd/{ram},share=on"
    shared = ("-object", backend, "-machine", "memory-backend=ram")
    guest = arguments(tmp_path, PAE, ROOT + 0xFE0, LIVE, efer=NXE)
    try:
        with running(tmp_path, *guest, *shared, pass_fds=(ram,)) as machine:
            machine.witness.waits_for("CR3=00200fe0")
            live = told("dump", "--qmp", machine.path, cwd=tmp_path)
            check = told("check", "--qmp", machine.path, cwd=tmp_path)
            assert machine.witness.status() == "running"
            machine.witness.ask("stop")
            core = tmp_path / "core"
            machine.witness.ask("dump-guest-memory", paging=False, protocol=f"file:{core}")
            (tmp_path / "ram").write_bytes(os.pread(ram, 64 << 20, 0))
    finally:
        os.close(ram)
    assert live["ranges"]
    assert ("0xc0000000", "0xffffffff", "malformed") in ranges(live)
    assert told("dump", "--core", core, cwd=tmp_path)["ranges"] == live["ranges"]
    state = ("--cr3", "0x200fe0", "--cr4", "0x20", "--efer", "0x800", "--cr0", "0x80010011")
    flat = told("dump", "--ram", tmp_path / "ram", "--flat", *state, cwd=tmp_path)
    assert flat["ranges"] == live["ranges"]
    for found in (live, flat, check):
        assert any("tcg-pdptes-are-entries" in one for one in found["notes"])
    assert check["disagreements"] == 0
    # By two PDPTEs: a large and a small page with XD, and bit 20 of a large page.
    assert check["quirks"]["info-tlb-prints-bits-of-entries"] == 2 * 3
    compared = {one["oracle"]: one["compared"] for one in check["oracles"]}
    assert compared["info tlb"] == 2 * 5
    assert compared["walk of monitor memory"] == 2 * 5 + 1  # the PDPTE that is wrong
    assert compared["gva2gpa"] > 2 * 5
