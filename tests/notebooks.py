"""`python -m tests.notebooks`: run the cells of the documentation's notebook, and write what they show into it.

Cells run in one namespace on the newest run of $FOEDUS_HOME, as a kernel does: the value of a last expression is shown,
as HTML where it has some. A test runs them again on a run of its own.
"""

import ast
import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "docs" / "guides" / "notebook.ipynb"

Json = dict[str, Any]


def executed(notebook: Json) -> Json:
    """The same notebook with the outputs that its cells have now; raises what a cell raises."""
    namespace: Json = {}
    cells, count = [], 0
    for cell in notebook["cells"]:
        made = dict(cell)
        if cell["cell_type"] == "code":
            count += 1
            shown = value_of("".join(cell["source"]), namespace)
            made |= {"execution_count": count, "outputs": [] if shown is None else [output_of(shown, count)]}
        cells.append(made)
    return notebook | {"cells": cells}


def value_of(source: str, namespace: Json) -> Any:
    """Run a cell, and return the value of its last line where that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)  # noqa: S102 - our own notebook
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace) if last else None  # noqa: S307


def output_of(value: Any, count: int) -> Json:
    """What a kernel sends of a value."""
    data = {"text/plain": lines_of(repr(value))}
    if hasattr(value, "_repr_html_") and (page := value._repr_html_()):
        data["text/html"] = lines_of(page)
    return {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}


def lines_of(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Write the notebook with its outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    text = json.dumps(executed(notebook), indent=1, ensure_ascii=False) + "\n"
    NOTEBOOK.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
