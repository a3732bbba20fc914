"""Cases as files, changed in every place, for the tests of architectures."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.check import replay as files
from harness.check.replay import CaseError
from tests.cli.commands import run


def kept(case: Any, tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(case.save(tmp_path).read_text())
    return found


def refused(content: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CaseError) as caught:
        files.saved(path)
    assert str(caught.value).startswith(f"{path} holds no case: ")
    return str(caught.value)


OTHERS: tuple[Any, ...] = (None, True, 40.5, 10**30, "no number of any kind", [], {"a": 1})
"""A value of every type that JSON has."""


def places(content: Any, *so_far: Any) -> Iterator[tuple[Any, ...]]:
    """Every place in a file, by keys and numbers."""
    items: Any = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    for key, value in items:
        yield (*so_far, key)
        yield from places(value, *so_far, key)


def changed(content: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(content)
    inner: Any = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return made


def refuses_other_types(case: Any, tmp_path: Path) -> None:
    """Holds that a file is refused where any value in it is of another type."""
    content = kept(case, tmp_path)
    for place in places(content):
        value: Any = content
        for key in place:
            value = value[key]
        for other in OTHERS:
            alike = isinstance(value, str) and not value.startswith("0x")
            if type(other) is type(value) and (alike or isinstance(value, bool)):
                continue
            if place == ("access",) and other is None:
                continue  # which goes with another oracle
            refused(changed(content, place, other), tmp_path)


def agrees_now(case: Any, qemu: str, tmp_path: Path) -> str:
    """Holds that a case that is saved agrees when the command asks it again; what that prints."""
    path = case.save(tmp_path)
    code, output, _ = run("replay", path, "--qemu", qemu, cwd=tmp_path)
    assert code == 0 and "They agree now." in output
    return output


def agrees_on_every_engine(case: Any, qemu: str, tmp_path: Path) -> None:
    """The same, asked of every engine."""
    path = case.save(tmp_path)
    code, output, _ = run("replay", path, "--qemu", qemu, "--engine", "all", cwd=tmp_path)
    assert code == 0 and "as expected" in output


def no_engine_answers(witnesses: Any, case: Any) -> None:
    """Holds that no engine says anything of a case where there is no QEMU."""
    host = witnesses.this_host({"QEMU": "no-such-qemu"})
    [(number, answer)] = witnesses.ask_every([case], host)
    assert (number, answer.agrees) == (0, None)
    assert "it cannot run here: " in answer.said and "no-such-qemu" in answer.said
