"""The files that a service manager or a container engine reads, from the templates in `assets/deployment`."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

_UNITS = (".service", ".socket")
_LOOKED_UP = {
    "compose.yaml": ("",),
    "kubernetes.yaml": ("command: ", "value: "),
    **dict.fromkeys(_UNITS, ("Exec",)),
}
"""By the file's name or suffix what the lines hold in which $ begins the name of a variable, and $$ is a $."""
_HEALTH = "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/health', timeout=5)"


def watched_by(metrics: str, default: str) -> dict[str, object]:
    """The port of a part's metrics, and the command that asks for its health, as JSON, with and without compose's CMD.

    Without metrics the port is that of `default`, where nobody listens, and the command one that succeeds.
    """
    port = (metrics or default).rpartition(":")[2]
    command = ["python", "-c", _HEALTH.format(port=port)] if metrics else ["true"]
    return {"metrics": port, "health": json.dumps(command), "check": json.dumps(["CMD", *command])}


def write_templates(kind: str, folder: Path, values: Mapping[str, object]) -> list[Path]:
    """Fill in the templates of `kind`, coordinator or organisation; units go to FOLDER/systemd, the rest to FOLDER."""
    written = []
    for source in sorted(files("assets").joinpath("deployment", kind).iterdir(), key=lambda found: found.name):
        place = folder / "systemd" if source.name.endswith(_UNITS) else folder
        place.mkdir(exist_ok=True)
        path = place / source.name
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(_filled(line, source.name, values) for line in lines), encoding="utf-8")
        written.append(path)
    return written


def _filled(line: str, name: str, values: Mapping[str, object]) -> str:
    """A line of the template of this name, with its values; paths in it stand between double quotes."""
    unit = name.endswith(_UNITS)
    looked_up = any(part in line for part in _LOOKED_UP.get(Path(name).suffix if unit else name, ()))

    def shown(value: object) -> object:
        if not isinstance(value, Path):
            return value
        text = json.dumps(str(value), ensure_ascii=False)[1:-1]
        text = text.replace("%", "%%") if unit else text
        return text.replace("$", "$$") if looked_up else text

    return Template(line).substitute({name: shown(value) for name, value in values.items()})
