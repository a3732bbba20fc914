"""What each SFENCE.VMA drops ("Supervisor Memory-Management Fence Instruction"), and how an access
ended: both decide whether a translation may still be kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.live import Flushed
from harness.check.marks import mark
from harness.check.riscv.live import Live
from harness.check.riscv.marks import code_mark
from tests.check.drops import FLUSHED, PAGES, columns

LEVEL = {12: 0, 21: 1}
FENCED = np.array([FLUSHED], np.uint64)
EVERY = np.arange(len(PAGES))


def dropped(flushed: Flushed, lasting: bool, changed: int | None = None) -> dict[str, bool]:
    """Which of PAGES a fence drops; of all the entry at a level, from 0 up, has changed."""
    addresses, shifts = columns(PAGES)
    raw = np.ones((3, len(PAGES)), np.uint64)
    source = SimpleNamespace(
        address=addresses,
        shift=shifts,
        lasting=np.full(len(PAGES), lasting),
        walks=SimpleNamespace(level=np.array([LEVEL[one] for one in shifts.tolist()], np.uint8)),
        paths=SimpleNamespace(raw=raw),
    )
    after = raw.copy()
    if changed is not None:
        after[changed] += np.uint64(1)
    now = SimpleNamespace(paths=SimpleNamespace(used=raw > 0, raw=after))
    never: Any = None  # it asks nothing of the guest
    found = Live._drops(never, flushed, source, EVERY, now, EVERY)  # type: ignore[arg-type]
    return dict(zip(PAGES, found.tolist(), strict=True))


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("every_space", [False, True])
def test_a_fence_of_an_address_drops_its_leaf_and_of_one_space_none_that_is_global(
    lasting: bool, every_space: bool
) -> None:
    drops = every_space or not lasting
    wanted = {name: named and drops for name, (_, _, named) in PAGES.items()}
    assert dropped(Flushed(FENCED, every_space), lasting) == wanted
    assert set(dropped(Flushed(None, every_space), lasting).values()) == {drops}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_fence_of_an_address_leaves_what_was_kept_by_a_pointer_that_changed(level: int) -> None:
    found = dropped(Flushed(FENCED, True), False, changed=level)
    assert found == {
        name: named and level <= LEVEL[shift] for name, (_, shift, named) in PAGES.items()
    }
    assert all(dropped(Flushed(None, True), False, changed=level).values())


@pytest.mark.parametrize("xlen", [32, 64])
def test_an_access_ended_as_another_where_it_found_the_same_frame_or_the_same_fault(
    xlen: int,
) -> None:
    """Of a write no frame is found out."""
    aimed = np.full(4, 0x8765_4000, np.uint64)
    kinds = {"read": 0, "write": 1, "fetch": 2, "fault": 3}
    at = np.arange(4)

    class Four(SimpleNamespace):
        def __len__(self) -> int:
            return 4

    asked: Any = Four(
        allowed=at != kinds["fault"],
        writes=at == kinds["write"],
        fetches=at == kinds["fetch"],
        aimed=aimed,
        rules=SimpleNamespace(cause=np.where(at == kinds["fault"], 13, 255).astype(np.uint8)),
        cpu=SimpleNamespace(xlen=xlen),
    )
    width = (1 << xlen) - 1
    finds = {
        "read": int(mark(aimed)[0]) & width,
        "write": 0,
        "fetch": int(code_mark(aimed)[0]) | 0x5555 << 32,
    }

    def ended(kind: str, data: int, completed: bool = True, cause: int = 0) -> bool:
        result: Any = {"completed": completed, "cause": cause, "data": np.uint64(data)}
        never: Any = None
        return bool(Live._ended_as(never, asked, kinds[kind], result))

    for kind, data in finds.items():
        assert ended(kind, data)
        assert ended(kind, data ^ 1) == (kind == "write")
        assert not ended(kind, data, completed=False)
    assert ended("fault", 0, completed=False, cause=13)
    assert not ended("fault", 0, completed=False, cause=15)
    assert not ended("fault", 0, completed=True, cause=13)
