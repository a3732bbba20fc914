"""Imports go one way, and the generic part of the library knows no architecture.

Both rules are read from the syntax tree of each module, so an import inside a function or under
`TYPE_CHECKING` counts too.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "harness"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each part of the package may import of the others.
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "architectures": set(),
    "paging": set(),
    "machine": {"architectures"},
    "check": {"architectures", "paging", "machine"},
    "inspect": {"architectures", "paging", "machine", "check"},
    "report": {"architectures", "paging", "machine", "check", "inspect"},
    "cli": {"architectures", "paging", "machine", "check", "inspect", "report"},
    "gdb": set(),
    "pytest_plugin": {"architectures", "paging", "machine", "check", "inspect", "report"},
}

# No processes, no files, no clocks: what the library leaves to the other parts.
OUTSIDE_WORLD = {
    *("io", "os", "pathlib", "shutil", "tempfile"),
    *("asyncio", "multiprocessing", "signal", "socket", "subprocess"),
    *("datetime", "time"),
}

# The folders of an architecture or a kernel, in whatever part they are.
SPECIFIC = {"x86", "riscv", "arm64", "s390", "power", "linux"}


def apart(module: Path) -> bool:
    """Whether a module is one of those that import no architecture but their own; what Linux keeps
    in entries is so for each."""
    return architecture_of(PACKAGE, module) != "linux"


# Not "npt", which is what numpy.typing is called for short.
ARCHITECTURES = re.compile(
    r"(?<![a-z])("
    r"x86|x64|ia32|i386|intel|amd|amd64|pae|la57|pml4|pml5|vmx|svm|ept"
    r"|arm|arm64|aarch64|aarch32|lpae|riscv|riscv64|sv32|sv39|sv48|sv57"
    r"|s390|s390x|ppc|ppc64|powerpc|mips|loongarch|sparc"
    r")(?![a-z0-9])"
)


def part(package: Path, module: Path) -> str:
    """The part of the package to which a module belongs: its first directory, or its own name."""
    return module.relative_to(package).with_suffix("").parts[0]


def generic_modules() -> list[Path]:
    """The modules of the library that must hold for every architecture."""
    library = PACKAGE / "paging"
    return [m for m in MODULES if library in m.parents and part(library, m) not in SPECIFIC]


@cache
def imported(package: Path, module: Path) -> tuple[str, ...]:
    """The dotted names that a module imports, relative ones resolved; each is read once."""
    return tuple(_imported(package, module))


def _imported(package: Path, module: Path) -> Iterator[str]:
    home = [package.name, *module.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = home[: len(home) - node.level + 1] if node.level else []
            origin = [*above, *filter(None, [node.module])]
            yield from (".".join([*origin, alias.name]) for alias in node.names)


def wrong_imports(package: Path, module: Path) -> set[str]:
    """The imports by which a module breaks the one-way flow."""
    own = part(package, module)
    allowed = MAY_IMPORT[own] | {own}
    wrong = set()
    for name in imported(package, module):
        first, *rest = name.split(".")
        if first == package.name:
            foreign = bool(rest) and rest[0] in MAY_IMPORT and rest[0] not in allowed
        else:
            foreign = own == "paging" and first in OUTSIDE_WORLD
        if foreign:
            wrong.add(name)
    return wrong


def architecture_of(package: Path, module: Path) -> str | None:
    """The architecture whose module it is; None for a generic one."""
    folders = module.relative_to(package).parts[1:-1]
    return folders[0] if folders and folders[0] in SPECIFIC else None


def foreign_architectures(package: Path, module: Path) -> set[str]:
    """The imports of an architecture's modules by what is generic, or by another architecture."""
    own = architecture_of(package, module)
    found = set()
    for name in imported(package, module):
        first, *rest = name.split(".")
        if first == package.name and len(rest) > 1 and rest[1] in SPECIFIC - {own, "linux"}:
            found.add(name)
    return found


def architecture_names(source: str) -> set[str]:
    """The architectures that code names, in identifiers and strings; documentation may name any."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in documentation and isinstance(node, ast.Constant):
            continue
        for _, value in ast.iter_fields(node):
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    found.update(ARCHITECTURES.findall(in_words(text)))
    return found


def in_words(identifier: str) -> str:
    """`WalkOfX86Table` as `walk_of_x86_table`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", identifier).lower()


def found_in(modules: Iterable[Path], wrong: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """What is wrong in modules, by their paths."""
    found = {str(module.relative_to(PACKAGE)): wrong(module) for module in modules}
    assert found
    return {path: names for path, names in found.items() if names}


def test_every_module_belongs_to_a_part() -> None:
    assert {part(PACKAGE, module) for module in MODULES} <= MAY_IMPORT.keys()


def test_imports_go_one_way() -> None:
    assert found_in(MODULES, partial(wrong_imports, PACKAGE)) == {}


def test_nothing_imports_an_architecture_that_is_not_its_own() -> None:
    modules = [module for module in MODULES if apart(module)]
    assert found_in(modules, partial(foreign_architectures, PACKAGE)) == {}


def test_the_generic_library_names_no_architecture() -> None:
    assert found_in(generic_modules(), lambda one: architecture_names(one.read_text())) == {}


@pytest.mark.parametrize("module", sorted(TESTS.glob("paging/*rules.py")), ids=lambda one: one.stem)
def test_the_rules_that_are_written_a_second_time_use_nothing_of_the_library(module: Path) -> None:
    names = {name.partition(".")[0] for name in imported(TESTS, module)}
    assert names <= {"__future__", "dataclasses", "functools"}


@pytest.mark.parametrize(
    ("where", "statement", "wrong"),
    [
        ("paging/walk.py", "import harness.machine", {"harness.machine"}),
        ("paging/walk.py", "from harness import machine", {"harness.machine"}),
        ("paging/walk.py", "from ..check import compare", {"harness.check.compare"}),
        ("paging/walk.py", "from .. import cli", {"harness.cli"}),
        ("paging/__init__.py", "from ..machine import ram", {"harness.machine.ram"}),
        ("paging/x86/cpu.py", "from ...machine.qemu import Qemu", {"harness.machine.qemu.Qemu"}),
        ("paging/walk.py", "def f():\n    import harness.report", {"harness.report"}),
        ("paging/walk.py", "import os.path", {"os.path"}),
        ("paging/walk.py", "from time import monotonic", {"time.monotonic"}),
        ("machine/qemu.py", "from harness.paging.entry import Leaf", {"harness.paging.entry.Leaf"}),
        ("machine/qemu.py", "from harness.check import oracles", {"harness.check.oracles"}),
        ("check/compare.py", "from harness import report", {"harness.report"}),
        ("report/terminal.py", "import harness.cli", {"harness.cli"}),
        ("pytest_plugin.py", "from .cli import main", {"harness.cli.main"}),
        ("__init__.py", "from .paging import walk", {"harness.paging.walk"}),
        ("paging/walk.py", "from .x86 import cpu\nfrom . import entry\nimport numpy", set()),
        ("machine/qemu.py", "import os\nfrom .monitor import Monitor", set()),
        ("check/compare.py", "from harness.paging import walk\nfrom ..machine import ram", set()),
        ("cli.py", "from harness import check, report", set()),
    ],
)
def test_a_planted_import_is_found(
    tmp_path: Path, where: str, statement: str, wrong: set[str]
) -> None:
    module = tmp_path / "harness" / where
    module.parent.mkdir(parents=True)
    module.write_text(statement)
    assert wrong_imports(tmp_path / "harness", module) == wrong


@pytest.mark.parametrize(
    ("where", "statement", "wrong"),
    [
        (
            "check/layouts.py",
            "from harness.paging.x86.cpu import Cpu",
            "harness.paging.x86.cpu.Cpu",
        ),
        ("check/workers.py", "from harness.check import x86", "harness.check.x86"),
        ("check/workers.py", "def f():\n    import harness.check.riscv.validate", None),
        ("report/run.py", "if TYPE_CHECKING:\n    from ..check.x86 import quirks", None),
        ("check/riscv/probes.py", "from ..x86 import marks", "harness.check.x86.marks"),
        ("check/x86/matrix/run.py", "from harness.paging.riscv import cpu", None),
        ("check/x86/matrix/run.py", "from harness.paging.x86 import cpu", ""),
        ("check/riscv/probes.py", "from ..marks import WORD\nfrom .quirks import KNOWN", ""),
        ("check/workers.py", "from harness.check.validation import x86", ""),
    ],
)
def test_a_planted_architecture_that_is_another_s_is_found(
    tmp_path: Path, where: str, statement: str, wrong: str | None
) -> None:
    module = tmp_path / "harness" / where
    module.parent.mkdir(parents=True)
    module.write_text(statement)
    found = foreign_architectures(tmp_path / "harness", module)
    assert (len(found) == 1) if wrong is None else found == set(filter(None, [wrong]))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from .x86 import cpu", {"x86"}),
        ("from . import riscv", {"riscv"}),
        ("if format.name == 'x86-64 4-level': pass", {"x86"}),
        ("raise ValueError(f'{address} under LA57')", {"la57"}),
        ("class Arm64Format: pass", {"arm64"}),
        ("class PAERoot: pass", {"pae"}),
        ("def walk(memory, *, pae_root=None): pass", {"pae"}),
        ("cpu.is_amd64", {"amd64"}),
        ("walk(memory, sv39=True)", {"sv39"}),
        ("def f():\n    global ept", {"ept"}),
        ("'''As x86 does.'''\ndef f():\n    '''Of arm64.'''\nlimit = 1\n'''See Intel.'''", set()),
        ("harm = alarm + accept + space  # as on x86", set()),
    ],
)
def test_a_planted_architecture_is_found(source: str, names: set[str]) -> None:
    assert architecture_names(source) == names
