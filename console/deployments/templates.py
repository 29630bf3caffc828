"""The files that a service manager or a container engine reads, from the templates in `assets/deployment`."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

_UNITS = (".service", ".socket")


def write_templates(kind: str, folder: Path, values: Mapping[str, object]) -> list[Path]:
    """Fill in the templates of `kind`, coordinator or organisation; units go to FOLDER/systemd, the rest to FOLDER."""
    written = []
    for source in sorted(files("assets").joinpath("deployment", kind).iterdir(), key=lambda found: found.name):
        place = folder / "systemd" if source.name.endswith(_UNITS) else folder
        place.mkdir(exist_ok=True)
        path = place / source.name
        path.write_text(Template(source.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
        written.append(path)
    return written
