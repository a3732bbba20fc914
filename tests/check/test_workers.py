"""Processes side by side, without guests."""

from __future__ import annotations

import subprocess
import sys

INTERRUPTED_IN_A_FORK = """
import os, signal
from harness.check.workers import Task, answers

os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))
try:
    print(list(answers([Task("one", lambda: iter([1]))], 1)))
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_is_not_lost_while_a_process_is_started() -> None:
    command = [sys.executable, "-c", INTERRUPTED_IN_A_FORK]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("interrupted True\n", "")
