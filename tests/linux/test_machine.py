"""A Linux that does not come up is told with what it printed; programs play QEMU's part."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.errors import GuestLost
from images.linux.build import Image
from images.linux.machine import Variant, booted


@pytest.mark.parametrize(
    ("does", "deadline", "said"),
    [
        (
            "echo '@ failed call=mmap name=many error=12'; exec sleep 60",
            60,
            "its init failed: call",
        ),
        ("echo hello; echo broken >&2; exit 1", 60, "QEMU ended, and printed last: hello"),
        ("exec sleep 60", 0.2, r"it is not ready after 0.2 s\.$"),
    ],
    ids=["failed", "ended", "late"],
)
def test_how_it_was_lost_is_told(tmp_path: Path, does: str, deadline: float, said: str) -> None:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    image = Image(tmp_path / "vmlinuz", tmp_path / "initramfs")
    socket = tmp_path / "qmp"
    machine = booted(image, Variant(4, False), socket, qemu=str(program), deadline=deadline)
    with pytest.raises(GuestLost, match=said) as caught, machine:
        pytest.fail("it booted")
    assert caught.value.evidence.stderr == ("broken\n" if "broken" in does else "")
