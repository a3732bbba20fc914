"""Templates to pages: each a single file, in light and dark and for print."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.report import diagram, state
from harness.report.visible import visible_lines


def page(
    template: str, *, register: Callable[[int], str] = lambda _: "root", **content: object
) -> str:
    """The page that a template makes of its content.

    register  what leads to the root of an address, in pictures of walks
    """
    style = diagram.style() + _part("style.css")
    script = _part("map.js")
    return (
        _environment()
        .get_template(template)
        .render(
            # The style sheet and the script are ours: they are no content to be escaped.
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
            picture=lambda walk, denial=None, effective=None: Markup(
                diagram.inline(walk, register(walk.address), denial, effective)
            ),
            **content,
        )
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text()


def _hash(text: str) -> str:
    """What a policy lists to let a style sheet or script in this text, and no other, in."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible_lines(value) if type(value) is str else value,
    )
    environment.filters["tone"] = _tone
    environment.globals["state_notes"] = state.notes
    environment.globals["state_rows"] = state.rows
    return environment


def _tone(letters: str) -> str:
    """The classes of rights in the style sheet: what they are, and whether they are the user's."""
    letters = letters.lower()
    kind = "w" * ("w" in letters) + "x" * ("x" in letters or "k" in letters) or "ro"
    return f"{kind} user" if "u" in letters else kind
