"""What all tests share."""

import contextlib
import gc
import importlib
import os
import shutil
import signal
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import typer.main
import typer.testing
from hypothesis import settings

from harness.architectures import NAMES
from harness.machine.errors import Misuse
from harness.machine.machine import dotted
from harness.machine.x86.bochs import BOCHS, version_of
from harness.pytest_plugin import SKIPPED

# As the command has it, for what is no command: the examples, the plugin's and those that mutate.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Most of what is collected and made stays for the whole run, or goes by its references.
gc.set_threshold(20_000, 20, 20)

# How long an example takes says how loaded the machine is, and nothing about the rule it tests.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What a shell without job control starts in the background ignores Ctrl-C, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The runner has Typer make the same commands of the same functions at every run, in 25 ms.
vars(typer.testing)["_get_command"] = cache(typer.main.get_command)

ROOT = Path(__file__).parents[1]

USUAL = {"qemu": "qemu-system-x86_64", "bochs": "bochs"}
"""The emulators that are run unless others are chosen."""


def pytest_configure(config: pytest.Config) -> None:
    """Has all tests run the emulators that were chosen, those too that name none."""
    for name in (f"QEMU_{arch.upper()}" for arch in NAMES):
        program = shutil.which(os.environ.get(name, ""))
        if program is not None:  # tests change the folder
            os.environ[name] = str(Path(program).absolute())
    for name, usual in USUAL.items():
        named = config.getoption(f"--pagetable-{name}") or os.environ.get(name.upper())
        chosen = shutil.which(named or usual)
        if chosen is not None and chosen != shutil.which(usual):
            chosen = str(Path(chosen).absolute())
            os.environ[name.upper()] = chosen
            setattr(config.option, f"pagetable_{name}", chosen)
            folder = tempfile.TemporaryDirectory()
            config.add_cleanup(folder.cleanup)
            Path(folder.name, usual).symlink_to(chosen)
            os.environ["PATH"] = f"{folder.name}:{os.environ['PATH']}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m hw`, leaves out files that mark no test so: they are most, and take seconds."""
    is_module = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    if config.getoption("markexpr") == "hw" and is_module:
        return True if "mark.hw" not in collection_path.read_text() else None
    return None


def pytest_collection(session: pytest.Session) -> None:
    """Has each of pytest-xdist's workers import a share of the files before it collects them all.

    They begin at once, and where nothing has been kept yet each would rewrite the assertions of
    every file, which takes eight seconds.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is not None:
        files = _collected(session.config)
        for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
            # What fails here does so again when it is collected, and is reported then.
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


def _collected(config: pytest.Config) -> list[Path]:
    """The files of tests, in order, that are to be collected."""
    places = [Path(config.invocation_params.dir, name.partition("::")[0]) for name in config.args]
    files = {file for place in places for file in (place, *place.rglob("test_*.py"))}
    return sorted(
        file
        for file in files
        if file.match("test_*.py")
        and file.is_relative_to(ROOT)
        and not pytest_ignore_collect(file, config)
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says why tests were skipped and how many, but for what the plugin says of engines."""
    places = [one.longrepr for one in terminalreporter.getreports("skipped")]
    said = [str(one[2]).removeprefix("Skipped: ") for one in places if isinstance(one, tuple)]
    for reason, count in Counter(said).most_common():
        if not reason.startswith(SKIPPED):
            terminalreporter.write_line(f"{count} skipped: {reason}")


@pytest.fixture(scope="session", autouse=True)
def _bochs_in_the_head(request: pytest.FixtureRequest) -> None:
    """Puts the Bochs that tests start themselves, and not by the plugin, into the head of the JUnit
    report."""
    if any(
        "bochs" in item.nodeid and item.get_closest_marker("hw") for item in request.session.items
    ):
        record = request.getfixturevalue("_record")
        try:
            version = dotted(version_of(BOCHS.installed()))
            record("engine bochs", f"Bochs {version}, executed by bochs {version}")
        except Misuse as error:
            record("engine bochs", f"absent: {error}")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
