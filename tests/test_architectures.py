"""Each architecture that is listed has in every layer what is asked of it there."""

from __future__ import annotations

from enum import Enum

import pytest

from harness.architectures import NAMES, USUAL, has
from harness.check import matrix
from harness.check.layouts import described, load, shipped
from harness.check.matrix import matrix_of, reasons_of, with_matrix
from harness.check.quirk import Quirk, known_of
from harness.check.replay import replays_of
from harness.check.validation import validate_of
from harness.inspect import architecture
from harness.inspect.snapshot import SourceError
from harness.machine.errors import Misuse
from harness.machine.machine import Engine
from harness.machine.registry import engine_named, engines_of


@pytest.mark.parametrize("arch", NAMES)
def test_it_has_engines_by_their_names(arch: str) -> None:
    engines = engines_of(arch)
    assert engines and all(isinstance(one, Engine) for one in engines.values())
    assert {name: engine_named(name, arch) for name in engines} == engines
    assert any(one.by_default for one in engines.values())
    with pytest.raises(Misuse, match="there is no engine 'abacus'"):
        engine_named("abacus", arch)


@pytest.mark.parametrize("arch", NAMES)
def test_it_has_layouts_in_a_folder_of_its_own(arch: str) -> None:
    layouts = [load(path) for path in shipped(arch)]
    assert layouts and {one.arch for one in layouts} == {arch}
    assert {n for one in layouts for n in one.levels} == set(described(arch).modes)
    assert len({described(one).folder for one in NAMES}) == len(NAMES)


@pytest.mark.parametrize("arch", NAMES)
def test_its_layouts_are_validated_and_departures_have_names(arch: str) -> None:
    assert callable(validate_of(arch))
    known = known_of(arch)
    assert all(isinstance(one, Quirk) and one.name == name for name, one in known.items())


@pytest.mark.parametrize("arch", with_matrix())
def test_its_matrix_has_modes_and_presets_and_rules(arch: str) -> None:
    of = matrix_of(arch)
    assert of.USUAL_MODE in of.MODES and "quick" in of.PRESETS and of.UNSEEN
    assert callable(of.planned) and callable(of.run)
    assert issubclass(reasons_of(arch), Enum)


@pytest.mark.parametrize("arch", [one for one in NAMES if has(one, "check", "witnesses")])
def test_its_cases_are_asked_again(arch: str) -> None:
    replays = replays_of(arch)
    for name in ("case_of", "saved", "on", "replayed", "this_host", "ask_every"):
        assert callable(getattr(replays, name))


def test_one_without_a_matrix_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "NAMES", (*NAMES, "abacus"))
    assert "abacus" not in with_matrix() and USUAL in with_matrix()
    with pytest.raises(Misuse, match="abacus has no matrix: `pagetable validate --arch abacus`"):
        matrix_of("abacus")


def test_one_whose_tables_no_command_reads_says_so() -> None:
    with pytest.raises(SourceError, match="tables of abacus are read by the library, validate and"):
        architecture.named("abacus")
