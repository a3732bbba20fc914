"""`pagetable decode`, as people run it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import application
from harness.cli.decode import MOST_VALUES, ModeName
from harness.inspect.arm64 import mode as arm64
from harness.inspect.power import mode as power
from harness.paging import riscv
from harness.paging.s390 import cpu as s390
from harness.paging.x86.cpu import Mode
from tests.cli.commands import run

LARGE = "0x8000_0000_4010_08e7"


def rows(*arguments: object, cwd: Path) -> list[list[str]]:
    code, out, errors = run("decode", *arguments, cwd=cwd)
    assert (code, errors) == (0, "")
    return [line.split() for line in out.splitlines()]


@pytest.mark.parametrize(
    ("mode", "level", "said"),
    [
        ("region-first", "STE", "as an STE, "),
        ("region-first", "RTTE", "as an RTTE, "),
        ("region-first", "RSTE", "as an RSTE, "),
        ("region-first", "RFTE", "as an RFTE, "),
        ("region-first", "PTE", "as a PTE, "),
        ("4k", "L3", "as an L3"),
        ("5", "PML5E", "as a PML5E, "),
    ],
)
def test_articles_go_by_the_letters(tmp_path: Path, mode: str, level: str, said: str) -> None:
    code, out, _ = run("decode", "0x1000", "--mode", mode, "--level", level, cwd=tmp_path)
    assert (code, said in out.splitlines()[0]) == (0, True), out


def test_one_level_is_shown_bit_by_bit(tmp_path: Path) -> None:
    found = rows(LARGE, "--level", 1, cwd=tmp_path)
    said = "0x80000000401008e7 as a PDE, at level 1: reserved: 0x100000 below a 2M page"
    assert found[0] == said.split()
    assert [
        "20:13",
        "reserved",
        "0x80",
        "below",
        "a",
        "2M",
        "page:",
        "any",
        "access",
        "faults",
    ] in [row[:-1] for row in found]
    assert ["39:21", "address", "0x40000000"] in [row[:3] for row in found]
    assert ["0", "P", "0x1", "present", "table", "4-18"] in found


def test_without_a_level_all_readings_stand_side_by_side(tmp_path: Path) -> None:
    found = rows(LARGE, "--mode", 5, cwd=tmp_path)
    assert [row[:2] for row in found if row and row[0].isdigit()] == [
        ["0", "PTE"],
        ["1", "PDE"],
        ["2", "PDPTE"],
        ["3", "PML4E"],
        ["4", "PML5E"],
    ]


def test_what_was_not_said_is_said_to_be_assumed(tmp_path: Path) -> None:
    said = run("decode", "1", cwd=tmp_path)[1]
    assert "paging has 4 levels" in said and "MAXPHYADDR is 40" in said
    given = run("decode", "1", "--mode", "pae", "--maxphyaddr", 36, cwd=tmp_path)[1]
    assert "Assumed" not in given


def test_a_guess_is_marked_as_one(tmp_path: Path) -> None:
    """Public reports: `Bad page map pte:00010000`; PDPTEs of pointers that were sign-extended."""
    out = run("decode", "0x10000", "--level", 0, "--linux", cwd=tmp_path)[1]
    assert "To Linux: nothing that Linux writes: in swap it would be page 0x3ffffffffff7f" in out
    assert "a page in swap" not in out
    assert "Likely: an empty entry, with bit 16 set by mistake\n" in out
    out = run("decode", "6ec66d498352734b", cwd=tmp_path)[1]
    assert "  as a PTE, PDE, PDPTE, PML4E  no entry at all: its address, 0x66d4983527000, " in out
    out = run("decode", "pte=ffffffffffffffff", cwd=tmp_path)[1]
    assert "Likely: all ones: memory that is not there reads so" in out
    out = run("decode", "ffffffff82db4001", "--mode", "pae", cwd=tmp_path)[1]
    assert "  as a PDE, PDPTE  the number 0x82db4001 of 32 bits, sign-extended: the table" in out
    out = run("decode", "ffffffff82db4001", "--mode", "pae", "--json", cwd=tmp_path)[1]
    assert [len(one["likely"]) for one in json.loads(out)["readings"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("800000fffffee163", ", and with 39 or less bit 39 of the address is reserved."),
        ("0x1000163", "MAXPHYADDR is 40 (--maxphyaddr)."),
    ],
)
def test_a_width_that_is_assumed_is_said_to_matter_where_it_does(
    tmp_path: Path, value: str, said: str
) -> None:
    """A public report of a reserved bit in an entry of which the MAXPHYADDR of the host decides."""
    out = run("decode", value, "--level", 0, cwd=tmp_path)[1]
    assert out.rstrip().endswith(said)
    out = run("decode", value, "--level", 0, "--maxphyaddr", 39, cwd=tmp_path)[1]
    assert ("reserved: 0x8000000000 beyond MAXPHYADDR 39" in out) == (value != "0x1000163")
    assert "or less" not in out


@pytest.mark.parametrize(
    ("options", "name", "role"),
    [
        (["--no-nxe"], "XD", "reserved"),
        (["--no-keys"], "KEY", "ignored"),
        (["--no-pge"], "G", "ignored"),
        ([], "XD", "right"),
    ],
)
def test_options_are_the_state_that_entries_are_read_in(
    tmp_path: Path, options: list[str], name: str, role: str
) -> None:
    out = run("decode", "1", "--level", 0, "--json", *options, cwd=tmp_path)[1]
    (reading,) = json.loads(out)["readings"]
    assert {part["role"] for part in reading["parts"] if part["name"] == name} == {role}


def test_the_object_holds_each_part_and_what_linux_keeps(tmp_path: Path) -> None:
    out = run("decode", "0x1fffffffffdb9600", "--level", 0, "--linux", "--json", cwd=tmp_path)[1]
    answer = json.loads(out)
    assert (answer["version"], answer["command"], answer["cpu"]["mode"]) == (2, "decode", "4")
    (reading,) = answer["readings"]
    assert reading["kind"] == "absent"
    assert reading["linux"]["says"] == "a page in swap: number 0x1234 of area 3"
    assert {"bits": "63:59", "mask": f"{31 << 59:#x}"}.items() <= reading["linux"]["parts"][
        0
    ].items()


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("4", ["pte PTE pt", "pmd PDE pd", "pud PDPTE ppe", "p4d pgd PML4E pml4 PXE"]),
        ("5", ["pte PTE pt", "pmd PDE pd", "pud PDPTE ppe", "p4d PML4E PXE", "pgd PML5E pml5"]),
        ("pae", ["pte *pte pt", "pmd *pde PD", "pud p4d pgd *pdpt PDPTE"]),
        ("32", ["pte *pte", "pmd pud p4d pgd *pde PDE"]),
    ],
)
def test_a_level_is_named_by_the_manual_by_linux_or_by_its_number(
    tmp_path: Path, mode: str, names: list[str]
) -> None:
    for level, several in enumerate(names):
        for name in (str(level), *several.split()):
            asked = ("0x67", "--mode", mode, "--level", name, "--json")
            (reading,) = json.loads(run("decode", *asked, cwd=tmp_path)[1])["readings"]
            assert reading["level"] == level


@pytest.mark.parametrize(
    "asked", [("cr3=106008",), ("0x106008", "--level", "CR3"), ("CR3: 106008",)]
)
def test_cr3_is_decoded_in_its_mode(tmp_path: Path, asked: tuple[str, ...]) -> None:
    out = rows(*asked, "--mode", "32", cwd=tmp_path)
    assert out[0] == ["0x106008", "as", "CR3:", "the", "root", "table", "is", "at", "0x106000"]
    assert ["3", "PWT", "0x1"] in [row[:3] for row in out]
    answer = json.loads(run("decode", *asked, "--json", cwd=tmp_path)[1])
    assert answer["readings"] == []
    (register,) = answer["registers"]
    assert (register["leads_to"], register["reserved"]) == ("0x106000", "0x0")
    both = run("decode", *asked[:1], "pte=67", "cr3=1002", cwd=tmp_path)
    assert both[0] == 0 and "PCIDE is 0" in both[1]


@pytest.mark.parametrize(("mode", "names"), [("32", "pte, pgd"), ("pae", "pte, pmd, pgd")])
def test_a_level_that_the_mode_lacks_is_answered_with_its_own(
    tmp_path: Path, mode: str, names: str
) -> None:
    code, _, errors = run("decode", "1", "--level", "cr2", "--mode", mode, cwd=tmp_path)
    assert code == 2 and errors.endswith(f", or as Linux calls them {names}\n")


def decoded(*arguments: object, octets: bytes) -> tuple[int, str, str]:
    """What `decode` makes of standard input."""
    ended = CliRunner().invoke(
        application("decode"), ["decode", *map(str, arguments)], input=octets
    )
    return ended.exit_code, ended.stdout, ended.stderr


PTE_OF_WINDBG = (
    b"                                           VA fffff80402010080\n"
    b"PXE at FFFFF6FB7DBEDF80    PPE at FFFFF6FB7DBF0080    "
    b"PDE at FFFFF6FB7E010080    PTE at FFFFF6FC02010080\n"
    b"contains 0000000001208063  contains 0000000001209063  "
    b"contains 0A000001`234568E7  contains 0000000000000000\n"
    b"pfn 1208      ---DA--KWEV  pfn 1209  ---DA--KWEV  "
    b"pfn 1234568  ---DA--UWEV LARGE PAGE  not valid\n"
)
ON_ONE_LINE = b"PXE at FFFFF6FB7DBEDF80 contains 0000000001208063\nPPE at 0 contains 1209063"
WITHOUT_PLACES = b"PXE at 0 contains 1208063; PPE contains 1209063"


def test_what_windows_debugger_prints_of_an_address_is_its_entries() -> None:
    texts = {PTE_OF_WINDBG: [3, 2, 1, 0], ON_ONE_LINE: [3, 2], WITHOUT_PLACES: [3, 2]}
    for text, levels in texts.items():
        code, out, errors = decoded("-", "--json", octets=text)
        assert (code, errors) == (0, "")
        found = [(one["level"], one["raw"]) for one in json.loads(out)["readings"]]
        raws = ["0x1208063", "0x1209063", "0xa000001234568e7", "0x0"]
        assert found == list(zip(levels, raws, strict=False))
        assert decoded(text.decode(), "--json", octets=b"")[1] == out
        beside = json.loads(
            decoded("0x2067", text.decode(), "--json", "--level", "0", octets=b"")[1]
        )
        assert len(beside["readings"]) == 1 + len(levels)
    for cut in b"PXE at 0", b"PXE at 0 PPE at 0 contains", b"contains 2067":
        assert decoded("-", octets=cut)[0] == 2


def test_several_values_are_a_line_each() -> None:
    """The forms of Linux's reports: an oops, a bad page map, and an oops of 32 bits."""
    text = b"PGD 1fd0e067\r\npud:1fd0f067\n\n  *pte = 800fffffa7598063\nPMD=0\n"
    code, out, errors = decoded("-", "pte=2067", "--linux", octets=text)
    assert (code, errors) == (0, "")
    rows = [line.split()[:3] for line in out.splitlines() if line.startswith("0x")]
    assert rows == [
        ["0x000000001fd0e067", "3", "PML4E"],
        ["0x000000001fd0f067", "2", "PDPTE"],
        ["0x800fffffa7598063", "0", "PTE"],
        ["0x0000000000000000", "1", "PDE"],
        ["0x0000000000002067", "0", "PTE"],
    ]
    assert "PTE 0x800fffffa7598063  the 4K page at 0x58a67000" in out
    answer = json.loads(decoded("-", "--json", octets=text)[1])
    assert [(one["raw"], one["level"]) for one in answer["readings"]] == [
        *(("0x1fd0e067", 3), ("0x1fd0f067", 2), ("0x800fffffa7598063", 0), ("0x0", 1))
    ]


def test_values_without_a_level_are_read_at_every_level_or_at_the_one_of_the_option() -> None:
    rows = decoded("0x2067", "0x83", octets=b"")[1].splitlines()
    assert [line[:18] for line in rows if line.startswith("0x")] == [
        *["0x0000000000002067"] * 4,
        *["0x0000000000000083"] * 4,
    ]
    rows = decoded("-", "--level", "pmd", octets=b"2067a\nPTE 83\n")[1].splitlines()
    assert [line.split()[1:3] for line in rows if line[:2] == "0x"] == [["1", "PDE"], ["0", "PTE"]]


@pytest.mark.parametrize(
    ("octets", "sentence"),
    [
        (b"", "standard input holds no value"),
        (b"\n \n", "standard input holds no value"),
        (b"2067a\n\nxyz\n", "the value in line 3 is 'xyz', no number"),
        (b"67\n", "the value in line 1 is 67: write 0x67"),
        (b"\xff\xfe\0\0", "the value in line 1 is"),
        (b"A" * 100, "the value in line 1 has 100 digits"),
        (b"0" * ((16 << 20) + 1), "standard input holds more than 16 MiB"),
    ],
)
def test_input_that_is_no_list_of_values_is_a_sentence(octets: bytes, sentence: str) -> None:
    code, out, errors = decoded("-", octets=octets)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert sentence in errors


def test_of_very_many_values_the_first_are_shown() -> None:
    out = decoded("-", "--level", 0, octets=b"2067a\n" * (MOST_VALUES + 1))[1]
    assert out.count("0x000000000002067a") == MOST_VALUES
    assert f"Only the first {MOST_VALUES:,} of {MOST_VALUES + 1:,} values are shown." in out


@pytest.mark.parametrize(
    ("register", "mode", "assumed"),
    [
        # The MODE fields of satp: bit 31 of 32 bits, bits 63:60 of 64.
        ("satp=80081234", "sv32", False),
        ("satp=8000000000081234", "sv39", False),
        ("satp=9000000000081234", "sv48", False),
        ("SATP=a000000000081234", "sv57", False),
        # DT, bits 3:2 of the ASCE as counted here.
        ("asce=10003", "segment", False),
        ("asce=10007", "region-third", False),
        ("asce=1000b", "region-second", False),
        ("asce=1000f", "region-first", False),
        ("ttbr0=41f28000", "4k", True),
        ("ptcr=51000", "radix-4k", True),
        ("quadrant0=40000000000100ad", "radix-4k", True),
    ],
)
def test_a_register_names_the_mode_of_all_values_where_none_is_named(
    register: str, mode: str, assumed: bool, tmp_path: Path
) -> None:
    values = (register, "0x20000017")
    code, out, errors = run("decode", *values, "--level", 0, "--json", cwd=tmp_path)
    assert (code, errors) == (0, "")
    found = json.loads(out)
    found_there = json.loads(
        run("decode", *values, "--level", 0, "--json", "--mode", mode, cwd=tmp_path)[1]
    )
    said = [f"the mode is {mode} (--mode names another)"] if assumed else []
    assert found.pop("assumed") == [*said, *found_there.pop("assumed")]
    assert found == found_there


def test_the_modes_are_those_of_the_library() -> None:
    spaces = (mode.value for mode in s390.Mode)
    of_both = [*(one.value for one in (*Mode, *riscv.Mode)), *arm64.MODES, *spaces, *power.MODES]
    assert [mode.value for mode in ModeName] == of_both


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x"], "the value is 'x', no number"),
        (["1", "--level", "4"], "x86-64 4-level has levels 0 to 3, not 4"),
        (["1", "--level", "-1"], "x86-64 4-level has levels 0 to 3, not -1"),
        (["1", "--level", "page"], "has no level 'page': it has 0 to 3, or PTE, PDE, PDPTE, PML4E"),
        (["1", "--level", "PML5E"], "x86-64 4-level has no level 'PML5E'"),
        (["esr=9600004b"], "ESR_EL1 is no entry: an abort is explained by fault --esr 0x9600004b"),
        (["1", "--level", "ESR", "--mode", "4k"], "an abort is explained by fault --esr 0x1"),
        (["pge=1"], "x86-64 4-level has no level 'pge'"),
        (["pte=1", "67"], "the value is 67: write 0x67, or 0x43 if that is decimal"),
        (["1", "--mode", "6"], "'6' is not one of"),
        (["0x1_0000_0000", "--mode", "32"], "has more than the 32 bits of an entry"),
        (["0x1_0000_0000_0000_0000"], "which is no number of 64 bits"),
        (["1", "--maxphyaddr", "53"], "MAXPHYADDR is 32 to 52 bits, not 53"),
        (["1", "--mode", "pae", "--linux"], "what Linux keeps in entries of x86 PAE is not known"),
    ],
)
def test_what_cannot_be_decoded_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("decode", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tcr", "0x1000400000"), "address space 0x1234"),
        (("tcr=0x1000400000",), "address space 0x1234"),
        (("tcr=0x400000",), "address space 0x34"),
        (("tcr=0x1000000000",), "not used: that of TTBR0_EL1 is (TCR_EL1.A1=0)"),
        (("tcr=0", "--tcr", "0x400000"), "address space 0x34"),
        (("tcr=0x400000", "tcr=0"), "not used"),  # which of them it is, nothing says
        ((), "not used"),
    ],
)
def test_the_registers_of_a_call_decide_what_its_mode_leaves_open(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    asked = ("decode", "ttbr1=1234000040000000", *arguments, "--mode", "4k")
    code, out, _ = run(*asked, cwd=tmp_path)
    (line,) = (line for line in out.splitlines() if line.split()[1:2] == ["ASID"])
    assert code == 0 and said in line
    decided = bool(arguments) and arguments != ("tcr=0x400000", "tcr=0")
    assert ("(AS=0, A1=0) (--tcr)" in out) == (not decided)


def test_mair_of_a_call_names_the_types_of_its_entries(tmp_path: Path) -> None:
    found = rows("mair=00000000000000bb", "pte=40000403", "--mode", "4k", cwd=tmp_path)
    assert ["WT,", "byte", "0", "of", "MAIR_EL1,", "0xbb"] in [row[3:9] for row in found]
    assert not any("MAIR_EL1=" in word for row in found for word in row)
