"""A disagreement as a file, and the same question asked again.

A case is self-contained: it carries the text of the layout, so that it can be replayed on
another machine and after the layout has changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.check import debugger, written
from harness.check.cases import KINDS
from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.layouts import parse
from harness.check.validate import SpaceReport, build_in, compare_one, guest_for, lacking
from harness.machine.errors import Misuse
from harness.paging.x86.access import Access

KIND = "layout"
"""What a case file says of itself: a question about a layout."""

ORACLES = (
    PROBE,
    debugger.TABLE_BYTES,
    debugger.MONITOR_MEMORY,
    debugger.INFO_TLB,
    debugger.GVA2GPA,
    debugger.MEMSAVE,
)


class CaseError(ValueError):
    """A file that holds no case: a sentence that says where and why."""


@dataclass(frozen=True)
class Case:
    """One question about a layout, and the answers that it got.

    layout, text  the name of the layout, and what its file says
    qemu          the version that answered
    the rest      as in SpaceReport and Disagreement
    """

    layout: str
    text: str
    levels: int
    engine: str
    qemu: str
    oracle: str
    address: int
    access: Access | None
    ac: bool
    expected: str
    observed: str

    @classmethod
    def of(cls, space: SpaceReport, found: Disagreement) -> Case:
        """A disagreement about a space."""
        return cls(
            space.layout.name,
            space.layout.text,
            space.levels,
            space.engine,
            space.qemu,
            found.oracle,
            found.address,
            found.access,
            found.ac,
            found.expected,
            found.observed,
        )

    @property
    def question(self) -> str:
        """What was asked, for people."""
        access = f"{self.access}{', AC set' if self.ac else ''} at " if self.access else ""
        return f"{self.oracle}: {access}{self.address:#x}"

    @property
    def title(self) -> str:
        """What was asked of whom, for people."""
        return f"{self.layout}, {self.levels} levels, {self.engine}, {self.question}"

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""
        title = f"{self.layout} {self.levels} {self.engine} {self.question}"
        return write(directory, title, self._object())

    def _object(self) -> dict[str, Any]:
        access = self.access
        return {
            **vars(self),
            "case": KIND,
            "address": f"{self.address:#x}",
            "access": access and {"kind": access.kind.name.lower(), "user": access.user},
        }


LONGEST_NAME = 240
"""Characters of a file's name, of which the first are left out where it has more."""


def write(directory: Path, title: str, content: Mapping[str, Any]) -> Path:
    """Writes a case of any kind to the file that its title names; OSError where that fails."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", title)
    if len(name) > LONGEST_NAME:
        name = name[-LONGEST_NAME:].partition("-")[2] or name[-LONGEST_NAME:]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    written.write(path, json.dumps(content, indent=2) + "\n")
    return path


def content(path: Path) -> Any:
    """What a file holds that may be a case, of any kind; CaseError where it cannot be read."""
    try:
        return json.loads(written.read(path))
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CaseError(f"{path} is not JSON: {error}") from None


def load(path: Path) -> Case:
    """Reads a saved case; CaseError where the file cannot be read or holds none."""
    saved = content(path)
    try:
        return _case(saved)
    except ValueError as error:
        raise CaseError(f"{path} holds no case: {error}") from None


def _case(saved: object) -> Case:
    if not isinstance(saved, Mapping) or saved.get("case") != KIND:
        raise ValueError(f'it does not say "case": "{KIND}"')
    oracle, address = _text(saved, "oracle"), int(_text(saved, "address"), 0)
    if oracle not in ORACLES:
        raise ValueError(f"there is no oracle {oracle!r}, but {', '.join(ORACLES)}")
    if not 0 <= address < 1 << 64:
        raise ValueError(f"address is {address:#x}, which is not one of 64 bits")
    access = _access(saved.get("access"))
    if (access is None) != (oracle != PROBE):
        raise ValueError(f"an access goes with the oracle {PROBE}, and with no other")
    return Case(
        layout=_text(saved, "layout"),
        text=_text(saved, "text"),
        levels=_typed(saved, "levels", int),
        engine=_text(saved, "engine"),
        qemu=_text(saved, "qemu"),
        oracle=oracle,
        address=address,
        access=access,
        ac=_typed(saved, "ac", bool),
        expected=_text(saved, "expected"),
        observed=_text(saved, "observed"),
    )


def _text(saved: Mapping[str, Any], key: str) -> str:
    return str(_typed(saved, key, str))


def _typed(saved: Mapping[str, Any], key: str, kind: type) -> Any:
    value = saved.get(key)
    if type(value) is not kind:
        raise ValueError(f"{key} is {value!r}, no {kind.__name__}")
    return value


def _access(saved: object) -> Access | None:
    if saved is None:
        return None
    kinds = {kind.name.lower(): kind for kind in KINDS}
    if not isinstance(saved, Mapping) or saved.get("kind") not in kinds:
        raise ValueError(f"access is {saved!r}; its kind is one of {', '.join(kinds)}")
    return Access(kinds[saved["kind"]], _typed(saved, "user", bool))


def replay(case: Case, *, qemu: str = "qemu-system-x86_64") -> Comparison:
    """Builds the layout of a case in a new guest, and asks the one oracle the one question.

    Raises LayoutError and SpaceError for a layout that cannot be built, Misuse where the
    question cannot be compared here, MachineError for a guest that is lost.
    """
    layout = parse(case.text, f"{case.layout}.toml")
    with guest_for(layout, case.engine, qemu) as guest:
        reason = lacking(layout, case.levels, guest.info)
        if reason is None:
            memory, cpu = build_in(guest, layout, case.levels)
            comparison = compare_one(
                guest, memory, cpu, case.oracle, case.address, case.access, case.ac
            )
            if comparison.compared or comparison.disagreed:
                return comparison
            reason = next(iter(comparison.not_comparable), "the layout has nothing there")
    raise Misuse(f"the case cannot be replayed: {reason}")
