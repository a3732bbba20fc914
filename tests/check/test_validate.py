"""Every shipped layout, at every number of levels, on every engine that this host can run."""

from __future__ import annotations

import os

import pytest

from harness.check import layouts
from harness.check.layouts import Layout
from harness.check.validate import validate
from harness.machine.engines import why_absent
from harness.machine.qemu import ENGINES

pytestmark = pytest.mark.hw

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
LAYOUTS = [layouts.load(path) for path in layouts.shipped()]
CASES = [(layout, levels) for layout in LAYOUTS for levels in layout.levels]
ORACLES = {
    "probe",
    "table bytes",
    "walk of monitor memory",
    "info tlb",
    "gva2gpa",
    "memsave",
}


@pytest.fixture(scope="module", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    reason = why_absent(name, qemu=QEMU)
    if reason is not None:
        pytest.skip(f"{name} cannot run here: {reason}")
    return name


@pytest.mark.parametrize(
    ("layout", "levels"), CASES, ids=[f"{one.name}-{levels}" for one, levels in CASES]
)
def test_every_oracle_agrees_with_the_reference(layout: Layout, levels: int, engine: str) -> None:
    report = validate(layout, levels, engine, qemu=QEMU)
    if report.skipped is not None:
        pytest.skip(f"{engine}: {report.skipped}")
    assert {one.oracle for one in report.comparisons} == ORACLES
    wrong = [found for one in report.comparisons for found in one.disagreements]
    assert report.disagreed == 0, "\n".join(map(str, wrong))
    assert not any(one.news for one in report.comparisons)
    assert report.compared > 3000


def test_the_dense_layout_is_compared_byte_by_byte_in_full() -> None:
    reason = why_absent("tcg", qemu=QEMU)
    if reason is not None:
        pytest.skip(f"tcg cannot run here: {reason}")
    dense = next(layout for layout in LAYOUTS if layout.name == "dense")
    by_oracle = {one.oracle: one for one in validate(dense, 4, "tcg", qemu=QEMU).comparisons}
    assert by_oracle["memsave"].compared >= 65_536
    assert by_oracle["info tlb"].compared >= 65_536
    assert by_oracle["gva2gpa"].compared >= 400
