"""`pagetable fault`, as people run it."""

import json
import re
from pathlib import Path

import pytest

from harness.cli.fault import MEANT, KindName
from harness.paging import arm64, riscv
from harness.paging.x86.access import Kind
from tests.cli.commands import run
from tests.inspect.sources.kernel import PAE, ROOT, arguments
from tests.inspect.sources.machines import running
from tests.inspect.sources.test_core import note, written

WHERE = ("--layout", "page-sizes", "--levels", 4)
GIGABYTE = "0xffff_8000_4000_0000"
SLOT = "PDPTE at 0x2006008: 0x8000000040000083"


def lines(*arguments: object, cwd: Path) -> list[str]:
    code, out, errors = run("fault", *arguments, cwd=cwd)
    assert (code, errors) == (0, ""), errors
    return [" ".join(line.split()) for line in out.splitlines()]


def test_an_access_is_explained_with_the_change_that_would_let_it_pass(tmp_path: Path) -> None:
    out = lines(GIGABYTE, "--access", "fetch", "--user", *WHERE, cwd=tmp_path)
    head = "user fetch at 0xffff800040000000: #PF, error code 0x15 (P U I), CR2 0xffff800040000000"
    assert head in out
    assert "rule a user access to a supervisor page (4.6.1), at level 2" in out
    assert f"change {SLOT} -> 0x0000000040000087" in out
    assert "clears XD: opens this 1G page to fetches; sets U: opens it to the user" in out


def test_an_access_that_is_allowed_tells_where_it_gets_and_what_it_sets(tmp_path: Path) -> None:
    out = lines(GIGABYTE, "--access", "write", "--supervisor", *WHERE, cwd=tmp_path)
    assert "supervisor write at 0xffff800040000000: allowed, reaches 0x40000000" in out
    assert "D in the PDPTE at 0x2006008" in out


def test_a_code_without_tables_is_of_x86_and_says_what_it_is_elsewhere(tmp_path: Path) -> None:
    sentence = "No tables are named, so that this is of x86; of RISC-V it is: {}."
    for code, other in (("0xd", "load page fault (cause 13)"), ("7", "store/AMO access fault")):
        out = lines("--code", code, cwd=tmp_path)
        assert out[0].startswith(f"#PF, error code {int(code, 16):#x} (")
        assert any(line.startswith(f"Note: {sentence.format(other)[:-1]}") for line in out)
    found = json.loads(run("fault", "--code", "0xd", "--json", cwd=tmp_path)[1])
    assert found["notes"] == [sentence.format("load page fault (cause 13)")]
    assert "RISC-V" not in " ".join(lines("--code", "0x1d", cwd=tmp_path))


def test_load_and_store_are_read_and_write(tmp_path: Path) -> None:
    for other, kind in (("load", "read"), ("store", "write")):
        asked = [lines(GIGABYTE, "--access", one, *WHERE, cwd=tmp_path) for one in (other, kind)]
        assert asked[0] == asked[1]


def test_without_an_access_the_usual_ones_are_a_table(tmp_path: Path) -> None:
    out = lines(GIGABYTE, *WHERE, cwd=tmp_path)
    assert [line.split()[:2] for line in out if line.startswith(("user", "supervisor"))] == [
        [by, kind] for kind in ("read", "write", "fetch") for by in ("user", "supervisor")
    ]
    assert "supervisor read allowed, reaches 0x40000000" in out


@pytest.mark.parametrize(
    "asked", [("0x0", "--access", "read"), ("0x0",), ("--code", "4", "--cr2", "0x0")]
)
def test_what_linux_keeps_in_the_entries_is_told_where_it_is_asked(
    tmp_path: Path, asked: tuple[str, ...]
) -> None:
    memory = tmp_path / "memory"
    words = (0x1007, 0x2007, 0x3007, 0x1FFF_FFFF_FFDB_9604)  # the last one is of README.md
    memory.write_bytes(b"".join(word.to_bytes(8, "little").ljust(0x1000, b"\0") for word in words))
    tables = ("--ram", memory, "--cr3", "0")
    assert "PTE: a page in swap: number 0x1234 of area 3; uffd-wp" in lines(
        *asked, *tables, "--linux", cwd=tmp_path
    )
    assert not [line for line in lines(*asked, *tables, cwd=tmp_path) if "swap" in line]


def page(directory: Path, table_rights: str) -> tuple[object, ...]:
    """The options for a layout with a user's page at 0x1000."""
    text = (
        'title = "One page"\nlevels = [4]\nram = "64M"\n[[map]]\nvirtual = 0x1000\nsize = "4K"\n'
        f'rights = "wu"\ntable_rights = "{table_rights}"\n'
    )
    (directory / "page.toml").write_text(text)
    return ("0x1000", "--access", "read", "--layout", directory / "page.toml")


def test_an_entry_of_an_upper_level_tells_the_span_it_opens(tmp_path: Path) -> None:
    out = lines(*page(tmp_path, "wx"), "--user", cwd=tmp_path)
    assert (
        "sets U: opens all 2M of 0x0..0x1fffff, as far as lower entries allow, to the user" in out
    )


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ([], "allowed, reaches"),
        (["--cr4", "0x200020", "--no-ac"], "#PF, error code 0x1 (P)"),
        (["--cr4", "0x200020", "--ac"], "allowed, reaches"),
        (["--cr4", "0x400020", "--pkru", "1"], "#PF, error code 0x21 (P PK)"),
        (["--cr4", "0x400020", "--pkru", "4"], "allowed, reaches"),
    ],
)
def test_the_state_on_the_command_line_is_the_one_that_is_judged(
    tmp_path: Path, options: list[str], answer: str
) -> None:
    out = lines(*page(tmp_path, "wux"), "--supervisor", *options, cwd=tmp_path)
    assert any(line.startswith(f"supervisor read at 0x1000: {answer}") for line in out)


def test_the_object_holds_outcomes_remedies_and_the_translation(tmp_path: Path) -> None:
    asked = (GIGABYTE, "--access", "fetch", "--user", *WHERE, "--json")
    answer = json.loads(run("fault", *asked, cwd=tmp_path)[1])
    assert (answer["version"], answer["command"]) == (2, "fault")
    (outcome,) = answer["outcomes"]
    assert (outcome["vector"], outcome["error"], outcome["level"]) == ("PF", "0x15", 2)
    assert outcome["error_bits"] == ["P", "U", "I"]
    (entry,) = outcome["remedies"][0]["entries"]
    assert (entry["slot"]["address"], entry["new"]) == ("0x2006008", "0x40000087")
    assert outcome["translation"]["end"] == "page"


def test_a_fault_that_was_seen_is_put_in_words_without_a_source(tmp_path: Path) -> None:
    out = lines("--code", "0x1d", "--cr2", "0x1000", cwd=tmp_path)
    assert out[0] == "#PF, error code 0x1d (P U RSVD I), CR2 0x1000"
    assert "3 RSVD 1 an entry has reserved bits set" in out and "access user fetch" in out
    assert "tcg-reserved-bit-fault-lacks-p" not in " ".join(out)
    assert "tcg-reserved-bit-fault-lacks-p" in " ".join(lines("--code", "0x1c", cwd=tmp_path))


def test_a_fault_that_was_seen_is_compared_with_the_tables(tmp_path: Path) -> None:
    seen = ("--code", "0x7", "--cr2", GIGABYTE, *WHERE)
    assert "The tables as they are give this fault." in lines(*seen, cwd=tmp_path)
    out = lines("--code", "0x6", "--cr2", GIGABYTE, *WHERE, cwd=tmp_path)
    assert "The tables as they are do not give this fault. It may be that" in out
    answer = json.loads(run("fault", *seen, "--json", cwd=tmp_path)[1])
    assert answer["given"] and answer["seen"]["raised_by"][0] == "user write"


def test_the_accesses_are_those_of_the_library() -> None:
    kinds = (*Kind, *riscv.Kind, *arm64.Kind)
    assert {kind.name for kind in KindName} - {kind.name for kind in MEANT} == {
        kind.name for kind in kinds
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no ADDRESS is given"),
        (["0x1000"], "no source is named"),
        (["0x1000", "--cr2", "0x1000"], "add its --code"),
        (["--code", "0x1d", "0x1000", "--cr2", "0x1000"], "an address and --cr2 are given"),
        (["--code", "9", "0x1000", "--access", "push"], "--code alone says which accesses raise"),
        (["--code", "0x1_0000_0000"], "0x100000000 is not an error code: those have 32 bits"),
        (["--code", "x"], "the error code is 'x', no number"),
        (
            ["--code", "13"],
            "or 0xd if that is decimal; of RISC-V it is: load page fault (cause 13)",
        ),
        (["0x1000", "--layout", "smallest", "--svg", "-"], "- is no file, and what is printed is"),
        (["--code", "4", "--linux"], "--linux shows what is in entries: name the source"),
        (
            ["--code", "7", "--layout", "smallest"],
            "does not record CR2: name the ADDRESS, or of a fau",
        ),
        (["--layout", "smallest"], "does not record CR2: name the ADDRESS"),
        (["0x1000", "--user", "--implicit", "--layout", "smallest"], "an implicit access is a"),
        (["0x1000", "--access", "jump", "--layout", "smallest"], "'jump' is not one of"),
        (["0x1_0000_0000_0000_0000", "--layout", "smallest"], "no number of 64 bits"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("fault", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors


def memory(path: Path, words: dict[int, int], width: int = 4) -> Path:
    """A file of 1 MiB of memory that holds these words."""
    octets = bytearray(1 << 20)
    for place, word in words.items():
        octets[place : place + width] = word.to_bytes(width, "little")
    path.write_bytes(octets)
    return path


def halted(directory: Path, **registers: int) -> tuple[object, ...]:
    """A core of a guest that stands in its handler: its stack and code lie in the page at 0x1000,
    and nothing else is mapped."""
    words = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4008: 0x5007}
    frame = (0x2, 0x1234, 0x8, 0x1_0202, 0x1F80, 0x10)
    words |= {0x5F00 + 8 * number: word for number, word in enumerate(frame)}
    ram = memory(directory / "ram", words, 8)
    state = {"cr2": 0x40_0000, "rip": 0x1111, "rsp": 0x1EE0, **registers}
    made = written(directory / "core", [(0, ram.read_bytes())], note(0x1000, **state))
    return ("--core", made)


def test_without_an_address_the_last_fault_of_a_core_is_explained(tmp_path: Path) -> None:
    source = halted(tmp_path)
    out = lines(*source, cwd=tmp_path)
    said = "Note: From processor 0: CR2 0x400000, and from the frame of a page fault on its stack,"
    assert f"{said} at 0x1f00, the error code 0x2 and RIP 0x1234." in out
    assert "#PF, error code 0x2 (W), CR2 0x400000" in out
    assert "The tables as they are give this fault." in out
    answer = json.loads(run("fault", *source, "--json", cwd=tmp_path)[1])
    assert (answer["seen"]["error"], answer["seen"]["rip"]) == ("0x2", "0x1234")
    assert answer["given"] and answer["notes"][-1].startswith("From processor 0")


def test_what_is_given_goes_before_what_the_core_holds(tmp_path: Path) -> None:
    source = halted(tmp_path)
    out = lines("--code", "7", *source, cwd=tmp_path)
    assert "#PF, error code 0x7 (P W U), CR2 0x400000" in out
    out = lines("--access", "read", "--user", *source, cwd=tmp_path)
    assert [line for line in out if " at 0x400000: #PF" in line] == [
        "user read at 0x400000: #PF, error code 0x4 (U), CR2 0x400000"
    ]


@pytest.mark.parametrize(
    ("registers", "accesses"),
    [
        ({"rsp": 0x9000, "rip": 0x40_0000}, ["supervisor fetch"]),
        ({"rsp": 0x9000, "cs": 0x33}, ["user read", "user write"]),
    ],
)
def test_without_a_frame_the_accesses_that_fit_the_registers_are_explained(
    tmp_path: Path, registers: dict[str, int], accesses: list[str]
) -> None:
    out = lines(*halted(tmp_path, **registers), cwd=tmp_path)
    told = [line.partition(" at 0x400000: #PF")[0] for line in out if " at 0x400000: #PF" in line]
    assert told == accesses


@pytest.mark.hw
def test_a_guest_that_a_triple_fault_has_stopped_is_asked_without_an_address(
    tmp_path: Path,
) -> None:
    """It switches paging on with tables that map nothing, and so cannot fetch what follows."""
    guest = arguments(tmp_path, PAE, ROOT, {ROOT + 8 * number: 0 for number in range(4)})
    with running(tmp_path, *guest, "-no-reboot", "-no-shutdown") as machine:
        assert machine.witness.becomes("shutdown")
        out = lines("--qmp", machine.path, cwd=tmp_path)
        assert machine.witness.status() == "shutdown"
    [said] = [line for line in out if line.startswith("Note: From processor 0: CR2 0x40 and RIP")]
    assert "CR2 is where the gate of vector 8 is, in the IDT at 0x0, which is not mapped" in said
    rip = said.split("RIP ")[1].split()[0].rstrip(".")
    assert f"supervisor fetch at {rip}: #PF, error code 0x0, CR2 {rip}" in out
    assert "rule the PDPTE of the address is not present (4.4.2)" in out


def far(directory: Path, kind: str) -> tuple[object, ...]:
    """A source with a table at 0x10080000, outside its memory."""
    ram = memory(directory / "ram", {0x1000: 0x1008_0003})
    if kind == "ram":
        return ("--ram", ram, "--cr3", "0x1000", "--cr4", "0")
    core = written(directory / "core", [(0, ram.read_bytes())], note(0x1000, 0), {"machine": 3})
    return ("--core", core)


@pytest.mark.parametrize("kind", ["ram", "core"])
def test_a_table_outside_memory_is_named_by_every_command(tmp_path: Path, kind: str) -> None:
    """Public reports of triple faults: CR0.PG set with a page table at a wrong address."""
    source, address = far(tmp_path, kind), "0x100000"
    out = lines("--code", "0", "--cr2", address, *source, cwd=tmp_path)
    assert "The tables as they are give this fault." in out
    (said,) = (line for line in out if line.startswith("- "))
    assert "table to which the PDE at" in said
    assert "lies outside memory, at 0x10080000, and reads as zeros there: QEMU" in said
    assert not [line for line in out if "do not give" in line or "changed since" in line]
    out = lines(address, "--access", "read", "--supervisor", *source, cwd=tmp_path)
    assert "unknown, for slot 256 of the level-0 table at 0x10080000 lies" in out[2]
    assert any("zeros (QEMU, under TCG and under KVM): #PF, error code 0x0" in one for one in out)
    assert any(one.startswith("change PDE at") and "address of a new table" in one for one in out)
    for command in (("walk", address), ("dump",), ("lint",)):
        told = run(*command, *source, cwd=tmp_path)[1]
        assert "able at 0x10080000" in told and "outside memory" in told, told


def test_a_root_outside_memory_is_named(tmp_path: Path) -> None:
    source = ("--layout", "smallest", "--levels", 4, "--cr3", "0x10080000")
    out = lines("--code", "0", "--cr2", "0x1000", *source, cwd=tmp_path)
    assert "The tables as they are give this fault." in out
    assert any("the root's table, to which CR3 leads, lies outside memory" in line for line in out)
    assert "change none of the tables: CR3 must lead to a root's table in memory" in out


def test_a_page_size_bit_that_cr4_pse_leaves_without_meaning_is_named(tmp_path: Path) -> None:
    """Public reports of kernels that set PS in a PDE before CR4.PSE."""
    ram = memory(tmp_path / "ram", {0x1F00: 0x83})
    source = ("--ram", ram, "--cr3", "0x1000", "--cr4", "0")
    out = lines("0xf0100000", "--access", "fetch", "--supervisor", *source, cwd=tmp_path)
    assert "or CR4.PSE: 0 -> 1 (0x0 -> 0x10)" in out
    out = lines("--code", "0", "--cr2", "0xf0100000", *source, cwd=tmp_path)
    assert any(line.startswith("or CR4.PSE: 0 -> 1") for line in out)


def test_a_change_of_a_suspect_address_says_where_it_leads(tmp_path: Path) -> None:
    ram = memory(tmp_path / "ram", {0x1000: 0x2067, 0x2000: 0x3067, 0x3000: 0x4067}, 8)
    memory_of = bytearray(ram.read_bytes())
    memory_of[0x4008:0x4010] = (0x800F_FFFF_A759_8063).to_bytes(8, "little")
    ram.write_bytes(memory_of)
    asked = ("0x1000", "--access", "write", "--supervisor", "--ram", ram, "--cr3", "0x1000")
    out = lines(*asked, cwd=tmp_path)
    assert "clears reserved 0xfff0000000000: the entry leads to the 4K page at 0xffa7598000" in out
    assert "0xffa7598000 is not in the file: a device's, nobody's, or memory left out of it" in out
    assert "this only makes the entry valid: where it was meant to lead, see what is likely" in out
    assert not [line for line in out if "reachable" in line]


def test_what_an_entry_that_faults_probably_is_is_said(tmp_path: Path) -> None:
    """A public report of an oops with error code 000b and this PTE, of a page of 0x58a67000."""
    words = {0x1888: 0x2067, 0x2008: 0x3067, 0x3628: 0x4067, 0x4338: 0x800F_FFFF_A759_8063}
    ram = memory(tmp_path / "ram", words, 8)
    source, address = ("--ram", ram, "--cr3", "0x1000"), "ffff888058a67000"
    said = "likely the PTE: the 4K page at 0x58a67000, by the entry 0x8000000058a67063: Linux inv"
    shown = "0x58a67000 is where 0xffff888058a67000 leads in Linux's map of all memory"
    for asked in (("--access", "write", "--supervisor"), ("--linux",), ()):
        out = lines(address, *asked, *source, cwd=tmp_path)
        assert any(line.startswith(said) for line in out) and shown in out
    out = lines("--code", "000b", "--cr2", address, *source, "--linux", cwd=tmp_path)
    assert "The tables as they are give this fault." in out
    assert any(line.startswith(said) for line in out) and shown in out
    answer = json.loads(run("walk", address, *source, "--json", cwd=tmp_path)[1])
    assert [bool(step["likely"]) for step in answer["walks"][0]["steps"]] == [False] * 3 + [True]


def test_a_reserved_bit_that_another_width_gives_is_named(tmp_path: Path) -> None:
    """A public report: error code 000b, and a PTE that is good with 40 bits."""
    words = {0x1C90: 0x2067, 0x2000: 0x3067, 0x3000: 0x4067, 0x4168: 0x8000_00FF_FFFE_E163}
    ram = memory(tmp_path / "ram", words, 8)
    given = ("--cr2", "0xffffc9000002d000", "--ram", ram, "--cr3", "0x1000")
    out = " ".join(lines("--code", "0b", *given, cwd=tmp_path))
    assert "Assumed: MAXPHYADDR=39, the widest with which these entries give the fault" in out
    assert "with EFER.NXE=0 they give it, too (--efer)" in out
    known = ("--maxphyaddr", 40, "--efer", "0xd00")
    out = " ".join(lines("--code", "0b", *given, *known, cwd=tmp_path))
    assert "with 39 or less bit 39 of the address is reserved; or another EFER.NXE" in out
    out = " ".join(lines("--code", "0b", *given, "--maxphyaddr", "39", cwd=tmp_path))
    assert "The tables as they are give this fault." in out


def test_the_entries_are_offered_before_write_protection_is_switched_off(tmp_path: Path) -> None:
    """Public reports of tables that were made for a read-only page, and then hold a writable
    one."""
    (tmp_path / "made.toml").write_text(
        'title = "x"\nlevels = [4]\nram = "64M"\n'
        '[[map]]\nvirtual = 0x4000000000\nsize = "4K"\nrights = "x"\ntable_rights = "x"\n'
        '[[map]]\nvirtual = 0x4000001000\nsize = "4K"\nrights = "w"\n'
    )
    asked = ("0x4000001000", "--access", "write", "--supervisor", "--layout", "made.toml")
    out = lines(*asked, cwd=tmp_path)
    offers = [line.split()[:2] for line in out if line.startswith(("change ", "or "))]
    assert offers == [["change", "PML4E"], ["or", "CR0.WP:"]]


def test_numbers_are_taken_as_tools_print_them(tmp_path: Path) -> None:
    """QEMU's log: e=0003; WinDbg's addresses; Linux's without 0x."""
    plain = lines("--code", "0x3", "--cr2", "0xffffffff85000000", cwd=tmp_path)
    for cr2 in ("ffffffff85000000", "ffffffff`85000000"):
        assert lines("--code", "0003", "--cr2", cr2, cwd=tmp_path) == plain
    asked = ("--access", "read", "--supervisor", "--layout", "linux-4")
    one = lines("ffffffff85000000", *asked, "--cr3", "0000000002000000", cwd=tmp_path)
    assert one == lines("0xffffffff85000000", *asked, cwd=tmp_path)


def test_a_denied_access_is_drawn_and_has_a_page(tmp_path: Path) -> None:
    asked = ("fault", "0xffffffff85000000", "--user", "--layout", "linux-4")
    files = ("--svg", "fault.svg", "--html", "fault.html")
    code, _, errors = run(*asked, "--access", "read", *files, cwd=tmp_path)
    assert (code, errors) == (0, ""), errors
    for name in ("fault.svg", "fault.html"):
        text = (tmp_path / name).read_text()
        # The PDPTE and the PDE are supervisor entries, the PML4E is not.
        for entry, denies in (("PML4E", False), ("PDPTE", True), ("PDE", True)):
            assert (f"denied by this {entry}" in text) == denies
        assert "user read: #PF, error code 0x5 (P U)" in text
    assert "sets U: opens this 2M page to the user" in (tmp_path / "fault.html").read_text()


def test_which_address_may_be_meant_is_said_without_an_access_too(tmp_path: Path) -> None:
    found = lines("0xfffeff7fbfdff000", "--layout", "linux-4", cwd=tmp_path)
    sentence = "the address itself must be another, 0xffffff7fbfdff000 by its lower bits"
    assert sum(sentence in line for line in found) == 1
    found = lines("0xffffff7fbfdff000", "--layout", "linux-4", cwd=tmp_path)
    assert not any("must be another" in line for line in found)


def test_a_page_of_several_accesses_has_one_picture_a_cause(tmp_path: Path) -> None:
    """The PDE keeps the user out, whatever he does, and withholds W and X from the supervisor."""
    asked = ("fault", "0xffffffff85000000", "--layout", "linux-4", "--html", "fault.html")
    code, _, errors = run(*asked, cwd=tmp_path)
    assert (code, errors) == (0, ""), errors
    text = (tmp_path / "fault.html").read_text()
    heads = re.findall(r"<h2[^>]*>(.*#PF.*|.*allowed.*)</h2>", text)
    assert [head.partition(":")[0] for head in heads] == [
        "user read, user write and user fetch",
        "supervisor read",
        "supervisor write",
        "supervisor fetch",
    ]
    assert text.count("<svg") == len(heads)
    for access in "read", "write", "fetch":
        assert f"<summary>Why, and what to change: user {access}</summary>" in text
        assert f"user {access} at 0xffffffff85000000: #PF" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["0x1000", "--layout", "linux-4"], "--svg draws one access, and there are 6: add"),
        (["--code", "4"], "a picture needs all tables of the walk: name their source"),
        (
            ["0x800000000000", "--access", "read", "--user", "--layout", "linux-4"],
            "there is no walk of 0x800000000000 to draw",
        ),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("fault", *arguments, "--svg", "fault.svg", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors
    assert not (tmp_path / "fault.svg").exists()


def test_an_access_beside_its_error_code_is_compared_with_it(tmp_path: Path) -> None:
    """A stack that is not executable, on a processor whose NXE is not set yet."""
    words = (0x1007, 0x2007, 0x3007, 0x8000_0000_0000_0003)
    tables = b"".join(word.to_bytes(8, "little").ljust(0x1000, b"\0") for word in words)
    (tmp_path / "memory").write_bytes(tables)
    where = ("--ram", "memory", "--cr3", "0", "--efer", "0x500")
    push = ("--access", "push", "--supervisor")
    out = lines("0x10", *push, "--code", "9", *where, cwd=tmp_path)
    assert "The tables as they are give this fault." in out
    assert any("a supervisor push raises #PF with error code 0xb there" in line for line in out)
    assert not any(
        "raises" in line for line in lines("0x10", *push, "--code", "b", *where, cwd=tmp_path)
    )


def test_what_a_file_does_not_record_is_said_where_it_decides(tmp_path: Path) -> None:
    words = (0x1007, 0x2007, 0x3007, 0x8000_0080_0000_1003)
    tables = b"".join(word.to_bytes(8, "little").ljust(0x1000, b"\0") for word in words)
    (tmp_path / "memory").write_bytes(tables)
    asked = ("0x10", "--access", "read", "--supervisor", "--ram", "memory", "--cr3", "0")
    out = lines(*asked, cwd=tmp_path)
    assert (
        "unless EFER.NXE=0 (EFER.NXE=1 is assumed): #PF, error code 0x9 (P RSVD), CR2 0x10" in out
    )
    said = (
        "MAXPHYADDR=39 or less (MAXPHYADDR=40 is assumed): #PF, error code 0x9 (P RSVD), CR2 0x10"
    )
    assert said in out
    assert any("0x8000001010 is not in the file: a device's, nobody's" in line for line in out)
    assert not any(
        "unless" in line
        for line in lines(*asked, "--efer", "0xd00", "--maxphyaddr", 40, cwd=tmp_path)
    )
    table = lines("0x10", "--ram", "memory", "--cr3", "0", cwd=tmp_path)
    assert (
        "unless EFER.NXE=0 (EFER.NXE=1 is assumed), by which outcomes differ: --access shows each"
        in table
    )
