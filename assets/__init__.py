"""Files that the packed app leaves out: the embedded base model, the sample organisations, pages and contracts.

Flower packs an app without weights and puts its own folder first on `sys.path`; a package that the app never contains
is then still found where the project is installed, be it a checkout or a wheel. Hence this package holds files, and no
logic that a ClientApp could need.
"""

from importlib.resources import files
from pathlib import Path

BASE_MODEL = "foedus-tiny"


def base_model() -> Path:
    """Return the folder of the embedded base model, in Hugging Face format."""
    return _folder("base") / BASE_MODEL


def samples() -> Path:
    """Return the folder with the sample organisations (NAME/train.jsonl, NAME/dev.jsonl) and validation.jsonl."""
    return _folder("samples")


def page(name: str) -> Path:
    """Return a source file of the HTML pages."""
    return _folder("pages") / name


def schemas() -> Path:
    """Return the JSON Schema of what commands print with --json: `$defs` by command, and what they share."""
    return _folder("schemas.json")


def _folder(name: str) -> Path:
    # A checkout or an installed wheel: both are folders, and transformers reads models from folders only.
    return Path(str(files(__name__) / name))
