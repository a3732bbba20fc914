"""What all tests share."""

import gc
import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path

import pytest
import typer.main
import typer.testing
from hypothesis import settings

# How long an example takes says how loaded the machine is, and nothing about the rule it tests.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What a shell without job control starts in the background ignores Ctrl-C, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The runner has Typer make the same commands of the same functions at every run, in 25 ms.
vars(typer.testing)["_get_command"] = cache(typer.main.get_command)

USUAL_QEMU = "qemu-system-x86_64"


def pytest_configure(config: pytest.Config) -> None:
    """Has all tests run the QEMU that was chosen, those too that name none."""
    qemu = shutil.which(config.getoption("--pagetable-qemu"))
    if qemu is not None and qemu != shutil.which(USUAL_QEMU):
        qemu = os.environ["QEMU"] = config.option.pagetable_qemu = str(Path(qemu).absolute())
        folder = tempfile.TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
        Path(folder.name, USUAL_QEMU).symlink_to(qemu)
        os.environ["PATH"] = f"{folder.name}:{os.environ['PATH']}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m hw`, leaves out files that mark no test so: they are most, and take seconds."""
    is_module = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    if config.getoption("markexpr") == "hw" and is_module:
        return True if "mark.hw" not in collection_path.read_text() else None
    return None


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
