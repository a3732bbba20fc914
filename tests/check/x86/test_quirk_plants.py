"""No quirk excuses a wrong reference: neither one that is wrong as the engine is, nor one that is
wrong beside it, under the same control state or on the same processor.

The faults are planted in the reference, and what is asked is the command.  Departures that no
usual QEMU has are planted in what the guest saw.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch
from typer.testing import CliRunner

from harness.check.quirk import expected_of
from harness.check.replay import Host
from harness.check.x86 import quirks, verdicts, witnesses
from harness.check.x86.entries import PathEntries
from harness.check.x86.matrix import chain as chains
from harness.cli import application
from harness.machine.machine import dotted
from harness.machine.x86.guest import Guest
from harness.paging.bulk import End
from harness.paging.format import Level
from harness.paging.memory import Mask, Words
from harness.paging.x86 import bulk as x86
from harness.paging.x86.access import Error, Kind, Vector
from harness.paging.x86.cpu import Cpu, Cr4
from harness.paging.x86.formats import PAT_LARGE
from harness.paging.x86.load import load
from tests.check.x86.plants import (
    PS,
    A,
    Plant,
    in_answer,
    in_push,
    in_question,
    mended,
    of_another_cpu,
    reserved_leaf,
)

pytestmark = pytest.mark.hw

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")


@pytest.fixture(autouse=True)
def _no_other_engine_is_asked(monkeypatch: MonkeyPatch) -> None:
    """What the others say of a disagreement is looked at by `test_witnesses`."""
    monkeypatch.setattr(witnesses, "this_host", lambda programs: Host({}, {}))


def lacking_present(patch: MonkeyPatch) -> None:
    """Faults for reserved bits lack P."""
    errors = x86._END_ERROR.copy()
    errors[End.MALFORMED] = Error.RSVD
    patch.setattr(x86, "_END_ERROR", errors)


def accessed_where_denied(patch: MonkeyPatch) -> None:
    """A is set in an entry of level 2 that maps a page, even if that denies the access."""
    true = PathEntries.after

    def planted(entries: PathEntries, made: Mask, accessed_anyway: Mask | None = None) -> Words:
        after = true(entries, made, accessed_anyway)
        large = (entries.before[2] & np.uint64(PS) != 0) & (entries.last[2] != 0)
        after[2] |= large * np.uint64(A)
        return after

    patch.setattr(PathEntries, "after", planted)


def pdptes_as_entries(patch: MonkeyPatch) -> None:
    """PDPTEs are read at every walk, and marked; bits above the address alone are reserved."""
    true = chains._walks

    def planted(cpu: Cpu, lanes: Any, pdpte_reserved: int | None) -> Any:
        return true(cpu, lanes, (1 << 64) - (1 << cpu.maxphyaddr))

    patch.setattr(chains, "_walks", planted)


def marked_pdptes(patch: MonkeyPatch) -> None:
    """PDPTEs are registers, but marked."""
    true = chains._walks

    def planted(cpu: Cpu, lanes: Any, pdpte_reserved: int | None) -> Any:
        walks, refused, _ = true(cpu, lanes, pdpte_reserved)
        return walks, refused, true(cpu, lanes, (1 << 64) - (1 << cpu.maxphyaddr))[2]

    patch.setattr(chains, "_walks", planted)


def refused_pdptes(bits: int) -> Plant:
    """More bits of a PDPTE are reserved."""

    def loaded(before: Cpu, after: Cpu, memory: Any) -> Any:
        pdptes = [memory.load(8 * number, 8) for number in range(4)]
        if any(raw & 1 and raw & bits for raw in pdptes):
            for number in range(4):
                memory.octets[8 * number] |= 2  # reserved, and present is seen to
        return load(before, after, memory)

    return lambda patch: patch.setattr(chains, "load", loaded)


def on(condition: Callable[[Cpu], bool], change: Callable[[int, Level], Level]) -> Plant:
    """The levels of the format are changed on some processors."""

    def plant(patch: MonkeyPatch) -> None:
        true = Cpu.__dict__["format"].func

        def planted(cpu: Cpu) -> Any:
            format = true(cpu)
            if not condition(cpu):
                return format
            levels = tuple(change(n, level) for n, level in enumerate(format.levels))
            return replace(format, levels=levels)

        patch.setattr(Cpu, "format", property(planted))

    return plant


def with_reserved(at: int, bits: int) -> Callable[[int, Level], Level]:
    """More bits are reserved in the entries of a level."""

    def changed(number: int, level: Level) -> Level:
        if number != at:
            return level
        assert level.pointer is not None
        more = level.pointer.reserved[0]._replace(mask=bits)
        return level.changed(
            lambda shape: (
                replace(shape, reserved=(*shape.reserved, more)) if shape.points else shape
            )
        )

    return changed


IMPLICIT_NOT = in_question(implicit=np.zeros_like)
RSVD_AS_ABSENT = in_answer(
    lambda out, _: replace(
        out, error=np.where(out.error & 8, out.error & ~np.uint32(9), out.error).astype(np.uint32)
    )
)
ON_ITS_OWN_PDPTE = "family=pdpte and register=2 and access=read and ac=0 and maxphyaddr=40"
BITS = "family=bits and access=read and by=user and ac=0 and XD=0 and P=1"

PLANTS: dict[str, tuple[str, str, Plant]] = {
    # As the engine is wrong.
    "a fault for a reserved bit lacks P": ("4", f"{BITS} and maxphyaddr=40", lacking_present),
    "a denied 1G page is accessed": (
        "4",
        "family=entry and level=2 and PS=1 and set=none and access=read and by=user and US=0"
        " and amd=0 and page1gb=1 and maxphyaddr=40",
        accessed_where_denied,
    ),
    "PS of a PDPTE is never reserved": (
        "4",
        f"{BITS} and level=2 and page1gb=0",
        of_another_cpu(page1gb=True),
    ),
    "a 4M page has 40 bits": (
        "32",
        "family=bits and level=1 and PS=1 and P=1 and maxphyaddr=36 and access=read",
        of_another_cpu(pse36=True, maxphyaddr=40),
    ),
    "bit 8 of a PML4E is ignored": (
        "4",
        f"{BITS} and level=3 and amd=1",
        of_another_cpu(amd=False),
    ),
    "a push is as any access": (
        "4",
        "family=place and access=push and level=0 and offset=first and by=user",
        in_push(Vector.GP),
    ),
    "an implicit access heeds AC": (
        "4",
        "family=rights and access=descriptor and by=supervisor",
        IMPLICIT_NOT,
    ),
    "PDPTEs are entries": ("pae", ON_ITS_OWN_PDPTE, pdptes_as_entries),
    "PDPTEs are marked": ("pae", ON_ITS_OWN_PDPTE, marked_pdptes),
    # Beside it.
    "without 1G pages bit 11 of a PDPTE is reserved": (
        "4",
        f"{BITS} and level=2 and page1gb=0",
        on(lambda cpu: not cpu.page1gb, with_reserved(2, 1 << 11)),
    ),
    "without 1G pages PS of a PDPTE makes it absent": (
        "4",
        f"{BITS} and level=2 and page1gb=0 and PS=1 and set=none",
        RSVD_AS_ABSENT,
    ),
    "without 1G pages PAT of a 2M page is reserved": (
        "4",
        f"{BITS} and level=1 and page1gb=0 and PS=1",
        on(
            lambda cpu: not cpu.page1gb,
            lambda n, level: reserved_leaf(level, PAT_LARGE) if n == 1 else level,
        ),
    ),
    "bit 8 of AMD's PDPTE is reserved": (
        "4",
        f"{BITS} and level=2 and amd=1 and G=1",
        on(lambda cpu: cpu.amd, with_reserved(2, 1 << 8)),
    ),
    "bit 9 of AMD's PML4E is reserved": (
        "4",
        f"{BITS} and level=3 and amd=1 and G=0",
        on(lambda cpu: cpu.amd, with_reserved(3, 1 << 9)),
    ),
    "without PSE-36 bit 9 of a 4M page's entry is reserved": (
        "32",
        "family=bits and pse36=0 and level=1 and PS=1 and P=1",
        on(
            lambda cpu: not cpu.pse36 and bool(cpu.cr4 & Cr4.PSE),
            lambda n, level: reserved_leaf(level, 1 << 9) if n else level,
        ),
    ),
    "bits 11:9 of a PDPTE are reserved": (
        "pae",
        "family=pdpte and access=read and maxphyaddr=40",
        refused_pdptes(0b111 << 9),
    ),
    "bits 11:9 of the address's own PDPTE are reserved": (
        "pae",
        ON_ITS_OWN_PDPTE,
        refused_pdptes(0b111 << 9),
    ),
    "a write to no canonical address is a stack fault": (
        "4",
        "family=place and access=write and level=0 and offset=first and by=user",
        in_answer(
            lambda out, kind: replace(
                out,
                vector=np.where(
                    (out.vector == Vector.GP) & (kind == Kind.WRITE), np.uint8(12), out.vector
                ),
            )
        ),
    ),
    "a stack fault writes CR2": (
        "4",
        "family=place and access=push and level=0 and offset=first and by=user",
        in_answer(lambda out, _: replace(out, sets_cr2=out.sets_cr2 | (out.vector == Vector.SS))),
    ),
    "an implicit access to a supervisor's page is denied": (
        "4",
        "family=rights and access=descriptor and by=supervisor and ac=1 and SMAP=1",
        in_answer(
            lambda out, _: replace(
                out,
                vector=np.full_like(out.vector, Vector.PF),
                error=np.where(out.vector == x86.ALLOWED, np.uint32(1), out.error),
                sets_cr2=np.ones_like(out.sets_cr2),
            )
        ),
    ),
}


def matrix(mode: str, where: str, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of the command, and what it prints; on one guest, so that faults are there."""
    arguments = ["matrix", "--mode", mode, "--where", where, "--jobs", "1", "--json", *options]
    result = CliRunner().invoke(application(arguments[0]), [*arguments, "--qemu", QEMU])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("name", PLANTS)
def test_a_fault_that_a_quirk_could_excuse_is_a_disagreement(
    name: str, monkeypatch: MonkeyPatch
) -> None:
    mode, where, plant = PLANTS[name]
    plant(monkeypatch)
    code, report = matrix(mode, where)
    assert (code, report["failure"]) == (1, None)
    assert report["disagreements"] > 0
    taken_for_anothers = [news for news in report["news"] if "does not name" in news]
    assert not taken_for_anothers


@pytest.mark.parametrize("name", PLANTS)
def test_without_the_fault_there_is_no_disagreement(name: str) -> None:
    mode, where, _ = PLANTS[name]
    code, report = matrix(mode, where)
    assert (code, report["disagreements"], report["news"]) == (0, 0, {})


# ---- and where it does not show ----

WHERE_IT_SHOWS = "family=bits and maxphyaddr=40 and set=51 and level=0"


@pytest.mark.parametrize(("options", "expected"), [((), 4), (("--allow-news",), 0)])
def test_a_quirk_that_does_not_show_is_an_exit_code_of_the_matrix(
    options: tuple[str, ...], expected: int, monkeypatch: MonkeyPatch
) -> None:
    mended(quirks.RESERVED_WITHOUT_PRESENT)(monkeypatch)
    code, report = matrix("4", WHERE_IT_SHOWS, *options)
    assert (code, report["disagreements"]) == (expected, 0)
    assert set(report["news"]) == {f"{quirks.RESERVED_WITHOUT_PRESENT.name} did not show"}


@pytest.mark.parametrize(("options", "expected"), [((), 4), (("--allow-news",), 0)])
def test_a_quirk_that_does_not_show_is_an_exit_code_of_validate(
    options: tuple[str, ...], expected: int, monkeypatch: MonkeyPatch
) -> None:
    shown = validated()[1]["quirks"][quirks.RESERVED_WITHOUT_PRESENT.name]
    mended(quirks.RESERVED_WITHOUT_PRESENT)(monkeypatch)
    code, report = validated(*options)
    assert (code, report["disagreements"]) == (expected, 0)
    assert report["news"] == {f"{quirks.RESERVED_WITHOUT_PRESENT.name} did not show": shown}


def test_what_is_amiss_is_told_beside_the_report(monkeypatch: MonkeyPatch) -> None:
    mended(quirks.RESERVED_WITHOUT_PRESENT)(monkeypatch)
    arguments = ["matrix", "--mode", "4", "--where", WHERE_IT_SHOWS, "--jobs", "1"]
    result = CliRunner().invoke(application(arguments[0]), [*arguments, "--qemu", QEMU])
    assert result.exit_code == 4
    assert "follow a rule from which the engine is known to depart" in result.stderr


@pytest.mark.parametrize("plant", [lacking_present, accessed_where_denied])
def test_validate_is_not_excused_either(plant: Plant, monkeypatch: MonkeyPatch) -> None:
    plant(monkeypatch)
    code, report = validated()
    assert (code, report["failure"]) == (1, None)
    assert report["disagreements"] > 0


def validated(*options: str, layout: str = "malformed") -> tuple[int, dict[str, Any]]:
    """The same of `pagetable validate`, about tables with reserved bits by default."""
    arguments = ["validate", layout, "--levels", "4", "--json", *options, "--qemu", QEMU]
    result = CliRunner().invoke(application(arguments[0]), arguments)
    return result.exit_code, json.loads(result.stdout)


# ---- an engine that departs where no address is canonical, made of one that does not ----

OF_8_2 = (quirks.NON_CANONICAL_SETS_CR2, quirks.USER_ADDRESS_UNCHECKED)
EVERY = quirks.FAULT_QUIRKS
AT_EDGES = "family=place and level=0 and offset=first and SMAP=0"
ACCESS_FETCH, ACCESS_DESCRIPTOR = 3, 5
"""The stub's numbers (guest/x86/protocol.h)."""


def canonical(addresses: Words, cr4: int) -> Words:
    """The addresses with the bits above those that are translated taken from the highest."""
    above = np.int64(64 - (57 if cr4 & Cr4.LA57 else 48))
    found: Words = (addresses.view(np.int64) << above >> above).view(np.uint64)
    return found


def departing_as_8_2(patch: MonkeyPatch) -> None:
    """User mode reaches what an address is without its upper bits; #GP writes the address to CR2.

    The guest is asked for what is there, and what it saw is told of the address that was asked.
    """
    run, start, finish, waiting = Guest.run, Guest.start, Guest.finish, list[Any]()

    def redirected(state: Any, jobs: Any) -> Any:
        jobs = jobs.copy()
        by_user = (jobs["user"] != 0) & (jobs["access"] != ACCESS_DESCRIPTOR)
        jobs["address"] = np.where(by_user, canonical(jobs["address"], state.cr4), jobs["address"])
        return jobs

    def told(results: Any, jobs: Any, ran: Any, cr4: int) -> Any:
        results, (asked, tried) = results.copy(), (jobs["address"], ran["address"])
        denied = (results["vector"] == Vector.PF) & (results["cr2"] == tried)
        denied |= (results["vector"] == Vector.GP) & (tried != canonical(tried, cr4))
        np.copyto(results["cr2"], asked, where=denied & (results["completed"] == 0))
        code = jobs["access"] == ACCESS_FETCH
        results["rip"][code] += (asked - tried)[code]
        return results

    def started(guest: Guest, state: Any, jobs: Any) -> None:
        waiting.append((jobs, redirected(state, jobs), state.cr4))
        start(guest, state, waiting[-1][1])

    def ran(guest: Guest, state: Any, jobs: Any) -> Any:
        other = redirected(state, jobs)
        return told(run(guest, state, other), jobs, other, state.cr4)

    patch.setattr(Guest, "run", ran)
    patch.setattr(Guest, "start", started)
    patch.setattr(Guest, "finish", lambda guest: told(finish(guest), *waiting.pop(0)))


def named(*chosen: quirks.FaultQuirk) -> Plant:
    """Of the quirks of 8.2.2 those that are chosen are expected of every version, no others."""
    others = [one for one in EVERY if one not in OF_8_2]
    always = [replace(one, since=(0,), until=None, again=()) for one in chosen]
    never = [replace(one, since=(99,), until=None, again=()) for one in OF_8_2 if one not in chosen]

    def plant(patch: MonkeyPatch) -> None:
        for module in (quirks, verdicts):
            patch.setattr(module, "FAULT_QUIRKS", (*others, *always, *never))

    return plant


def at_edges(mode: str) -> tuple[int, dict[str, Any], int]:
    """What the command says where addresses are canonical and where not, and how many are not."""
    code, report = matrix(mode, AT_EDGES)
    assert report["failure"] is None
    return code, report, report["rules"][mode]["not-canonical"]


CR2, UNCHECKED = (quirk.name for quirk in OF_8_2)


@pytest.mark.parametrize("mode", ["4", "5"])
def test_an_engine_that_departs_as_8_2_2_is_excused_in_just_these_lanes(
    mode: str, monkeypatch: MonkeyPatch
) -> None:
    departing_as_8_2(monkeypatch)
    named(*OF_8_2)(monkeypatch)
    code, report, accesses = at_edges(mode)
    assert (code, report["disagreements"], report["news"]) == (0, 0, {})
    shown = report["quirks"]
    assert shown[CR2] == shown[UNCHECKED] == accesses / 2, "half are the user's"


@pytest.mark.parametrize("mode", ["4", "5"])
def test_a_departure_as_that_of_8_2_2_is_a_disagreement_of_other_versions(
    mode: str, monkeypatch: MonkeyPatch
) -> None:
    departing_as_8_2(monkeypatch)
    named()(monkeypatch)
    code, report, accesses = at_edges(mode)
    assert (code, report["disagreements"]) == (1, accesses)


@pytest.mark.parametrize("quirk", OF_8_2, ids=lambda quirk: quirk.name)
def test_neither_departure_of_8_2_2_is_excused_by_the_other(
    quirk: quirks.FaultQuirk, monkeypatch: MonkeyPatch
) -> None:
    departing_as_8_2(monkeypatch)
    named(quirk)(monkeypatch)
    code, report, accesses = at_edges("4")
    assert (code, report["disagreements"], report["quirks"][quirk.name]) == (
        *(1, accesses / 2),
        accesses / 2,
    )


@pytest.mark.parametrize("quirk", OF_8_2, ids=lambda quirk: quirk.name)
def test_a_later_version_that_departs_as_8_2_2_is_told_the_name_of_that(
    quirk: quirks.FaultQuirk, monkeypatch: MonkeyPatch
) -> None:
    departing_as_8_2(monkeypatch)
    named(*(other for other in OF_8_2 if other is not quirk))(monkeypatch)
    _, report, accesses = at_edges("4")
    [(sentence, count)] = report["news"].items()
    assert sentence.startswith(f"{quirk.name} shows on tcg ")
    assert count == accesses / 2


def user_unchecked(patch: MonkeyPatch) -> None:
    """The user's addresses are walked by whether canonical or not."""
    true = chains.foresee

    def planted(chain: Any, cpu: Cpu, question: Any, *rest: Any) -> Any:
        lanes = question.lanes
        walked = np.where(lanes.user, canonical(lanes.address, cpu.cr4), lanes.address)
        return true(chain, cpu, question, None, walked)

    patch.setattr(chains, "foresee", planted)


WRONG_AS_8_2: dict[str, Plant] = {
    "the user's addresses are not checked": user_unchecked,
    "a fault for the address writes CR2": in_answer(
        lambda out, _: replace(out, sets_cr2=out.sets_cr2 | (out.vector == Vector.GP))
    ),
    "a read by no canonical address is a stack fault": in_answer(
        lambda out, kind: replace(
            out,
            vector=np.where(
                (out.vector == Vector.GP) & (kind == Kind.READ), np.uint8(Vector.SS), out.vector
            ),
        )
    ),
}


@pytest.mark.parametrize("plant", WRONG_AS_8_2.values(), ids=WRONG_AS_8_2)
def test_a_reference_that_is_wrong_where_8_2_2_departs_disagrees(
    plant: Plant, monkeypatch: MonkeyPatch
) -> None:
    departing_as_8_2(monkeypatch)
    named(*OF_8_2)(monkeypatch)
    plant(monkeypatch)
    code, report = matrix("4", AT_EDGES)
    assert (code, report["failure"]) == (1, None)
    assert report["disagreements"] > 0


def mends_8_2() -> str | None:
    """Why no mended engine is there."""
    with Guest("tcg", program=QEMU) as guest:
        version = guest.version
    there = any(expected_of(one, "tcg", version) for one in OF_8_2)
    return f"QEMU {dotted(version)} departs itself" if there else None


def test_departures_of_8_2_2_that_do_not_show_are_news(monkeypatch: MonkeyPatch) -> None:
    if reason := mends_8_2():
        pytest.skip(reason)
    named(*OF_8_2)(monkeypatch)
    code, report, accesses = at_edges("4")
    assert (code, report["disagreements"]) == (4, 0)
    told = {f"{name} did not show": accesses / 2 for name in (CR2, UNCHECKED)}
    assert report["news"] == told


@pytest.mark.parametrize("layout", ["smallest", "halves", "malformed"])
def test_validate_excuses_an_engine_that_departs_as_8_2_2(
    layout: str, monkeypatch: MonkeyPatch
) -> None:
    departing_as_8_2(monkeypatch)
    named(*OF_8_2)(monkeypatch)
    code, report = validated(layout=layout)
    assert (code, report["disagreements"], report["news"]) == (0, 0, {})
    assert report["quirks"][CR2] > 0 and report["quirks"][UNCHECKED] > 0


def test_validate_says_what_does_not_show_or_has_no_name(monkeypatch: MonkeyPatch) -> None:
    if reason := mends_8_2():
        pytest.skip(reason)
    named(*OF_8_2)(monkeypatch)
    code, report = validated(layout="smallest")
    assert (code, report["disagreements"]) == (4, 0)
    counts = {name: report["news"][f"{name} did not show"] for name in (CR2, UNCHECKED)}
    departing_as_8_2(monkeypatch)
    named()(monkeypatch)
    code, report = validated(layout="smallest")
    assert (code, report["disagreements"]) == (1, sum(counts.values()))
    named_there = {line.partition(" shows on ")[0]: n for line, n in report["news"].items()}
    assert named_there == counts
