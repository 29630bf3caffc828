"""The layers, the homes of heavy libraries, and what is packed for Flower."""

import ast
import io
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path, PurePosixPath

import grimp
import pytest
from flwr.cli.build import build_fab_from_disk

from tests import style

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SUBPACKAGES = PYPROJECT["tool"]["setuptools"]["packages"]
PACKAGES = [name for name in SUBPACKAGES if "." not in name]
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "shared"}
TESTED_ELSEWHERE = {
    "assets/__init__.py": "tests/assets/test_base.py",
    # What these generate is tested as a whole: every fact has one owner, and the committed seed the committed bytes.
    "assets/forms.py": "tests/assets/test_samples.py",
    "assets/generate.py": "tests/assets/test_samples.py",
    "llm/__init__.py": "tests/test_architecture.py",  # what an import of it costs
}
"""Modules without a test file of their own name, and the one that tests them. A module enters only with its reason."""
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "flwr", "web3", "ray", "datasets"}


@cache
def tracked() -> tuple[str, ...]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(listing.stdout.splitlines())


def modules() -> Iterator[Path]:
    """Every Python file of the packages."""
    for name in tracked():
        if name.endswith(".py") and name.split("/")[0] in PACKAGES and (ROOT / name).exists():
            yield ROOT / name


# --- who may import whom -------------------------------------------------------------------------------------------


def test_the_import_contracts_hold() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: \d+ kept, 0 broken", done.stdout)


def test_the_import_graph_has_no_circle() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    order = TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    order.prepare()  # raises CycleError, which names the circle


def test_the_contracts_name_every_package() -> None:
    linter = PYPROJECT["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in linter["contracts"] if contract["type"] == "layers")
    layered = {name.strip() for layer in layers for name in layer.split("|")}
    assert set(linter["root_packages"]) == set(PACKAGES) == layered


def test_every_folder_with_modules_is_installed() -> None:
    folders = {".".join(path.relative_to(ROOT).parent.parts) for path in modules()}
    assert folders == set(SUBPACKAGES)


def in_package(name: str, *, but: tuple[str, ...] = ()) -> list[str]:
    paths = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / name).rglob("*.py") if path.stem != "__init__")
    return [module for module in (".".join(path.parts) for path in paths) if not module.startswith(but)]


def test_nouns_and_records_need_no_heavy_library_the_chain_only_web3_and_the_strategy_only_flower() -> None:
    steps = {
        "core": (in_package("core", but=("core.messages",)), set()),
        "records": (["llm.records"], set()),
        "chain": (in_package("chain"), {"web3"}),
        "strategy": (["server_app.strategy", "console.backends.inline", "core.policies"], {"web3", "flwr"}),
    }
    code = "import sys, importlib\n"
    for modules_, _ in steps.values():
        code += f"[importlib.import_module(name) for name in {modules_}]\n"
        code += f"print(*sorted({HEAVY!r} & set(sys.modules)))\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = dict(zip(steps, (set(line.split()) for line in done.stdout.splitlines()), strict=True))
    assert found == {name: allowed for name, (_, allowed) in steps.items()}


# --- how it is laid out --------------------------------------------------------------------------------------------


def test_every_package_is_named_for_what_it_holds() -> None:
    parts = {part.removesuffix(".py") for name in tracked() for part in PurePosixPath(name).parts}
    assert not parts & VAGUE


def test_every_folder_with_code_is_a_package_or_a_known_place() -> None:
    folders = {name.split("/")[0] for name in tracked() if name.endswith(".py") and "/" in name}
    assert folders == {*PACKAGES, "tests", "benchmarks", "docs"}


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_every_module_with_code_has_a_test_file_of_its_name_at_its_place() -> None:
    untested = {name for path in modules() if _has_code(path) and not (ROOT / _tests_of(name := _name(path))).exists()}
    assert untested == set(TESTED_ELSEWHERE)


def test_modules_that_are_tested_elsewhere_are_imported_there() -> None:
    for name, tests in TESTED_ELSEWHERE.items():
        assert name.split("/")[0] in (ROOT / tests).read_text(encoding="utf-8"), name


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tests_of(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"tests/{folder}/test_{file}"


def _has_code(path: Path) -> bool:
    """Whether there is anything beside a docstring, imports and plain values."""
    plain = ast.Expr | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign
    return not all(isinstance(node, plain) for node in ast.parse(path.read_text(encoding="utf-8")).body)


def test_every_module_named_in_a_string_exists() -> None:
    """Processes and apps are started by the names of modules, which no import checks."""
    known = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in modules()}
    known |= {name.removesuffix(".__init__") for name in known}
    pattern = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.[a-z_]\w*)+(?::\w+)?")
    named = {
        text: path.name
        for path in (*modules(), ROOT / "pyproject.toml")
        for text in _strings(path)
        if pattern.fullmatch(text) and PurePosixPath(text).suffix not in {".md", ".json", ".jsonl", ".toml"}
    }
    assert "chain.devnet.daemon" in named
    for text, place in named.items():
        module, _, attribute = text.partition(":")
        assert module in known, f"{place} names {text}"
        if attribute:
            source = ROOT / f"{module.replace('.', '/')}.py"
            assert re.search(rf"^(def )?{attribute}\b", source.read_text(encoding="utf-8"), re.MULTILINE), text


def _strings(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        yield from re.findall(r'"([^"]+)"', text)
    else:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


# --- what must be installed ----------------------------------------------------------------------------------------


def test_everything_that_the_packages_import_comes_with_requirements_txt() -> None:
    """What only tests and benchmarks need is in requirements-dev.txt, which a user does not install."""
    installed = _with_dependencies(_required("requirements.txt"))
    distributions = packages_distributions()
    foreign = {(_name(path), name) for path in modules() for name in _imports(path)}
    foreign = {(path, name) for path, name in foreign if name not in {*sys.stdlib_module_names, *PACKAGES}}
    assert foreign
    missing = [where for where in foreign if not installed & set(map(_normal, distributions.get(where[1], ())))]
    assert not missing


def _imports(path: Path) -> set[str]:
    """The first part of every module that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def _required(file: str) -> set[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {_normal(line) for line in lines if line.strip() and not line.startswith(("#", "-r"))}


def _with_dependencies(names: set[str]) -> set[str]:
    """The distributions of these names and all that they need without extras."""
    found: set[str] = set()
    while names - found:
        name = (names - found).pop()
        found.add(name)
        try:
            names = names | {_normal(line) for line in requires(name) or [] if "extra ==" not in line}
        except PackageNotFoundError:  # for another platform or Python
            continue
    return found


def _normal(requirement: str) -> str:
    """The name in a requirement, spelt as the package index does."""
    match = re.match(r"[A-Za-z0-9_.-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def test_the_figures_of_the_code_meet_their_goals() -> None:
    assert style.measure(style.PACKAGES, ROOT).misses() == [], "`make style` lists what is to be mended"


def test_the_figures_are_those_of_every_package() -> None:
    assert set(style.PACKAGES) == set(PACKAGES)


def test_requirements_are_pinned_exactly() -> None:
    for name in (
        "requirements.txt",
        "requirements-base.txt",
        "requirements-node.txt",
        "requirements-dev.txt",
        "requirements-tools.txt",
    ):
        lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
        for line in filter(None, lines):
            assert line.startswith("-r ") or re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z,-]+\])?==[^\s,;*]+", line), line


def test_the_project_lists_no_dependencies_since_flower_would_install_them_before_every_run() -> None:
    assert PYPROJECT["project"]["dependencies"] == []
    assert "optional-dependencies" not in PYPROJECT["project"]
    assert "dependency-groups" not in PYPROJECT


def test_nothing_secret_or_heavy_is_tracked() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in tracked() if (ROOT / name).exists()}
    assert not [name for name in sizes if re.search(r"\.(key|pem|p12)$|(^|/)\.env", name)]
    assert {name for name, size in sizes.items() if size > 2**20} <= {
        name for name in sizes if name.startswith("assets/base/")
    }
    assert sum(size for name, size in sizes.items() if name.startswith("assets/base/")) < 16 * 2**20


# --- what Flower carries -------------------------------------------------------------------------------------------


STRAY = ("keys/medical.json", "core/keys.json", "core/notes.md", "data/train.jsonl", ".foedus/runs/one/genesis.json")
"""What may lie about in somebody's checkout, of kinds that Flower packs unless it is told not to."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files, with stray ones between them; the base model's weights are an empty file."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in (name for name in tracked() if (ROOT / name).exists()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            (folder / name).touch()
        else:
            shutil.copyfile(ROOT / name, folder / name)
    for name in STRAY:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.fixture(scope="module")
def bundle(checkout: Path) -> tuple[int, dict[str, bytes]]:
    """Size and files of the FAB that `flwr build` makes of the checkout."""
    data = build_fab_from_disk(checkout)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return len(data), {name: archive.read(name) for name in archive.namelist()}


def test_the_bundle_holds_the_packages_that_run_under_flower_and_nothing_else(
    bundle: tuple[int, dict[str, bytes]],
) -> None:
    _, files = bundle
    packages = ("core", "llm", "client_app", "server_app", "chain", "agents", "provenance", "unlearning")
    for name in files:
        part = PurePosixPath(name)
        allowed = (
            name == "pyproject.toml" or part.parts[0] == ".info" or (part.suffix == ".py" and part.parts[0] in packages)
        )
        assert allowed, name
    assert "pyproject.toml" in files


def test_the_bundle_holds_every_module_that_it_needs(bundle: tuple[int, dict[str, bytes]]) -> None:
    _, files = bundle
    packed = {path.relative_to(ROOT).parts[0] for path in modules()} - {"console", "assets"}
    assert {str(p.relative_to(ROOT)) for p in modules() if p.relative_to(ROOT).parts[0] in packed} <= set(files)


def test_the_bundle_is_within_flowers_limit_and_holds_no_keys_or_weights(bundle: tuple[int, dict[str, bytes]]) -> None:
    size, files = bundle
    assert size < 10 * 2**20
    for name, content in files.items():
        assert not name.endswith((".safetensors", ".bin", ".pt", ".key", ".pem")), name
        assert b"PRIVATE KEY" not in content, name


def test_the_apps_that_flower_starts_are_those_of_the_packages() -> None:
    components = PYPROJECT["tool"]["flwr"]["app"]["components"]
    for reference in components.values():
        module, _, attribute = reference.partition(":")
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert re.search(rf"^{attribute} = (Server|Client)App\(", source, re.MULTILINE)


# --- what pip installs ---------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_module_of_every_subpackage_and_all_assets(checkout: Path, tmp_path: Path) -> None:
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.rglob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assets = {name for name in tracked() if name.startswith("assets/") and (ROOT / name).exists()}
    assert files - set(STRAY) == {_name(path) for path in modules()} | assets
