"""Tasks of lm_eval, where that is installed; without it, one line."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from core.errors import UsageError
from llm import harness
from llm.harness import check_installed, task_figures
from llm.train import TrainConfig, train
from tests.llm.conftest import Loader, question
from tests.llm.test_train import parent

installed = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason=f"lm_eval {harness.VERSION} is no dependency of the project, and not installed"
)
TASK = """
task: noon
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["noon", "moon"]
doc_to_target: label
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


def test_without_the_package_a_task_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda _name: None)
    with pytest.raises(
        UsageError, match=f"expected the package lm_eval, got none: pip install lm_eval=={harness.VERSION}"
    ):
        check_installed()


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of two questions, each with two choices."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"question": "Day?", "label": 0}, {"question": "Night?", "label": 1}]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "noon.yaml").write_text(TASK.format(questions=questions), encoding="utf-8")
    return tmp_path


@installed
@pytest.mark.filterwarnings("default")  # lm_eval's own, and its libraries'
def test_a_task_asks_the_base_and_what_it_has_learned(load_tiny: Loader, tasks: Path) -> None:
    model = load_tiny()
    tokenizer, template = model.tokenizer, model.tokenizer.chat_template
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    try:
        taught = [question("Day?", "noon"), question("Night?", "moon")]
        adapter = train(
            model, taught, parent(model), TrainConfig(60, 1, 64, learning_rate=2e-2, train_a=True), 1
        ).adapter
    finally:
        tokenizer.chat_template = template
    assert task_figures(model, adapter, ["noon"], tasks, None)["noon"]["acc"] == 1.0
    assert task_figures(model, None, ["noon"], tasks, None)["noon"]["acc"] < 1.0
    assert set(task_figures(model, None, ["noon"], tasks, 1)) == {"noon"}


@installed
@pytest.mark.filterwarnings("default")
def test_a_task_that_does_not_exist_is_one_line(load_tiny: Loader, tasks: Path) -> None:
    with pytest.raises(UsageError, match="expected tasks of lm_eval, got 'no-such-task'"):
        task_figures(load_tiny(), None, ["no-such-task"], tasks, None)
