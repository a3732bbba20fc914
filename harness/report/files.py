"""A run as JSON, and as JUnit for what watches over tests."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from harness.check import written
from harness.check.compare import Answer, Comparison, Disagreement
from harness.check.validation import SpaceReport
from harness.report.objects import bare
from harness.report.run import Run
from harness.report.text import disagreeing, finding_lines, walk_lines
from harness.report.visible import visible, visible_lines


def as_object(run: Run) -> dict[str, Any]:
    """A run as what JSON can hold."""
    return bare(
        "validate",
        arch=run.arch,
        engine=run.engine,
        qemu=run.qemu,
        not_run_on=run.not_run_on,
        layouts=[_space(run, space) for space in run.spaces if space.skipped is None],
        compared=run.compared,
        disagreements=run.disagreed,
        quirks=run.count("quirks"),
        not_comparable=run.count("not_comparable"),
        skipped=[
            {"layout": space.layout.name, "levels": space.levels, "reason": space.skipped}
            for space in run.spaces
            if space.skipped is not None
        ],
        news=run.count("news"),
        seconds=round(run.seconds, 3),
        failure=run.failure,
    )


def _space(run: Run, space: SpaceReport) -> dict[str, Any]:
    return {
        "layout": space.layout.name,
        "title": space.layout.title,
        "levels": space.levels,
        "compared": space.compared,
        "disagreements": space.disagreed,
        "seconds": round(space.seconds, 3),
        "oracles": [oracle(one) for one in space.comparisons],
        "findings": [
            disagreement(one.disagreement, one.case, one.answers)
            for one in run.findings
            if one.space is space
        ],
    }


def oracle(comparison: Comparison) -> dict[str, Any]:
    """What came of asking one oracle."""
    return {
        "oracle": comparison.oracle,
        "compared": comparison.compared,
        "disagreements": comparison.disagreed,
        "quirks": comparison.quirks,
        "not_comparable": comparison.not_comparable,
        "news": comparison.news,
    }


def disagreement(
    found: Disagreement, case: Path | None = None, answers: Iterable[Answer] = ()
) -> dict[str, Any]:
    """A question, both answers, the walk, the file of the case if there is one, and the answers of
    every engine that was asked."""
    return {
        "oracle": found.oracle,
        "address": hex(found.address),
        "access": found.access and str(found.access),
        "ac": "AC" in found.flags,
        "expected": found.expected,
        "observed": found.observed,
        "walk": walk_lines(found.walk) if found.walk else None,
        "case": case and str(case),
        "answers": [asdict(answer) for answer in answers],
    }


def as_junit(run: Run) -> str:
    """A run as JUnit XML: a test case a space, engine and versions in the head."""
    suite = ElementTree.Element("testsuite", name="pagetable validate", time=f"{run.seconds:.3f}")
    properties = ElementTree.SubElement(suite, "properties")
    head = {"engine": run.engine, "qemu": run.qemu, **versions()}
    if run.not_run_on:
        head["not_run_on"] = "; ".join(run.not_run_on)
    for name, value in head.items():
        ElementTree.SubElement(properties, "property", name=name, value=value)
    for space in run.spaces:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname="pagetable.validate",
            name=f"{space.layout.name}-{space.levels}",
            time=f"{space.seconds:.3f}",
        )
        if space.skipped is not None:
            ElementTree.SubElement(case, "skipped", message=space.skipped)
        if space.disagreed:
            message = disagreeing(space.disagreed, space.compared, "answer")
            failure = ElementTree.SubElement(case, "failure", message=message)
            lines = (finding_lines(one) for one in run.findings if one.space is space)
            failure.text = "\n".join("\n".join(part) for part in lines)
    if run.failure is not None:
        case = ElementTree.SubElement(suite, "testcase", classname="pagetable", name="machine")
        ElementTree.SubElement(case, "error", message=run.failure)
    return finished(suite)


def finished(suite: ElementTree.Element) -> str:
    """A suite with the counts of its cases, as XML."""
    for kind, path in (("skipped", "skipped"), ("failures", "failure"), ("errors", "error")):
        suite.set(kind, str(len(suite.findall(f"testcase/{path}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    for element in suite.iter():  # XML has no place for control characters
        element.text = element.text and visible_lines(element.text)
        for key, value in element.items():
            element.set(key, visible(value))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def versions() -> dict[str, str]:
    """What a report was made with, besides the engine, by name."""
    return {
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
    }


def write(run: Run, directory: Path) -> None:
    """Writes report.json and junit.xml into the directory; OSError where that fails."""
    directory.mkdir(parents=True, exist_ok=True)
    written.write(directory / "report.json", json.dumps(as_object(run)) + "\n")
    written.write(directory / "junit.xml", as_junit(run) + "\n")
