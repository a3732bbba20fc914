"""Files and sockets that are handed to another process by their numbers.

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

MOST_SAID: Final = 1 << 20
"""Bytes that are kept of what a process prints: all that comes after them is dropped."""


def above_standard(descriptor: int) -> int:
    """The same file, under a number that is none of a standard stream's; the other is closed."""
    if descriptor >= FIRST:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST)
    finally:
        os.close(descriptor)


def anonymous_file(name: str) -> int:
    """A new file in memory, which has no name that could be opened."""
    return above_standard(os.memfd_create(name))


def what_is_said(name: str) -> int:
    """A new file for what a process prints, which holds the beginning of that and never grows."""
    descriptor = above_standard(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    os.ftruncate(descriptor, MOST_SAID)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor


def said(descriptor: int) -> str:
    """What a process has printed to such a file so far: the place where it writes is shared."""
    size = os.lseek(descriptor, 0, os.SEEK_CUR)
    return os.pread(descriptor, size, 0).decode("utf-8", "replace")


def socket_above_standard(connection: socket.socket) -> socket.socket:
    """The same socket, likewise."""
    if connection.fileno() >= FIRST:
        return connection
    return socket.socket(fileno=above_standard(connection.detach()))
