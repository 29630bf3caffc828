"""Figures of how the code is written: `python -m tests.style [FOLDER ...]`, with `--check` a gate for the packages.

Counted are lines of code (without blank lines, comments and docstrings), functions, private functions with a single
caller, why-comments, long functions, class names used twice, names that hide an imported module, and messages that
say "wanted". `--list` also names every private function with a single caller, and private names used in two modules.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TypeVar

PACKAGES = (
    "core", "llm", "client_app", "server_app", "chain", "agents", "provenance", "unlearning", "console", "assets",
)  # fmt: skip
SEPARATE = ("benchmarks",)
MOST_SINGLE_CALLERS = 45
"""Per cent of the private functions."""
FEWEST_COMMENTS = 1.5
"""Per 100 lines of code."""
LONGEST_FUNCTION = 40
"""Lines, with decorators, signature and docstring."""
_NO_REASON = re.compile(r"#!|#\s*(noqa|type:|fmt:|pragma|mypy:|ruff:)|#[\s#=*-]*(---|===|$)")
_SYNTAX = {
    tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING,
}  # fmt: skip

Function = ast.FunctionDef | ast.AsyncFunctionDef
_Node = TypeVar("_Node", bound=ast.AST)


@dataclass
class Figures:
    """What was counted in some folders; every list holds lines `PATH:LINE name`."""

    lines: int = 0
    functions: int = 0
    comments: int = 0
    private: int = 0
    single: list[str] = field(default_factory=list)
    long: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    @property
    def single_share(self) -> float:
        """Per cent of the private functions that are used exactly once."""
        return 100 * len(self.single) / max(self.private, 1)

    @property
    def comment_share(self) -> float:
        """Comments per 100 lines of code."""
        return 100 * self.comments / max(self.lines, 1)

    def misses(self) -> list[str]:
        """The goals that are not met, one line each."""
        found = []
        if self.single_share > MOST_SINGLE_CALLERS:
            found.append(f"private functions with a single caller: expected ≤ {MOST_SINGLE_CALLERS} %, "
                         f"got {self.single_share:.1f} %")  # fmt: skip
        if self.comment_share < FEWEST_COMMENTS:
            found.append(f"comments per 100 lines: expected ≥ {FEWEST_COMMENTS}, got {self.comment_share:.2f}")
        lists = {
            f"functions above {LONGEST_FUNCTION} lines": self.long, "class names used twice": self.classes,
            "names that hide a module": self.hidden, 'messages that say "wanted"': self.wanted,
        }  # fmt: skip
        return found + [f"{name}: expected none, got {len(lines)}" for name, lines in lists.items() if lines]


class _Module:
    """A file, and all nodes of its syntax tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self._nodes = sorted(ast.walk(self.tree), key=lambda node: getattr(node, "lineno", 0))

    def at(self, node: ast.AST, name: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 0)} {name}"

    def nodes(self, *kinds: type[_Node]) -> list[_Node]:
        return [node for node in self._nodes if isinstance(node, kinds)]

    @property
    def functions(self) -> list[Function]:
        return self.nodes(ast.FunctionDef, ast.AsyncFunctionDef)

    @property
    def docstrings(self) -> list[ast.Constant]:
        """Every string that stands alone: it documents a module, class, function or the value above it."""
        values = [node.value for node in self.nodes(ast.Expr)]
        return [value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]

    @property
    def uses(self) -> Counter[str]:
        """How often each name and attribute is read."""
        names = [node.id for node in self.nodes(ast.Name) if isinstance(node.ctx, ast.Load)]
        return Counter([*names, *(node.attr for node in self.nodes(ast.Attribute))])


def measure(folders: Iterable[str], root: Path = Path()) -> Figures:
    """The figures of all Python files under the folders; uses of a private name are counted in all of `root`'s."""
    named = [*folders]
    project = _read({*named, *PACKAGES, *SEPARATE}, root)
    modules = [module for module in project if any(module.path.is_relative_to(root / name) for name in named)]
    figures = Figures()
    for module in modules:
        code, comments = _count(module)
        figures.lines += code
        figures.comments += comments
        figures.functions += len(module.functions)
        figures.long += list(_long(module))
        figures.hidden += list(_hiding(module, root))
        figures.wanted += list(_wanted(module))
    figures.private, figures.single = _private(modules, project)
    figures.classes = _repeated((m, n) for m in modules for n in m.nodes(ast.ClassDef))
    top = ((m, n) for m in modules for n in m.tree.body if isinstance(n, ast.ClassDef | Function))
    figures.duplicates = _repeated((m, n) for m, n in top if _is_private(n.name))
    return figures


def _read(folders: Iterable[str], root: Path) -> list[_Module]:
    return [_Module(path) for path in sorted({path for folder in folders for path in _files(root / folder)})]


def _files(path: Path) -> Iterable[Path]:
    return [path] if path.suffix == ".py" else path.rglob("*.py")


# --- lines ---------------------------------------------------------------------------------------------------------


def _count(module: _Module) -> tuple[int, int]:
    """Lines of code, and lines of comments that give a reason."""
    docs = {n for node in module.docstrings for n in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    code: set[int] = set()
    comments = 0
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            comments += not _NO_REASON.match(token.string)
        elif token.type not in _SYNTAX:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docs), comments


def _long(module: _Module) -> Iterator[str]:
    for node in module.functions:
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        length = (node.end_lineno or first) - first + 1
        if length > LONGEST_FUNCTION:
            yield module.at(node, f"{node.name}, {length} lines")


# --- private functions ---------------------------------------------------------------------------------------------


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _private(modules: list[_Module], project: list[_Module]) -> tuple[int, list[str]]:
    """How many private functions the modules define, and those that are used exactly once.

    A use is a name or an attribute in the same module. A method without any is one that another module's class calls
    (a hook of its base), so the whole project's attributes count for it.
    """
    everywhere = sum((module.uses for module in project), Counter[str]())
    private, single = 0, []
    for module in modules:
        here = module.uses
        methods = {id(node) for defined in module.nodes(ast.ClassDef) for node in defined.body}
        for node in module.functions:
            if not _is_private(node.name):
                continue
            private += 1
            uses = here[node.name] or (everywhere[node.name] if id(node) in methods else 0)
            if uses == 1:
                single.append(module.at(node, node.name))
    return private, single


# --- names ---------------------------------------------------------------------------------------------------------


def _repeated(nodes: Iterable[tuple[_Module, ast.AST]]) -> list[str]:
    """A line for every place of a name that has two."""
    places = defaultdict(list)
    for module, node in nodes:
        name = getattr(node, "name", "")
        places[name].append(module.at(node, name))
    return [line for name in sorted(places) if len(places[name]) > 1 for line in places[name]]


def _hiding(module: _Module, root: Path) -> Iterator[str]:
    """Parameters and variables of functions that have the name of a module which the file imports."""
    imported = {name for node in module.nodes(ast.Import, ast.ImportFrom) for name in _imported(node, root)}
    hidden: dict[tuple[str, int], str] = {}
    for function in module.nodes(ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda):
        for node in ast.walk(function):
            name = _bound(node)
            if name in imported:
                hidden[name, getattr(node, "lineno", 0)] = module.at(node, name)
    return iter(hidden.values())


def _bound(node: ast.AST) -> str:
    """The name that the node binds, if it is one of those that may hide another."""
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return (node.name or "") if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) else ""


def _imported(node: ast.AST, root: Path) -> Iterator[str]:
    """The names that an import binds to modules."""
    if isinstance(node, ast.Import):
        yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from (a.asname or a.name for a in node.names if _is_module(f"{node.module}.{a.name}", root))


@cache
def _is_module(dotted: str, root: Path) -> bool:
    """Whether a module of that name lies on the path; nothing is imported to find out."""
    first, *rest = dotted.split(".")
    bases = [root / first] if (root / first).is_dir() else []
    if not bases:
        spec = PathFinder.find_spec(first)
        bases = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    paths = [base.joinpath(*rest) for base in bases]
    return any(path.with_suffix(".py").exists() or (path / "__init__.py").exists() for path in paths)


# --- messages ------------------------------------------------------------------------------------------------------


def _wanted(module: _Module) -> Iterator[str]:
    """Texts that end in "wanted", and those of a raise statement that say it anywhere."""
    docs = {id(node) for node in module.docstrings}
    raised = {id(inner) for node in module.nodes(ast.Raise) for inner in ast.walk(node)}
    unfinished = {id(part) for node in module.nodes(ast.JoinedStr) for part in node.values[:-1]}
    for node in module.nodes(ast.Constant):
        if not isinstance(node.value, str) or id(node) in docs:
            continue
        ends = id(node) not in unfinished and node.value.rstrip(" .)").endswith(" wanted")
        if ends or (id(node) in raised and re.search(r"\bwanted\b", node.value)):
            yield module.at(node, node.value.strip())


# --- command -------------------------------------------------------------------------------------------------------


def report(name: str, figures: Figures) -> str:
    """The figures in one line, and a list under it for everything that is to be mended."""
    lines = [
        f"{name}: {figures.lines} lines of code, {figures.functions} functions, {figures.private} private, "
        f"{len(figures.single)} of them with a single caller ({figures.single_share:.1f} %), "
        f"{figures.comment_share:.2f} comments per 100 lines, {len(figures.long)} long functions, "
        f"{len(figures.classes)} classes with a name used twice, {len(figures.hidden)} hidden modules, "
        f'{len(figures.wanted)} "wanted"'
    ]
    lists = {
        f"functions above {LONGEST_FUNCTION} lines": figures.long, "class names used twice": figures.classes,
        "names that hide a module": figures.hidden, '"wanted"': figures.wanted,
    }  # fmt: skip
    for title, items in lists.items():
        lines += [f"  {title}:", *(f"    {item}" for item in items)] if items else []
    return "\n".join(lines)


def main() -> int:
    """Print the figures; with --check, 1 where the packages miss a goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help=f"folders or files (default: {' '.join(PACKAGES)}, then benchmarks)")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--list", action="store_true", help="name private functions with one caller, and shared names")
    options = parser.parse_args()
    groups = [options.folders] if options.folders else [PACKAGES, SEPARATE]
    measured = [measure(folders) for folders in groups]
    for folders, figures in zip(groups, measured, strict=True):
        print(report("packages" if folders is PACKAGES else " ".join(folders), figures))
        if options.list:
            print("  single caller:", *figures.single, sep="\n    ")
            print("  private names in two modules:", *figures.duplicates, sep="\n    ")
    # The benchmarks are printed for whoever works on them; the goals are those of what a user runs.
    misses = measured[0].misses() if options.check else []
    print(*misses, sep="\n", end="\n" if misses else "")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
