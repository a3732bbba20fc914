"""The options that say where tables come from, shared by every command that looks at some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from harness.inspect.snapshot import Snapshot
    from harness.paging.x86.cpu import Cpu


Register = Annotated[
    str | None, typer.Option(metavar="N", help="In place of the source's own.", show_default=False)
]


@dataclass(frozen=True)
class Source:
    """Where tables come from.  The fields are options; `with_source` gives them to a command."""

    layout: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A layout: one that is shipped, or a file.", show_default=False
        ),
    ] = None
    levels: Annotated[
        int | None,
        typer.Option(help="4 or 5: the levels at which a layout is built.", show_default=False),
    ] = None
    ram: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file that holds physical memory; needs --cr3, and --cr4 for other than 4-level"
            " paging.",
            show_default=False,
        ),
    ] = None
    cr0: Register = None
    cr3: Register = None
    cr4: Register = None
    efer: Register = None

    @contextmanager
    def opened(self) -> Iterator[Snapshot]:
        """The snapshot, as long as the block runs.

        Raises Misuse where the options name no source or several, and what the source raises.
        """
        from dataclasses import replace

        from harness.inspect.sources import layout, ram
        from harness.machine.errors import Misuse

        named = [name for name in ("layout", "ram") if getattr(self, name) is not None]
        if len(named) != 1:
            raise Misuse(
                f"{'two sources are' if named else 'no source is'} named: choose one of"
                " --layout, --ram"
            )
        if self.layout is not None:
            found = layout.snapshot(self.layout, self.levels)
            yield replace(found, cpu=self._changed(found.cpu))
        elif self.ram is not None:
            if self.cr3 is None:
                raise Misuse("a file of memory does not tell where the root table is: add --cr3")
            yield ram.snapshot(self.ram, self._changed(_usual()))

    def _changed(self, cpu: Cpu) -> Cpu:
        """The CPU with the registers that were given in place of its own."""
        from dataclasses import replace

        given: dict[str, Any] = {
            name: number(name, text)
            for name in ("cr0", "cr3", "cr4", "efer")
            if (text := getattr(self, name)) is not None
        }
        return replace(cpu, **given)


def _usual() -> Cpu:
    """4-level paging with all that is usual."""
    from harness.paging.x86.cpu import Cpu

    return Cpu.long_mode(4, 0)


def number(what: str, text: str) -> int:
    """A number in any base that Python reads; Misuse, with what it is of, where it is none."""
    from harness.machine.errors import Misuse

    try:
        value = int(text, 0)
    except ValueError:
        raise Misuse(f"{what} is {text!r}, no number: write it like 0x1000") from None
    if not 0 <= value < 1 << 64:
        raise Misuse(f"{what} is {text}, which is no number of 64 bits")
    return value


def with_source(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of a source in place of its parameter `source`."""

    def spelled(**given: object) -> None:
        options = {field.name: given.pop(field.name) for field in fields(Source)}
        command(source=Source(**options), **given)  # type: ignore[arg-type]

    hints = get_type_hints(Source, include_extras=True)
    options = [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(Source)
    ]
    own = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in signature(command, eval_str=True).parameters.values()
        if parameter.name != "source"
    ]
    spelled.__name__, spelled.__doc__ = command.__name__, command.__doc__
    spelled.__annotations__ = {part.name: part.annotation for part in (*own, *options)}
    spelled.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]
    return spelled
