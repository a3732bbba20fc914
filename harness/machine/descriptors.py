"""File descriptors that are handed to another process by their numbers.

The numbers 0 to 2 are the standard streams of every process that is started. Where they are closed,
as by `<&-` in a shell, what is opened next gets one of them, and would be replaced in the other
process by that one's own stream.
"""

from __future__ import annotations

import fcntl
import os
import socket
from typing import Final

FIRST: Final = 3
"""The first number without a meaning of its own."""


def above_standard(descriptor: int) -> int:
    """The same file, under a number that is none of a standard stream's; the other is closed."""
    if descriptor >= FIRST:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST)
    finally:
        os.close(descriptor)


def socket_above_standard(connection: socket.socket) -> socket.socket:
    """The same socket, likewise."""
    if connection.fileno() >= FIRST:
        return connection
    return socket.socket(fileno=above_standard(connection.detach()))
