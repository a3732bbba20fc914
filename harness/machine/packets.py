"""A conversation with a gdb stub, packet by packet, and the registers that it describes.

Source: gdb's manual, "Remote Protocol" and "Target Descriptions".
"""

from __future__ import annotations

import re
import reprlib
import select
import socket
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from harness.machine.errors import Evidence, GuestLost, Misuse, ProtocolError
from harness.machine.patience import Clock

Order = Literal["little", "big"]
"""In which order the bytes of a register come."""

LONGEST: Final = 1 << 16
"""Bytes of a packet: QEMU's have 4 KiB."""

LONGEST_DESCRIPTION: Final = 1 << 20
"""Bytes of a description of registers, in all its documents: QEMU's have some 30 KiB."""

PIECE: Final = 0x7E0
"""Bytes of a document that are asked for by one packet: QEMU sends no more than 2045."""

AT_ONCE: Final = 12
"""Pieces that are asked for together: QEMU's longest document has ten."""

_STOPPED: Final = (b"T", b"S")
"""How a packet begins that says that the guest stopped."""


class Packets:
    """One side of the conversation; `path` is what the stub is called, and `deadline` the seconds
    in which it answers.

    stop_seen  whether it said that the guest stopped
    mute       whether it did not answer
    silent     whether nothing is acknowledged any more: each byte stops a guest that runs (QEMU,
               gdb_read_byte)
    """

    def __init__(
        self, path: Path, connection: socket.socket, clock: Clock, deadline: float
    ) -> None:
        self.path = path
        self._connection = connection
        self._clock = clock
        self._deadline = deadline
        self._read = bytearray()
        self.stop_seen = False
        self.mute = False
        self.silent = False

    def ask(self, text: str) -> bytes:
        """What a packet is answered; raises `GuestLost` where there is no answer."""
        (answer,) = self.ask_all([text])
        return answer

    def ask_all(self, texts: Sequence[str]) -> list[bytes]:
        """What packets are answered that are sent together: QEMU takes the next for a word that it
        has been heard (gdb_read_byte), and each answer waits for a processor once."""
        self._told(b"".join(map(packet, texts)))
        return [self.answer(self._clock.now() + self._deadline) for _ in texts]

    def send(self, text: str) -> None:
        """Sends a packet; raises `GuestLost` where no one takes it."""
        self._told(packet(text))

    def answer(self, end: float) -> bytes:
        """The next packet that is no stop of the guest; raises `GuestLost` where there is none
        until the clock shows `end`."""
        while True:
            found = self._next(end)
            if not found.startswith(_STOPPED):
                return found
            self.stop_seen = True

    def octets(self, digits: bytes, asked: str) -> bytes:
        """The bytes that an answer has as digits; raises `ProtocolError` where it has none."""
        try:
            return bytes.fromhex(digits.decode("ascii"))
        except ValueError:
            raise ProtocolError(
                f"the gdb stub answered {asked} with {reprlib.repr(digits)}", repr(digits)
            ) from None

    def registers(
        self, vcpu: int, wanted: Collection[str], order: Order = "little"
    ) -> dict[str, int]:
        """Registers of a processor, of those wanted the ones that the stub's description has, by
        the names there; of a guest that stands.

        order  in which the stub sends their bytes

        Raises `Misuse` where it shows no such processor.
        """
        if self.ask(f"Hg{vcpu + 1:x}") != b"OK":
            raise Misuse(f"the gdb stub at {self.path} shows no processor {vcpu}")
        numbers: dict[str, int] = {}
        for name, number in self._described():
            if name in wanted:
                numbers.setdefault(name, number)
        asked = {name: f"p{number:x}" for name, number in numbers.items()}
        answers = zip(asked, self.ask_all([*asked.values()]), strict=True)
        return {
            name: int.from_bytes(self.octets(digits, asked[name]), order)
            for name, digits in answers
            if digits and not digits.startswith(b"E")
        }

    def _described(self) -> Iterator[tuple[str, int]]:
        """Name and number of each register: one more than that before, unless it has its own."""
        documents, length, number = ["target.xml"], 0, 0
        while documents:
            name = documents.pop(0)
            text = self._document(name, LONGEST_DESCRIPTION - length)
            length += len(name) + len(text)
            for attributes in _REGISTER.findall(text):
                named = dict(_ATTRIBUTE.findall(attributes))
                own = named.get("regnum", "")
                number = int(own) if _NUMBER.fullmatch(own) else number
                yield named.get("name", ""), number
                number += 1
            documents += _INCLUDED.findall(text)

    def _document(self, name: str, longest: int) -> str:
        """A document of the description; empty where there is none."""
        text = b""
        while len(text) < longest:
            places = [len(text) + number * PIECE for number in range(AT_ONCE)]
            for part in self.ask_all(
                [f"qXfer:features:read:{name}:{place:x},{PIECE:x}" for place in places]
            ):
                text += part[1:]
                if part.startswith(b"l"):
                    return "".join(_outside_comments(text.decode("utf-8", "replace")))
                if not part.startswith(b"m"):
                    return ""
                if len(part) <= PIECE:  # less than was asked for: what follows is asked for again
                    break
        raise ProtocolError("the gdb stub describes its registers without end", "")

    def _told(self, octets: bytes) -> None:
        try:
            self._connection.sendall(octets)
        except OSError as error:
            raise self._gone(str(error)) from None

    def _next(self, end: float) -> bytes:
        while (match := _PACKET.search(self._read)) is None:
            if len(self._read) > LONGEST:
                raise ProtocolError(
                    f"{self.path} is not a gdb stub: it sent {reprlib.repr(bytes(self._read))}", ""
                )
            self._read += self._received(end)
        content, checksum = bytes(match[1]), int(match[2], 16)
        del self._read[: match.end()]
        if sum(content) & 0xFF != checksum:
            raise ProtocolError(f"the gdb stub at {self.path} sent a packet that is damaged", "")
        # QEMU reads nothing while it prints, a packet a line, and waits for no acknowledgement:
        # those of a long table would fill the socket, and then both wait.
        printed = content.startswith(b"O") and content != b"OK"
        if not (self.silent or printed):
            self._told(b"+")
        return _expanded(content)

    def _received(self, end: float) -> bytes:
        while (left := end - self._clock.now()) <= 0 or not self._readable(left):
            if left <= 0:
                self.mute = True
                raise self._gone(
                    f"it says nothing for {self._deadline:g} s: a gdb stub serves one debugger at a"
                    " time, so another may be connected; else it is not a gdb stub"
                )
        try:
            part = self._connection.recv(LONGEST)
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from None
        if not part:
            raise self._gone("it ended the conversation")
        return part

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._connection], [], [], seconds)[0])

    def _gone(self, seen: str) -> GuestLost:
        return GuestLost(f"the gdb stub at {self.path} does not answer: {seen}", Evidence())


_REGISTER: Final = re.compile(r"<reg\s([^<>]*)>")
_ATTRIBUTE: Final = re.compile(r"""(\w+)\s*=\s*["']([^"']*)["']""")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_INCLUDED: Final = re.compile(r"""<xi:include\s[^<>]*\bhref\s*=\s*["']([\w.-]{1,100})["']""")
_PACKET: Final = re.compile(rb"\$([^#$]*)#([0-9a-fA-F]{2})", re.DOTALL)


def _outside_comments(text: str) -> Iterator[str]:
    """What an XML document says: QEMU's for x86 has registers in comments."""
    said, *others = text.split("<!--")
    yield said
    for other in others:
        yield other.partition("-->")[2]


def packet(text: str) -> bytes:
    """What is sent to say this: with a beginning, an end and a checksum."""
    content = text.encode("ascii")
    return b"$%b#%02x" % (content, sum(content) & 0xFF)


def _expanded(content: bytes) -> bytes:
    """What a packet says: a byte is repeated as often as the one after a * says, less 29, and after
    a } comes one with its sixth bit turned (gdb, Remote Protocol, Overview)."""
    found = _RUN.sub(lambda run: run[1] * (run[2][0] - 28), content)
    return _ESCAPED.sub(lambda escaped: bytes([escaped[1][0] ^ 0x20]), found)


_RUN: Final = re.compile(rb"(.)\*([ -~])", re.DOTALL)
_ESCAPED: Final = re.compile(rb"\}(.)", re.DOTALL)
