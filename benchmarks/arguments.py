"""Kinds of options of the benchmarks: what is wrong is one line before anything is measured."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch

_LONGEST = 10
"""Digits of a number: more are a slip."""


def folder(text: str) -> Path:
    """A folder that is there."""
    if not (path := Path(text)).is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, got {text}: give one that is there")
    return path


def output(text: str) -> Path:
    """A folder that can be written in, made where there is none."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"expected a folder to write in, got {text}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"expected a folder to write in, got {text}: its permissions forbid it")
    return path


def device(text: str) -> torch.device:
    """A device of this machine."""
    try:
        found = torch.device(text)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise argparse.ArgumentTypeError(f"expected a device of this machine, as cpu, got {text}") from error
    return found


def count(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """A whole number within bounds, both included."""

    def parsed(text: str) -> int:
        # Signs, spaces, underscores and other scripts' digits are what int() takes and nobody means.
        plain = text.isascii() and text.isdecimal() and len(text) < _LONGEST
        number = int(text) if plain else -1
        if number < least or (most is not None and number > most):
            among = f"at least {least}" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number, {among}, got {text!r:.40}")
        return number

    return parsed
