import tomllib
from pathlib import Path

from client_app.own_app import PACKAGES
from console.backends.app_folder import stage
from core.config import RunConfig


def test_the_staged_app_is_the_code_that_is_tested(tmp_path: Path) -> None:
    app = stage(tmp_path / "app")
    project = Path(__file__).parents[3]
    staged = {path.relative_to(app) for path in app.rglob("*.py")}
    assert {path.parts[0] for path in staged} == set(PACKAGES)
    assert all((app / path).read_bytes() == (project / path).read_bytes() for path in staged)
    assert not list(app.rglob("*.sol")) + list(app.rglob("*.json"))


def test_the_staged_app_declares_every_setting(tmp_path: Path) -> None:
    declared = tomllib.loads((stage(tmp_path / "app") / "pyproject.toml").read_text(encoding="utf-8"))
    assert declared["tool"]["flwr"]["app"]["config"] == RunConfig().to_flat()
    assert declared["project"]["dependencies"] == []


def test_the_project_declares_the_same_app(tmp_path: Path) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    staged = tomllib.loads((stage(tmp_path / "app") / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["flwr"]["app"]["components"] == staged["tool"]["flwr"]["app"]["components"]
    assert project["tool"]["flwr"]["app"]["config"] == staged["tool"]["flwr"]["app"]["config"]
    assert project["project"]["dependencies"] == []
