"""How the machine can fail. Every message is a sentence; the evidence is in the attributes.

MachineError
├── LaunchFailure    the emulator did not come up: exit code, command line, stderr
├── GuestLost        it was up and is gone: reset, triple fault, panic, hang, killed
└── ProtocolError    it answers, but not what was agreed
Misuse (ValueError)  the request cannot be carried out: bad argument, no emulator, bad ELF
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


class MachineError(Exception):
    """Anything that went wrong with a machine after the request itself was found sound."""


class LaunchFailure(MachineError):  # noqa: N818 (the project's word for this ending)
    """The emulator ended, or never answered, before the guest was ready.

    `exit_code` is that of the process (negative: the signal that ended it, None: it was still
    running), `command` its arguments, `stderr` what it said, `maker` its name.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None,
        command: Sequence[str],
        stderr: str,
        maker: str = "QEMU",
    ) -> None:
        super().__init__(f"{message}{_quoted(stderr, maker)}")
        self.exit_code = exit_code
        self.command = tuple(command)
        self.stderr = stderr


@dataclass(frozen=True)
class Evidence:
    """What is known about a guest that is gone."""

    console: tuple[str, ...] = ()
    """The last lines it printed."""
    stderr: str = ""
    """What the emulator said."""
    exit_code: int | None = None
    """That of the emulator; None, if it was still running."""
    registers: Mapping[str, int] = field(default_factory=dict)
    """As printed by the panicking stub, or as QEMU's monitor showed them; empty, if neither did."""


class GuestLost(MachineError):  # noqa: N818 (the project's word for this ending)
    """A running guest reset, panicked, hung, or its emulator ended. It was ended and reaped.

    Where its registers are known they are a note, too, which pytest shows.
    """

    def __init__(self, message: str, evidence: Evidence, *, maker: str = "QEMU") -> None:
        super().__init__(f"{message}{_quoted(evidence.stderr, maker)}")
        self.evidence = evidence
        known = [f"{name}={value:#x}" for name, value in evidence.registers.items()]
        if known:
            self.add_note(" ".join(known))


class ProtocolError(MachineError):
    """The stub or the monitor answered with something else than was agreed. `answer` is what."""

    def __init__(self, message: str, answer: str) -> None:
        super().__init__(message)
        self.answer = answer


class Misuse(ValueError):  # noqa: N818 (the project's word for this ending)
    """The caller asks for what cannot be done here; the sentence says what to do instead."""


def _quoted(stderr: str, maker: str) -> str:
    lines = stderr.strip().splitlines()
    return f" {maker} said: {lines[-1].strip()[:LONGEST_QUOTE]}" if lines else ""


LONGEST_QUOTE: Final = 500
"""Characters of a line that are quoted."""
