"""Every engine of this host, asked about what one of them disagrees on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from harness.architectures import USUAL
from harness.cli.ending import complain, ending

if TYPE_CHECKING:
    from harness.check.compare import Answer

Answers = tuple[tuple["Answer", ...], ...]
"""What every engine says, question by question; nothing where there is no question."""


def answers_of_all(
    questions: int,
    ask: Callable[[Any], Iterator[tuple[int, Answer]]],
    chosen: Mapping[str, str],
    arch: str = USUAL,
) -> tuple[Answers, KeyboardInterrupt | None]:
    """What every engine says of so many questions; where that fails or is interrupted, what was
    said until then, and the interruption.

    ask     answers them as `Replays.ask_every` does, given a host
    chosen  the emulators by their makers
    """
    from harness.check.replay import replays_of
    from harness.machine.registry import engines_of
    from harness.report.terminal import following

    replays = replays_of(arch)
    if not questions or replays is None:
        return (), None
    answers: list[list[Answer]] = [[] for _ in range(questions)]
    interrupted = None

    def coming() -> Generator[tuple[int, Answer], None, None]:
        yield from ask(replays.this_host(chosen))

    try:
        with closing(coming()) as some:
            for number, answer in following(
                some, questions * len(engines_of(arch)), lambda _: (1, "answers of every engine")
            ):
                answers[number].append(answer)
    except KeyboardInterrupt as error:
        interrupted = error
    except Exception as error:
        complain(f"not every engine was asked about the disagreements: {ending(error)[1]}")
    return tuple(map(tuple, answers)), interrupted
