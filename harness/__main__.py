"""The command `pagetable` from its first instruction on; `python -m harness`, where it is not
installed.

It imports nothing but what Python itself has imported before, so that Ctrl-C ends the command with
one line also while all else is imported. Where there is something to be ended in order, in the
block of `harness.cli.ending.sentences`, it is raised.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Runs the command with the arguments of this process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored
        signal.signal(signal.SIGINT, _end)
    from harness import cli

    try:
        cli.main()
    finally:
        # Ctrl-C can leave an event loop half closed, whose finalizers and tasks then complain.
        sys.unraisablehook = lambda _: None
        if logging := sys.modules.get("logging"):
            logging.getLogger("asyncio").disabled = True


def _end(*_: object) -> None:
    """Ends the process at once: nothing was begun that would have to be ended."""
    try:
        os.write(2, b"pagetable: interrupted.\n")
    finally:
        os._exit(130)


if __name__ == "__main__":
    main()
