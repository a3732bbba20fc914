"""What commands print as JSON is what is documented, both ways: no other key is printed, and none
is documented that never comes."""

from __future__ import annotations

import copy
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from harness.check import workers
from harness.check.x86 import probes, validate, witnesses
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.stage import Control
from harness.cli import application, decode
from harness.inspect.decode import Role
from harness.inspect.lint import Severity
from harness.inspect.select import KINDS
from harness.machine.errors import MachineError
from harness.machine.foreign import ForeignMonitor
from harness.machine.x86.registry import ENGINES
from harness.paging import arm64, power, riscv, s390
from harness.paging.address import Virtual
from harness.paging.x86.access import Reason, Vector
from harness.paging.x86.cpu import Mode
from harness.report.diff import NAMES
from harness.report.objects import rule_name
from harness.report.schema import COMMANDS, schema
from tests.check.x86 import plants
from tests.cli.commands import run
from tests.cli.programs import MEANT, TEXT, Program
from tests.cli.test_rules_command import REPORT, differing
from tests.cli.test_validate_command import wrong
from tests.flushes import guests
from tests.inspect.sources.machines import STUB, running
from tests.inspect.x86 import oopses
from tests.machine.riscv.present import program as qemu_riscv
from tests.machine.riscv.present import why_absent

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
WHOLE = schema()
DEFINITIONS = WHOLE["$defs"]
ON_MACHINES = {"check", "flushes", "validate", "matrix", "prove"}
LAYOUTS = ("aliases", "malformed", "self-map", "page-sizes", "rights", "edges-57", "without-nxe")
PAE = ("--ram", "pae", "--cr3", 0, "--cr4", "0x20", "--efer", 0)
WIDE = "0xffff_8000_4000_0000"
SWAPPED = "0x1fffffffffdb9604"

SHOWN = (
    "outcome",
    "remedy",
    "translation",
    "step",
    "walk",
    "bits",
    "place",
    "slot",
    "riscv_cpu",
    "arm64_cpu",
    "s390_cpu",
    "power_cpu",
)
"""What `prove` shows of accesses, as `fault` does."""

FEW_VALUES = 4
"""How many values `decode` takes here at once: a thousand print the same keys."""

Outputs = dict[str, list[Any]]


def questions() -> Iterator[tuple[object, ...]]:
    """Every way to ask each command that needs no machine."""
    for layout in LAYOUTS:
        of = ("--layout", layout, "--limit", 20)
        yield from [("dump", *of), ("dump", "--expand", *of), ("lint", *of)]
        yield from [("find", way, *of) for way in ("--tables", "--aliases")]
        yield "find", "0x2004008", "0x3001000", *of
        yield "fault", "0x400000", "--layout", layout
    for mode in ("32", "pae", "4", "5"):
        yield from [("decode", raw, "--mode", mode) for raw in ("0", "0xe7", "0xfffffe67")]
    yield from [("decode", raw, "--level", 0, "--linux") for raw in (SWAPPED, "0xe7", "0x100")]
    yield "decode", *["pte=1"] * (FEW_VALUES + 1)
    yield "decode", "cr3=2067"
    sizes = ("--layout", "page-sizes", "--levels", 4)
    yield "walk", WIDE, "0x1000", "0x8000_0000_0000", *sizes, "--linux"
    yield "walk", "0x401000", "--layout", "malformed"
    yield from [("walk", "0x1000", *PAE), ("fault", "0xc0000000", *PAE), ("dump", *PAE)]
    yield "fault", WIDE, "--access", "fetch", "--user", *sizes
    yield "fault", WIDE, "--access", "push", "--supervisor", *sizes, "--cr0", "0x80000001"
    yield "fault", "0x8000_0000_0000", "--implicit", *sizes
    yield "fault", "0x400000", "--layout", "smallest", "--levels", 4, "--cr4", "0x2000a0", "--no-ac"
    yield "fault", "0x8", "--layout", "smallest"
    yield "fault", "--code", "0x1c"
    some = ("--entries", "PMD=2067 PTE=8000000000003061")
    yield from [("fault", "0x1000", *some), ("walk", "0x1000", *some)]
    yield "fault", "0x1000", "--entries", "PMD=0"
    yield "decode", "pte=2067", "--c-bit", 47
    yield "decode", "pte=2067", "--shared-bit", 51
    yield "walk", "0x1000", "--entries", "PGD=1067 PUD=2067"
    yield from [("fault", "0x0", *PAE), ("fault", "0x0", "--ram", "pae", "--cr3", 0, "--cr4", 0)]
    yield "fault", "--code", 7, "--cr2", WIDE, "--rip", WIDE, *sizes
    yield "fault", "--code", 6, "--cr2", WIDE, *sizes
    for name in ("inverted", "bad-map", "segfault", "hashed"):
        yield "fault", "--oops", name
    told = ("fault", "--oops", "inverted", "--ram", "pae", "--cr3")
    yield from [(*told, one) for one in ("0x0", "0x2000")]
    yield "diff", "layout:halves@4", "layout:smallest@4"
    yield "diff", "layout:malformed@5", "layout:self-map@5", "--pat", "0x0007040600070406"
    yield "diff", "layout:smallest", "layout:smallest"
    yield "rules", "--from", "report.json"
    for layout in ("rights", "self-map", "page-sizes"):
        hart: tuple[object, ...] = ("--layout", f"riscv/{layout}")
        yield from [("dump", *hart), ("lint", *hart), ("walk", "0x400000", *hart)]
    hart = ("--layout", "riscv/rights", "--levels", 3)
    yield "fault", "0", *hart
    yield from [("fault", f"{page:#x}", *hart) for page in (0x405000, 0x40E000, 1 << 40)]
    yield "fault", "0x408000", "--access", "amo", *hart, "--menvcfg", 0
    yield from [("fault", "0x409123", "--code", cause, *hart) for cause in (5, 13)]
    yield "decode", "1", "satp=8000000000082000", "--mode", "sv39"
    yield "find", "0x83004000", *hart
    for layout in ("rights", "table-rights", "lpa2"):
        cpu: tuple[object, ...] = ("--layout", f"arm64/{layout}")
        yield from [("dump", *cpu), ("lint", *cpu), ("walk", "0x400000", *cpu)]
    cpu = ("--layout", "arm64/rights")
    yield from [
        ("fault", f"{page:#x}", *cpu)
        for page in (0x403000, 0x40C000, 0x700000, 1 << 50, 0xDEAD000000000122)
    ]
    yield "fault", "0x40c000", *cpu, "--sctlr", "0x80001", "--pstate", "0x400000"
    yield "fault", "0x40c000", *cpu, "--ttbr0", "0x42000000", "--tcr", "0x580900010"
    yield "fault", "0x403000", "--esr", "0x9200004f", *cpu
    yield "fault", "--esr", "0x9200004f"
    yield "walk", "ffff800080210123", "--entries", "pgd=42a53003 pte=0", "--tcr", "0x580100010"
    yield "walk", "0x401000", "--entries", "PGD=42a53003 PTE=0", "--satp", "8000000000000000"
    yield "decode", "3", "ttbr0=42000000", "tcr=580100010", "--mode", "4k"
    for layout in ("rights", "malformed", "one-quarter"):
        space: tuple[object, ...] = ("--layout", f"s390/{layout}")
        yield from [("dump", *space), ("lint", *space), ("walk", "0x400000", *space)]
    space = ("--layout", "s390/rights")
    yield from [("fault", f"{page:#x}", *space) for page in (0x402000, 0x500000, 0x900000)]
    yield "fault", "0x10", *space, "--levels", 2
    yield "fault", hex(1 << 40), *space, "--levels", 2
    yield "fault", "--code", "4", "--teid", "0x402404", *space
    yield "decode", "0x420", "asce=0x2000003", "--mode", "segment"
    for layout in ("rights", "page-sizes", "malformed"):
        cpu = ("--layout", f"power/{layout}")
        yield from [("dump", *cpu), ("lint", *cpu), ("walk", "0x400000", *cpu)]
    cpu = ("--layout", "power/rights")
    yield from [("fault", f"{page:#x}", *cpu) for page in (0, 0x402000, 0x420000, 1 << 52)]
    yield "fault", "0x400000", *cpu, "--amr", "0xc000000000000000"
    yield "fault", "0", "--layout", "power/rights", "--quadrant3", "0"
    yield "fault", "0x402000", "--dsisr", "0x42000000", *cpu
    yield "fault", "--srr1", "0x50009033"
    yield "fault", "0x9000", "--dsisr", "0x40000000"
    yield "find", "0x8000000", *cpu
    words = ("0xc000000008000187", "ptcr=51000", "quadrant0=20000ad", "quadrant3=20000ad")
    yield "decode", *words, "--mode", "radix-4k", "--linux"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """What the commands print, by command."""
    directory, found = tmp_path_factory.mktemp("json"), defaultdict(list)
    (directory / "pae").write_bytes((0x2001).to_bytes(8, "little") + bytes(0xFF8))
    (directory / "hashed").write_text(oopses.HASHED.replace("pmd:2d5f", "pmd:800002d5f"))
    for name in ("INVERTED", "BAD_MAP", "SEGFAULT"):
        (directory / name.lower().replace("_", "-")).write_text(oopses.EVERY[name])
    broken = {**REPORT, "findings": [differing()], "failure": "the guest is lost."}
    (directory / "report.json").write_text(json.dumps(broken))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "MOST_VALUES", FEW_VALUES)
        for question in questions():
            found[str(question[0])].append(asked(directory, *question))
    return found


@pytest.fixture(scope="module")
def machine_outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """The same of those that run a guest: one where all agree, and one where nothing goes well."""
    directory, found = tmp_path_factory.mktemp("json"), defaultdict(list)
    layouts = ("validate", "without-nxe", "smallest", "--engine", "tcg", "--qemu", QEMU)
    where = ("--where", "family=rights and access=write")
    accesses = ("matrix", "--mode", 4, *where, "--engine", "tcg", "--qemu", QEMU)
    program = proof(directory)
    with running(directory, *STUB) as machine:
        foreign = ("check", "--qmp", machine.path)
        for question in (layouts, accesses, foreign, program):
            found[str(question[0])].append(asked(directory, *question))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ForeignMonitor, "translations", lambda _, all: [at + 1 for at in all])
            patch.setattr(probes, "outcomes", wrong)
            plants.error_bits(cleared=plants.W_ERROR)(patch)
            patch.setattr(validate, "lacking", lambda _, levels, __: "no" * (levels - 4) or None)
            patch.setattr(witnesses, "ENGINES", {"tcg": ENGINES["tcg"]})
            patch.setattr(Control, "lacks", lambda self, _: "no SMAP" if self.smap else None)
            for module, name in ((workers, "validate_all"), (matrix, "run")):
                patch.setattr(module, name, failing(getattr(module, name)))
            for question in (layouts, accesses, foreign, program):
                found[str(question[0])].append(asked(directory, *question))
    found["flushes"] = [*watched(directory)]
    return found


def watched(directory: Path) -> Iterator[Any]:
    """What `flushes` prints of a guest that never runs, and of some that forget many."""
    command = guests.command(QEMU, 4)
    names = ("--symbols", guests.guest(4))
    asked: list[tuple[tuple[object, ...], list[str]]]
    asked = [(("--limit", 0.5), [*command, "-S"]), (names, command)]
    if not why_absent(64):
        asked.append(((), guests.command(qemu_riscv(64), "sv39")))
    for options, words in asked:
        _, out, errors = run("flushes", "--json", *options, "--", *words, cwd=directory)
        assert out.count("\n") == 1, errors
        yield json.loads(out)


def proof(directory: Path) -> tuple[object, ...]:
    """A question about a program's tables that are in no way as they should be."""
    made = Program(stack=0x7F24_7456_7000)
    made.write(TEXT, 0, made.space.read(made.space.slot(Virtual(TEXT), 0)) | 2)
    made.write(1 << 30, 1, 0x1007)
    (directory / "meant.toml").write_text(MEANT)
    source = made.save(directory / "program.bin")
    return ("prove", *source, "--expect", "meant.toml", "--engine", "tcg", "--qemu", QEMU)


def failing(work: Any) -> Any:
    """The same work, after which the machine fails."""

    def failed(*given: Any, **more: Any) -> Iterator[Any]:
        yield from work(*given, **more)
        raise MachineError("planted")

    return failed


def asked(directory: Path, *question: object) -> Any:
    """What a command prints: one object, on one line, and nothing else."""
    _, out, errors = run(*question, "--json", cwd=directory)
    assert out.count("\n") == 1 and out.endswith("\n"), errors
    return json.loads(out)


def wrong_in(told: Any, command: str) -> list[str]:
    """What is not as it is documented."""
    found = Draft202012Validator(schema(command)).iter_errors(told)
    return [f"{one.json_path}: {one.message}" for one in found]


def may_be(value: Any, part: Any) -> bool:
    """Whether a value can be of an alternative, by its own keys alone."""
    part = DEFINITIONS[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    if "properties" in part:
        return isinstance(value, dict) and {*part["required"]} <= {*value} <= {*part["properties"]}
    is_null: bool = part.get("type") == "null"
    return is_null == (value is None)


def keys(part: Any, at: str, value: Any = ...) -> Iterator[str]:
    """The keys, each with where it is defined, that come in a value and are not null; without a
    value, all that part of a schema has."""
    if "$ref" in part:
        at = part["$ref"].rpartition("/")[2]
        part = DEFINITIONS[at]
    alternatives = [one for one in part.get("anyOf", ()) if value is ... or may_be(value, one)]
    for inner in alternatives:
        if (
            value is ...
            or len(alternatives) == 1  # the value is as it is documented: that was asked before
            or Draft202012Validator({"$defs": DEFINITIONS, **inner}).is_valid(value)
        ):
            yield from keys(inner, at, value)
    for key, inner in part.get("properties", {}).items():
        held = ... if value is ... else value[key]
        if held is not None:
            yield f"{at}.{key}"
            yield from keys(inner, f"{at}.{key}", held)
    if "items" in part:
        for held in [...] if value is ... else value:
            yield from keys(part["items"], f"{at}[]", held)


def never_come(outputs: Outputs) -> set[str]:
    """The keys of these commands that are documented and come in nothing that they printed."""
    documented = {key for command in outputs for key in keys(DEFINITIONS[command], command)}
    return documented - {
        key
        for command, told in outputs.items()
        for one in told
        for key in keys(DEFINITIONS[command], command, one)
    }


def test_what_is_printed_is_what_is_documented(outputs: Outputs) -> None:
    assert set(outputs) == set(COMMANDS) - ON_MACHINES
    for command, told in outputs.items():
        assert [wrong for one in told for wrong in wrong_in(one, command)] == []
    # A snapshot of a running guest alone has memory that was not read; of others than
    # x86 nothing is said of pointers that were never meant as such.
    outcomes = ("outcome", "riscv_outcome", "arm64_outcome", "s390_outcome", "power_outcome")
    unread = {f"{one}.remedies[].unread" for one in outcomes}
    # Of POWER's processors one in a running QEMU older than 8.0 alone sets R and C.
    unread |= {f"power_outcome.sets[].{one}" for one in ("entry", "level", "name", "raw", "slot")}
    assert never_come(outputs) == unread


@pytest.mark.hw
def test_what_is_printed_of_machines_is_what_is_documented(machine_outputs: Outputs) -> None:
    assert set(machine_outputs) == ON_MACHINES
    for command, told in machine_outputs.items():
        assert [wrong for one in told for wrong in wrong_in(one, command)] == []
        if command == "flushes":
            verdicts = [one["verdict"] for one in told]
            assert verdicts == ["unwatched", "missing"] + ["missing"] * (not why_absent(64))
        else:
            assert [bool(one["disagreements"]) for one in told] == [False, True]
    # PAE and encrypted memory are not what they compare; what an access comes to is what other
    # commands show too.
    shown: tuple[str, ...] = SHOWN
    if why_absent(64):
        shown = (*SHOWN, "riscv_flushes_seen", "riscv_flushes_ended")
    missing = {key for key in never_come(machine_outputs) if key.partition(".")[0] not in shown}
    assert missing == {"cpu.pdptes", "cpu.c_bit", "cpu.shared_bit"}


def test_the_whole_schema_takes_the_output_of_every_command(outputs: Outputs) -> None:
    validator = Draft202012Validator(WHOLE)
    Draft202012Validator.check_schema(WHOLE)
    for told in outputs.values():
        validator.validate(told[0])


def test_every_key_says_what_it_holds() -> None:
    def undescribed(part: Any, at: str) -> Iterator[str]:
        if "type" in part or "enum" in part or "const" in part or "$ref" in part or "anyOf" in part:
            described = part.get("description", "")
            if described[-1:] != "." or not described[0].isupper():
                yield at
        for key, inner in part.get("properties", {}).items():
            yield from undescribed(inner, f"{at}.{key}")
        for inner in part.get("anyOf", ()):
            yield from undescribed({**inner, "description": part["description"]}, at)
        if "items" in part:
            yield from undescribed(part["items"], f"{at}[]")

    assert [at for name, part in DEFINITIONS.items() for at in undescribed(part, name)] == []


def test_every_object_is_closed() -> None:
    def objects(part: Any) -> Iterator[Any]:
        if isinstance(part, dict):
            if "properties" in part:
                yield part
            part = [*part.values()]
        if isinstance(part, list):
            for inner in part:
                yield from objects(inner)

    for one in objects(DEFINITIONS):
        assert one["additionalProperties"] is False
        assert one["required"] == list(one["properties"])


@pytest.mark.parametrize("command", ["decode", "walk", "fault", "dump", "find", "lint"])
def test_another_key_and_a_renamed_one_are_found_wherever_they_are(
    outputs: Outputs, command: str
) -> None:
    """In these every object is one with keys, none counts by names."""

    def objects(part: Any) -> Iterator[dict[str, Any]]:
        if isinstance(part, dict):
            yield part
            part = [*part.values()]
        if isinstance(part, list):
            for inner in part[:1]:
                yield from objects(inner)
            for inner in part[1:]:
                yield from objects(inner)

    told = copy.deepcopy(min(outputs[command], key=lambda one: len(json.dumps(one))))
    for one in list(objects(told)):
        one["planted"] = None
        assert wrong_in(told, command)
        del one["planted"]
        key = next(iter(one))
        one[f"{key}s"] = one.pop(key)
        assert wrong_in(told, command)
        one[key] = one.pop(f"{key}s")
    assert wrong_in(told, command) == []


def names(*path: str) -> set[str]:
    """The names that a key may have, by where it is defined."""
    part = DEFINITIONS[path[0]]
    for key in path[1:]:
        part = part["properties"][key]
        part = part.get("items", part)
        part = part.get("anyOf", [part])[0]
        part = part.get("items", part)
    return set(part["enum"])


LOADS = {
    *(Reason.CR0_INVALID, Reason.CR3_RESERVED, Reason.CR4_RESERVED, Reason.PDPTE_RESERVED),
    *(Reason.LA57_CHANGED, Reason.PAE_CLEARED, Reason.PCIDE_SET, Reason.CET_WITHOUT_WP),
}
"""Reasons that are no access's."""

RULES = {*(set(Reason) - LOADS), *riscv.Reason, *arm64.Reason, *power.Reason, *s390.Reason}


@pytest.mark.parametrize(
    ("documented", "known"),
    [
        (names("cpu", "mode"), {mode.value for mode in Mode}),
        (names("decode", "readings", "parts", "role"), {role.name.lower() for role in Role}),
        (names("range", "kind"), set(KINDS.values())),
        (names("diff", "changes", "change"), set(NAMES.values())),
        (names("lint", "broken", "severity"), {one.value for one in Severity}),
        (names("outcome", "vector"), {vector.name for vector in Vector}),
        (names("outcome", "rule"), {rule_name(one) for one in RULES}),
        (names("translation", "rule"), {rule_name(one) for one in RULES}),
        (names("riscv_cpu", "mode"), {mode.value for mode in riscv.Mode}),
    ],
    ids=lambda names: " ".join(sorted(names)),
)
def test_the_names_are_those_of_the_library(documented: set[str], known: set[str]) -> None:
    assert documented == known


def test_the_command_prints_the_schema_of_one_command_or_of_all(tmp_path: Path) -> None:
    assert json.loads(run("schema", cwd=tmp_path)[1]) == WHOLE
    assert json.loads(run("schema", "walk", cwd=tmp_path)[1]) == schema("walk")
    code, out, errors = run("schema", "explore", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert errors.startswith("pagetable: 'explore' prints no JSON: choose one of decode, walk, ")


def test_the_commands_are_those_that_have_the_option(tmp_path: Path) -> None:
    commands = [
        str(command.callback.__name__)
        for command in application().registered_commands
        if command.callback
    ]
    having = {one for one in commands if "--json" in run(one, "--help", cwd=tmp_path)[1]}
    assert having - {"schema"} == set(COMMANDS)
