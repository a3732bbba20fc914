"""The plugin as another project meets it: each test runs pytest on a small project of its own.

It is run in this process, but for what is about processes: Python and the package take as long to
start as all else.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import warnings
from fnmatch import fnmatch
from inspect import ismodule
from xml.etree import ElementTree

import pytest

import harness.check
import harness.inspect
import harness.paging
import harness.report
from tests.machine.arm64.present import QEMU as QEMU_ARM64
from tests.machine.arm64.present import why_absent as why_no_arm64
from tests.machine.riscv.present import QEMU, why_absent

pytest_plugins = ["pytester"]

# After a run in this process pytester forgets what was imported for it alone: there would be two of
# each class, one of which the plugin still has.
for package in (harness.check, harness.inspect, harness.paging, harness.report):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

TWO_PAGES = """
    from harness.paging.address import Virtual

    def test_two_pages(space, prove):
        write = space.format.granting("write")
        space.map(Virtual(0x400000), space.frames(2), level=0, bits=write)
        assert len(prove(space.cpu)) == 6
"""

WRONG_MODEL = """
    from dataclasses import replace
    import numpy as np
    from harness.paging.address import Virtual

    def test_a_model_with_narrow_addresses(space, prove):
        far = np.array([1 << 37], np.uint64)
        space.map(Virtual(0x400000), far, level=0, bits=space.format.granting())
        prove(replace(space.cpu, maxphyaddr=36))
"""

LOST = """
    import os, signal

    def test_a_guest_that_is_killed(guest):
        os.kill(guest.pid, signal.SIGKILL)

    def test_the_next_one(guest):
        assert guest.monitor.status() == "running"
        guest.close()

    def test_the_one_after(space, guest, prove):
        space.map(0x400000, space.frames(1), level=0, bits=space.format.granting())
        prove(space.cpu)
        print("qemu", guest.pid)
"""

NEWS = """
    import numpy as np
    import pytest
    from harness.machine.x86.guest import Guest
    from harness.paging.walk import walk

    @pytest.fixture
    def mended(monkeypatch):
        def ran(guest, state, jobs, run=Guest.run):
            results = run(guest, state, jobs).copy()
            results["error"][results["error"] & 8 != 0] |= 1
            return results
        monkeypatch.setattr(Guest, "run", ran)

    def test_an_engine_that_follows_the_rule(space, prove, mended):
        space.map(0x400000, space.frames(1), level=0, bits=space.format.granting())
        last = walk(space.memory, space.cpu.roots[0], 0x400000).steps[-1]
        space.memory.store(last.slot.address, 8, last.raw | 1 << 51)
        prove(space.cpu, allow=["malformed"])
"""

NOT_STORED = """
    import pytest
    from harness.paging.x86.cpu import Cpu, Mode

    @pytest.mark.parametrize("cr3", [0x3200000, 0, 1 << 40 - 1, -0x1000, 1 << 40, 1 << 64])
    def test_a_root(prove, cr3):
        prove(Cpu.in_mode(Mode.LEVEL_4, cr3))

    def test_tables_without_a_page(space, prove):
        space.map(0x400000, space.frames(1), level=0, bits=space.format.granting())
        space.write(space.slot(0x400000, 0), 0)
        prove(space.cpu)
"""

WITHHELD = """
    from harness.paging.address import Span, Virtual

    def test_the_stack_can_be_taken_away(space, live, prove):
        stack = Span.of(0x7000_0000_1000, 4 << 12)
        space.map(Virtual(stack.first), space.frames(4), 0, space.format.granting("write", "user"))
        live.probe(stack)
        space.unmap(stack).done()
        live.probe(stack)
        prove(live)
"""


IMPASSABLE = """
    import struct
    import pytest
    from harness.paging.x86.cpu import Cpu

    ROOT = 32 << 20

    def identity(ram, sign):
        # 4 GiB in pages of 2 MiB, of which a cast of int to 64 bits makes the upper half negative.
        ram[ROOT : ROOT + (6 << 12)] = 0
        struct.pack_into("<Q", ram, ROOT, ROOT + 0x1000 | 7)
        for one in range(4):
            table = ROOT + 0x2000 + (one << 12)
            struct.pack_into("<Q", ram, ROOT + 0x1000 + 8 * one, table | 7)
            for index in range(512):
                address = one << 30 | index << 21
                if sign and address >> 31:
                    address |= -1 << 32 & (1 << 64) - 1
                struct.pack_into("<Q", ram, table + 8 * index, address | 0x83)

    @pytest.mark.parametrize("sign", [0, 1])
    @pytest.mark.parametrize("allow", [(), ("malformed",), ("unbacked",)])
    def test_identity(guest, prove, sign, allow):
        identity(guest.ram.buffer, sign)
        prove(Cpu.long_mode(4, ROOT), allow=allow)

    def test_a_table_that_is_nowhere(guest, prove):
        identity(guest.ram.buffer, 0)
        struct.pack_into("<Q", guest.ram.buffer, ROOT + 0x1000, 0xB000_0007)
        prove(Cpu.long_mode(4, ROOT), allow=["unbacked"])
        prove(Cpu.long_mode(4, ROOT))

    def test_a_word_that_allows_nothing(guest, prove):
        with pytest.raises(ValueError, match="there is no 'broken' to allow, but malformed and un"):
            prove(Cpu.long_mode(4, ROOT), allow=["broken"])
"""


INTENT = """
    import pytest
    from harness.paging.address import Span, Virtual

    TEXT = Span.of(0x40_0000, 4 << 12)

    def mapped(space):
        bits = space.format.granting("user", "execute")
        space.map(Virtual(TEXT.first), space.frames(4), 0, bits)
        return int(space.roots[0].table.address)

    def test_as_meant(space, prove):
        mapped(space)
        asked = prove(space.cpu, expect={TEXT: "ur-x", 0x7000_0000: None}, strict=True)[0].compared
        assert asked > prove(space.cpu)[0].compared

    def test_otherwise(space, prove):
        mapped(space)
        prove(space.cpu, expect={TEXT: "urwx", 0x3F_F000: "ur--"})

    def test_more(space, prove):
        mapped(space)
        prove(space.cpu, expect={0x40_0000: "ur-x"}, strict=True)

    def test_a_file(space, prove, tmp_path):
        mapped(space)
        path = tmp_path / "mine.toml"
        path.write_text("[[expect]]\\nvirtual = 0x400000\\nabsent = true")
        prove(space.cpu, expect=path)

    def test_after_a_change(space, live, prove):
        mapped(space)
        live.flush(space.unmap(TEXT))
        live.probe(TEXT)
        prove(live, expect={TEXT: None}, strict=True)

    def test_before_a_change(space, live, prove):
        mapped(space)
        live.probe(TEXT)
        prove(live, expect={TEXT: None})

    def test_strict_alone(space, prove):
        with pytest.raises(ValueError, match="strict says that nothing else is mapped"):
            prove(space.cpu, strict=True)
"""


MISUSED = """
    import numpy as np
    from dataclasses import replace
    from harness.paging.address import Span, Virtual

    def test_a_direct_map(space, live):
        pages = np.arange(0, 64 << 20, 2 << 20, dtype=np.uint64)
        space.map(Virtual(1 << 40), pages, 1, space.format.granting("write"))
        live.probe(Span.of((1 << 40) + (34 << 20), 30 << 20))
        live.probe(Span.of(1 << 40, 64 << 20))

    def test_a_store_that_is_not_announced(space, live):
        space.map(Virtual(1 << 40), space.frames(1), 0, 0)
        live.probe(Span.of(1 << 40, 4096))
        space.memory.octets[space.cpu.cr3 + 8 * 400] = 1
        live.probe(Span.of(1 << 40, 4096))

    def test_what_cannot_be_meant(space, prove):
        space.map(Virtual(1 << 40), space.frames(1), 0, 0)
        prove(space.cpu, expect={(1 << 40) + 1: "r"})

    def test_a_root_that_is_the_machine_s(space, prove):
        prove(replace(space.cpu, cr3=0x1000))

    def test_a_file_that_is_not_there(space, prove):
        prove(space.cpu, expect="none.toml")

    def test_a_page_that_is_none(space):
        space.map(Virtual(0x1001), space.frames(1), 0, 0)
"""


FREES_TWICE = """
    import pytest
    from harness.paging.address import Virtual

    def freed_twice(space):
        space.map(Virtual(0x40_0000), space.frames(1), 0, 0)
        region = space.region(4 << 12)
        frame = region.alloc()
        region.free(frame)
        region.free(frame)

    def test_seen_by_the_proof(space, prove):
        freed_twice(space)
        prove(space.cpu)

    def test_seen_at_the_end(space):
        freed_twice(space)

    def test_seen_in_a_space_beside(space, guest, paging_levels):
        from harness.check.x86.space import GuestSpace
        freed_twice(GuestSpace(guest, paging_levels, beside=space))

    def test_freed_once(space, prove):
        space.map(Virtual(0x40_0000), space.frames(1), 0, 0)
        region = space.region(4 << 12)
        region.free(region.alloc())
        prove(space.cpu)
"""


@pytest.mark.hw
def test_misuse_is_the_line_of_the_test_and_a_sentence(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MISUSED)
    result = run(pytester, "--pagetable-engine=tcg", "-k4-level", "--tb=short")
    result.assert_outcomes(failed=6)
    result.stdout.fnmatch_lines(
        [
            "*in test_a_direct_map",
            "    live.probe(Span.of(1 << 40, 64 << 20))",
            "E*Misuse: 0x10000000000 leads to 0x0, where there is no *: it is 0x2000000..*. Probe*",
            "*in test_a_store_that_is_not_announced",
            "    live.probe(Span.of(1 << 40, 4096))",
            "E*Misuse: the entry at 0x2000c80 was 0x0 and is 0x1, and no one has announced *",
            "*in test_what_cannot_be_meant",
            "    prove(space.cpu, expect={(1 << 40) + 1: *",
            "E*QuestionError: expect: virtual is 0x10000000001, inside a page: write 0x10000*",
            "*in test_a_root_that_is_the_machine_s",
            "    prove(replace(space.cpu, cr3=0x1000))",
            "E*Misuse: CR3 0x1000 has the root table at 0x1000, where there is no memory *",
            "*in test_a_file_that_is_not_there",
            "E*QuestionError: none.toml cannot be read: No such file or directory",
            "*in test_a_page_that_is_none",
            "E*SpaceError: 0x1001 is not a multiple of the page size 0x1000 at level 0",
        ]
    )
    assert not any("harness/" in line for line in result.outlines)
    options = ("--pagetable-engine=tcg", "-k4-level and page_that_is_none", "--full-trace")
    assert any("harness/" in line for line in run(pytester, *options).outlines)


@pytest.mark.hw
def test_a_frame_that_c_frees_twice_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FREES_TWICE)
    result = run(pytester, "--pagetable-engine=tcg", "-k4-level", "-W", "error")
    result.assert_outcomes(failed=1, passed=3, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown*",
            "E*Failed: 0x* is not a frame that the region 0x* has given, or it*",
        ]
    )


UNCLEARED = """
    import os
    import signal
    from dataclasses import replace
    import numpy as np

    def mapped(space, root, *tables):
        ways = (root, *tables)
        for above, below in zip(ways, tables):
            space.memory.store(above + 8 * 5, 8, below | 7)
        space.memory.store(ways[-1] + 8 * 5, 8, 0x800_0007)
        return replace(space.cpu, cr3=root)

    def test_a_root_at_the_address(space, prove):
        region = space.region(1 << 20)
        root, tables = region.address, [region.alloc() for _ in range(3)]
        for table in tables:
            space.memory.scatter(np.uint64(table) + np.arange(0, 4096, 8, np.uint64), 8,
                                 np.zeros(512, np.uint64))
        prove(mapped(space, root, *tables))

    def test_a_root_not_cleared(space, prove):
        region = space.region(1 << 20)
        prove(mapped(space, region.alloc(), *(region.table() for _ in range(3))))

    def test_a_table_not_cleared(space, prove):
        region = space.region(1 << 20)
        tables = region.table(), region.table(), region.alloc()
        expect = {0x40_0000: "ur--"}
        prove(mapped(space, region.address, *tables), allow=["malformed"], expect=expect)

    def test_a_table_behind_the_region(space, prove):
        region = space.region(3 << 12)
        prove(mapped(space, region.address, *(region.address + (n << 12) for n in (1, 2, 3))))

    def test_a_guest_that_is_lost(guest, space, prove):
        space.map(0x40_0000, space.frames(1), 0, 0)
        os.kill(guest.pid, signal.SIGKILL)
        prove(space.cpu)

    def test_one_behind_it(space, prove):
        space.map(0x40_0000, space.frames(1), 0, 0)
        prove(space.cpu)
"""


@pytest.mark.hw
def test_a_table_that_is_not_cleared_and_a_lost_guest_are_one_sentence(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(UNCLEARED)
    result = run(pytester, "--pagetable-engine=tcg", "-k4-level", "--tb=short")
    result.assert_outcomes(passed=2, failed=4)
    result.stdout.fnmatch_lines(
        [
            "E*Failed: the table at 0x4001000, level 3, was not cleared: of its 512 *",
            "E*Failed: the table at 0x4003000, level 0, was not cleared: of its 512 *",
            "E*user read at 0x400000: #PF*",
            "E*Failed: the table at 0x4003000, level 0, lies outside the region 0x4000000..0x400*",
            "E*Failed: with CR3 0x2000000: the guest is lost: *",
        ]
    )
    assert not any("harness/" in line for line in result.outlines)


WITHOUT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
"""Hypothesis has a plugin that another project need not have."""


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    with warnings.catch_warnings():
        warnings.resetwarnings()  # they are no errors in another project
        done = pytester.runpytest_inprocess(*WITHOUT, *options)
    package = [module for name, module in sys.modules.items() if name.startswith("harness")]
    had = {one.__name__ for each in package for one in vars(each).values() if ismodule(one)}
    forgotten = {name for name in had - sys.modules.keys() if name.startswith("harness.")}
    assert not forgotten, "they would be imported a second time"
    return done


def run_apart(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """In a process of its own: what changes the package, or is about processes."""
    return pytester.runpytest_subprocess(*WITHOUT, *options)


@pytest.mark.hw
def test_a_disagreement_fails_the_test_with_both_answers_and_the_walk(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(WRONG_MODEL)
    result = run(pytester, "--pagetable-engine=tcg", "-k4-level")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*prove(replace(space.cpu, maxphyaddr=36))*",
            "*answers disagree on tcg",
            "*probe: supervisor read at 0x400000",
            "*expected*reserved bits*",
            "*observed*",
            "*walk*level*entry*slot*raw*meaning*bits*rights so far",
            "*0 *PTE*0x8000002000000001*reserved: 0x2000000000 beyond MAXPHYADDR 36*",
        ]
    )


@pytest.mark.hw
def test_what_maps_nothing_or_has_its_root_elsewhere_is_not_proved(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(NOT_STORED)
    result = run(pytester, "--pagetable-engine=tcg", "--tb=line")
    result.assert_outcomes(failed=8)
    empty = (
        "*: Failed: nothing is mapped, so nothing was proved: all tables that CR3 {} leads to are*"
    )
    elsewhere = (
        "*Misuse: CR3 {0} has the root table at {0}, where there is no memory for tables: it*"
    )
    result.stdout.fnmatch_lines(
        [
            empty.format("0x3200000"),
            elsewhere.format("0x0"),
            elsewhere.format("0x8000000000"),
            "*Misuse: CR3 cannot be loaded with -0x1000: CR3 has 64 bits",
            "*Misuse: CR3 cannot be loaded with 0x10000000000: 0x10000000000 in it is reserved",
            "*Misuse: CR3 cannot be loaded with 0x10000000000000000: CR3 has 64 bits",
            empty.format("0x2000000"),
        ]
    )


@pytest.mark.hw
def test_what_no_access_can_pass_is_not_proved_in_silence(pytester: pytest.Pytester) -> None:
    """A public report: half of an identity map of reserved bits, by a cast of a signed number."""
    pytester.makepyfile(IMPASSABLE)
    result = run(pytester, "--pagetable-engine=tcg", "--tb=short", "-p", "no:randomly")
    result.assert_outcomes(passed=5, failed=3)
    result.stdout.fnmatch_lines(
        [
            "E*1,024 entries with reserved bits set: any access there faults, on this machine too*",
            "E*allow=*malformed*",
            "E*0x80000000..0xffffffff*2G*1,024 x 2M*malformed, reserved bits set: 0xf*",
            "E*0x80000000: no translation at level 1: the entry has reserved bits set (4.7)",
            "E*likely*the number 0x80000083 of 32 bits, sign-extended: the 2M page at 0x80000000",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "E*512 entries in tables outside memory: what they say is up to the machine; if that*",
            "E*the level-1 table at 0xb0000000 lies outside memory*",
        ]
    )


@pytest.mark.hw
def test_a_flush_that_is_missing_is_named_once_for_its_pages_with_its_accesses_counted(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(WITHHELD)
    result = run(pytester, "--pagetable-engine=tcg", "-k4-level")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "* of * answers disagree on tcg",
            "*expected  #PF(0x?) at level 0: the entry is not present*; at call 2 of live.probe",
            "*observed  done, and the word is *",
        ]
    )
    # Four pages, and the reads and writes that each allows; TCG drops some by itself, and so there
    # may be gaps in the range.
    found = re.search(r"(\d+) of [\d,]+ answers disagree", result.stdout.str())
    assert found is not None and 1 <= int(found[1]) <= 16
    hint = (
        r"hint +a flush may be missing: 0x70000000.00\S* was unmapped and was not flushed, and"
        r" (\d+) access(?:es)? still ends? as at call 1 of live.probe \(SDM 4.10.4\)"
    )
    said, _, _ = result.stdout.str().partition("short test summary info")  # where CI has it again
    counts = re.findall(hint, said)
    assert 1 <= len(counts) <= 4 and sum(map(int, counts)) == int(found[1])
    assert "not shown" not in result.stdout.str()


@pytest.mark.hw
def test_a_quirk_that_does_not_show_is_a_warning(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(NEWS)
    result = run(pytester, "--pagetable-engine=tcg", "-k4-level")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*on tcg, tcg-reserved-bit-fault-lacks-p did not show"])


@pytest.mark.hw
def test_a_guest_that_was_lost_is_replaced_and_none_is_left(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LOST)
    result = run_apart(pytester, "-rP", "--pagetable-engine=tcg")
    result.assert_outcomes(passed=4)
    pids = [line.split()[1] for line in result.outlines if line.startswith("qemu ")]
    assert len(pids) == 2
    alive = subprocess.run(["ps", "-o", "comm=", "-p", ",".join(pids)], stdout=subprocess.PIPE)
    assert b"qemu" not in alive.stdout


@pytest.mark.hw
@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_a_space_is_proved_at_both_levels_and_the_report_s_head_has_engine_and_versions(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(TWO_PAGES)
    result = run_apart(pytester, "-v", "--pagetable-engine=tcg", "--junit-xml=report.xml", *workers)
    result.assert_outcomes(passed=2)
    passed = [line for line in result.outlines if "PASSED" in line]
    assert [any(f"[tcg-{n}-level]" in line for line in passed) for n in (4, 5)] == [True, True]
    head = ElementTree.parse(pytester.path / "report.xml").find("testsuite/properties")
    assert head is not None
    values = {one.get("name"): str(one.get("value")) for one in head}
    assert "QEMU " in values["engine tcg"]
    assert {"python", "numpy", "machine"} <= set(values)


OLDER = """
    from dataclasses import replace
    from harness.check.x86 import quirks

    quirks.KNOWN = {name: replace(one, runs=((7, 2),)) for name, one in quirks.KNOWN.items()}
"""


@pytest.mark.hw
@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_a_version_that_was_not_yet_run_is_named_at_the_end_and_in_the_report_s_head(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(TWO_PAGES)
    pytester.makeconftest(OLDER)
    result = run_apart(pytester, "--pagetable-engine=tcg", "--junit-xml=report.xml", *workers)
    result.assert_outcomes(passed=2)
    sentence = "tcg *.*: not yet run on this version; runs of: 7.2"
    result.stdout.fnmatch_lines([f"pagetable: {sentence}"])
    assert result.stdout.str().count("not yet run") == 1
    head = ElementTree.parse(pytester.path / "report.xml").find("testsuite/properties")
    assert head is not None
    (value,) = (one.get("value", "") for one in head if one.get("name") == "not_run_on")
    assert fnmatch(value, sentence)


def test_an_engine_that_is_absent_is_skipped_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QEMU", raising=False)
    monkeypatch.setenv("PATH", str(pytester.path))
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester)
    result.assert_outcomes(skipped=4)
    reason = "pagetable: 2 skipped: tcg cannot run here: QEMU *as qemu-system-x86_64: *"
    result.stdout.fnmatch_lines([reason])


@pytest.mark.parametrize("where", ["option", "environment"])
def test_the_usual_emulator_must_run_too_where_it_was_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.delenv("QEMU", raising=False)
    monkeypatch.setenv("PATH", str(pytester.path))
    if where == "environment":
        monkeypatch.setenv("QEMU", "qemu-system-x86_64")
    pytester.makepyfile(TWO_PAGES)
    options = ("--pagetable-qemu=qemu-system-x86_64",) if where == "option" else ()
    result = run(pytester, *options)
    outcomes = result.parseoutcomes()
    assert outcomes["errors"] >= 2 and not outcomes.get("passed")
    reason = "QEMU is not installed, or not in PATH as qemu-system-x86_64: *"
    result.stdout.fnmatch_lines([f"tcg was asked for, and cannot run here: {reason}"])


def test_an_engine_that_was_asked_for_must_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester, "--pagetable-engine=tcg", "--pagetable-qemu=/nope")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["tcg was asked for, and cannot run here: QEMU *as /nope: *"])


@pytest.mark.parametrize("where", ["option", "environment"])
@pytest.mark.parametrize(
    ("program", "why"),
    [("/nope", "QEMU is not installed, or not in PATH as /nope: *"), ("true", "QEMU did not *")],
)
def test_an_emulator_that_was_named_must_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, where: str, program: str, why: str
) -> None:
    """A wrong path proved nothing, and was green."""
    monkeypatch.delenv("QEMU", raising=False)
    options = (f"--pagetable-qemu={program}",) if where == "option" else ()
    if not options:
        monkeypatch.setenv("QEMU", program)
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester, *options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = result.parseoutcomes()
    assert outcomes["errors"] >= 2 and not outcomes.get("passed")
    result.stdout.fnmatch_lines([f"tcg was asked for, and cannot run here: {why}"])


def test_a_bochs_that_no_test_would_run_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester, "--pagetable-bochs=/nope")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: no test runs /nope, *: add --pagetable-engine bochs"])
    result = run(pytester, "--pagetable-bochs=/nope", "--pagetable-engine=bochs")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["bochs was asked for, and cannot run here: Bochs *as /nope: *"])


@pytest.mark.hw
def test_tables_that_say_something_else_than_was_meant_fail_as_fault_explains_it(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(INTENT)
    result = run(pytester, "--pagetable-engine=tcg", "-k4-level", "--tb=short")
    result.assert_outcomes(passed=3, failed=4)
    result.stdout.fnmatch_lines(
        [
            "*prove(space.cpu, expect={TEXT: *",
            "E   Failed: user write at 0x400000: #PF, error code 0x7 (P W U), CR2 0x400000",
            "E     expected  allowed, by 0x400000..0x403fff urwx",
            "E               missed in all 16K",
            "E     rule      a write to a read-only page (4.6.1), at level 0",
            "E     because   the PTE at 0x*, level 0, holds 0x*",
            "E     change    PTE at 0x*: 0x* -> 0x*",
            "E                 sets W: opens this 4K page to writes",
            "E     walk      level  entry *",
            "E   user read at 0x3ff000: #PF, error code 0x4 (U), CR2 0x3ff000",
            "E   Failed: user read at 0x401000: allowed, reaches 0x*",
            "E     expected  nothing mapped: no expectation names these 12K",
            "E     expected  nothing mapped in 0x400000..0x400fff (mine.toml, expect 1)",
            "E     expected  nothing mapped in 0x400000..0x403fff",
        ]
    )


def test_options_of_another_project_keep_their_names(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        def pytest_addoption(parser):
            for name in ("--engine", "--qemu", "--levels", "--guest"):
                parser.addoption(name)
        """
    )
    pytester.makepyfile("def test_nothing(): pass")
    run(pytester, "--engine=theirs", "--qemu=theirs").assert_outcomes(passed=1)


IN_A_REGION = """
    from dataclasses import replace
    from harness.check.x86.live import Live
    from harness.paging.address import Span
    import numpy as np

    def test_a_mapper_that_forgets_its_flush(space, guest, prove):
        region = space.region(1 << 20)
        root, below = region.address, [region.table() for _ in range(3)]
        words = guest.ram.buffer.view("<u8")
        for table in below:
            words[table // 8 : table // 8 + 512] = 0
        for at, table in zip((root, *below), (*below, int(space.frames(1)[0]))):
            words[at // 8] = table | 7
        live = Live(guest, space.memory, replace(space.cpu, cr3=root))
        live.probe(Span.of(0, 0x1000), pages=1)
        with live.changes():
            words[below[-1] // 8] = 0
        FLUSH
        live.probe(Span.of(0, 0x1000), pages=1)
        prove(live)
"""


@pytest.mark.hw
@pytest.mark.parametrize("flushed", [True, False])
def test_a_missing_flush_of_code_in_a_region_is_found_and_nothing_else(
    pytester: pytest.Pytester, flushed: bool
) -> None:
    pytester.makepyfile(IN_A_REGION.replace("FLUSH", "live.flush([0])" if flushed else "pass"))
    result = run(pytester, "--pagetable-engine", "tcg", "-k", "4-level")
    if flushed:
        result.assert_outcomes(passed=1, deselected=1)
    else:
        result.assert_outcomes(failed=1, deselected=1)
        result.stdout.fnmatch_lines(
            ["*a flush may be missing: 0x0 was unmapped and was not flushed*"]
        )


ON_RISCV = """
    import ctypes
    from dataclasses import replace

    import pytest
    from harness.paging.address import Span, Virtual

    MINE = Virtual(0x400000)

    def test_pages(space, prove):
        bits = space.format.granting("read", "write", "user")
        with space.map(MINE, space.frames(2), level=0, bits=bits):
            pass
        prove(space.cpu)

    def test_tables_of_other_code(space, prove):
        region = space.region(1 << 20)
        table = region.address
        for level in reversed(range(space.cpu.levels)):
            entry = 0x8800_0000 >> 2 | 0xd7 if level == 0 else region.table() >> 2 | 1
            place = region.base + table + (MINE >> 12 + 9 * level) % 512 * 8
            ctypes.c_uint64.from_address(place).value = entry
            table = entry >> 10 << 12
        prove(replace(space.cpu, satp=space.cpu.satp >> 44 << 44 | region.address >> 12))

    def test_nothing(space, prove):
        prove(space.cpu)

    def test_what_was_meant(space, prove):
        user = space.format.granting("read", "write", "user")
        space.map(MINE, space.frames(1), level=0, bits=user).done()
        prove(space.cpu, expect={MINE: "ur--", 0x500000: None}, strict=True)

    def test_a_flush(space, live, prove):
        bits = space.format.granting("read", "write", "user")
        live.flush(space.map(MINE, space.frames(1), level=0, bits=bits))
        live.probe(Span.of(MINE, 0x1000))
        space.unmap(Span.of(MINE, 0x1000)).done()
        live.probe(Span.of(MINE, 0x1000))
        prove(live)

    def test_malformed(space, prove):
        space.map(MINE, space.frames(1), level=0, bits=space.format.granting("read")).done()
        slot = space.slot(MINE, 0)
        space.write(slot, space.read(slot) & ~2 | 4)
        prove(space.cpu)
"""


@pytest.mark.hw
def test_spaces_of_riscv_are_proved_in_each_mode(pytester: pytest.Pytester) -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    pytester.makepyfile(ON_RISCV)
    options = ("--pagetable-arch", "riscv", "--pagetable-qemu", QEMU, "--junit-xml=r.xml", "-rA")
    result = run(pytester, *options)
    passed = [
        f"PASSED *::{name}?tcg-{mode}?"
        for name in ("test_pages", "test_tables_of_other_code")
        for mode in ("sv39", "sv48", "sv57")
    ]
    result.stdout.fnmatch_lines_random(
        [
            *passed,
            "*nothing is mapped, so nothing was proved: all tables that satp 0x*",
            "*user write at 0x400000: allowed, reaches 0x8*",
            "*expected  denied, by 0x400000..0x400fff ur--",
            "*PTE at 0x8*: 0x*17 -> 0x*13",
            "*closes this 4K page to writes",
            "*a flush may be missing: 0x400000 was unmapped and was not flushed*",
            "*1 entry with reserved bits set: any access there faults*",
        ]
    )
    result.assert_outcomes(passed=6, failed=12)
    head = ElementTree.parse(pytester.path / "r.xml").getroot().iter("property")
    assert any(one.get("value", "").startswith("QEMU ") for one in head)


ON_ARM64 = """
    import ctypes
    from dataclasses import replace
    from harness.paging.address import Span, Virtual

    MINE = Virtual(0x400000)

    def test_pages(space, prove):
        space.map(MINE, space.frames(2), level=0, bits=space.format.granting("write")).done()
        probed, translated, led, tables = prove(space.cpu)
        assert min(one.compared for one in (probed, translated, led, tables)) > 0
        assert not sum(one.disagreed for one in (probed, translated, led, tables))

    def test_tables_of_other_code(space, prove):
        region = space.region(1 << 20)
        table = region.address
        for level in reversed(range(space.cpu.roots[0].table.level + 1)):
            entry = 0x4800_0000 | 1 << 10 | 3 if level == 0 else region.table() | 3
            place = region.base + table + (MINE >> 12 + 9 * level) % 512 * 8
            ctypes.c_uint64.from_address(place).value = entry
            table = entry & ~0xFFF
        prove(replace(space.cpu, ttbr0=region.address))

    def test_nothing(space, prove):
        prove(space.cpu)

    def test_what_was_meant(space, prove):
        bits = space.format.granting("write", "user")
        space.map(MINE, space.frames(1), level=0, bits=bits).done()
        prove(space.cpu, expect={MINE: "ur---", 0x500000: None}, strict=True)

    def test_a_flush(space, live, prove):
        bits = space.format.granting("write", "user")
        live.flush(space.map(MINE, space.frames(1), level=0, bits=bits))
        live.probe(Span.of(MINE, 0x1000))
        space.unmap(Span.of(MINE, 0x1000)).done()
        live.probe(Span.of(MINE, 0x1000))
        prove(live)
"""


@pytest.mark.hw
def test_spaces_of_arm64_are_proved_at_each_number_of_levels(pytester: pytest.Pytester) -> None:
    if reason := why_no_arm64():
        pytest.skip(reason)
    pytester.makepyfile(ON_ARM64)
    options = ("--pagetable-arch", "arm64", "--pagetable-qemu", QEMU_ARM64, "-rA")
    result = run(pytester, *options)
    passed = [
        f"PASSED *::{name}?tcg-{levels}-level?"
        for name in ("test_pages", "test_tables_of_other_code")
        for levels in (3, 4)
    ]
    result.stdout.fnmatch_lines_random(
        [
            *passed,
            "*nothing is mapped, so nothing was proved: all tables that TTBR0_EL1 0x*",
            "*expected  denied, by 0x400000..0x400fff ur---",
            "*a flush may be missing: 0x400000 was unmapped and was not flushed*",
        ]
    )
    result.assert_outcomes(passed=4, failed=6)


def test_an_architecture_that_there_is_not_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--pagetable-arch", "mips")
    said = "ERROR: there are no guests of 'mips' in this plugin: choose x86, riscv, arm64"
    result.stderr.fnmatch_lines([said])
    result = run(pytester, "--pagetable-arch", "s390")
    said = "ERROR: there are no guests of 's390' in this plugin (pagetable validate and matrix have"
    result.stderr.fnmatch_lines([f"{said} them): choose x86, riscv, arm64"])
    result = run(pytester, "--pagetable-arch", "riscv", "--pagetable-engine", "kvm")
    result.stderr.fnmatch_lines(["ERROR: there is no engine 'kvm': choose tcg"])


def test_an_unknown_engine_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester, "--pagetable-engine=abacus")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: there is no engine 'abacus': choose tcg or kvm or bochs"])


def test_a_project_without_such_tests_pays_nothing() -> None:
    code = "import harness.pytest_plugin, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
