"""The picture in docs/architecture.md is the import contract in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = re.search(r"^```\n(cli .*?)^```", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.M | re.S)[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
LAYERS = [[name.strip() for name in layer.split("|")] for layer in CONTRACTS[0]["layers"]]
NAME = re.compile(r"(?:^|\s{2,}|\| +)([a-z]+)(?=\s{2,})")


def drawn(picture: str = PICTURE) -> list[list[str]]:
    """The names of each line of the picture, from the top; a name stands in a column of its own."""
    known = {name for layer in LAYERS for name in layer}
    lines = ([name for name in NAME.findall(line) if name in known] for line in picture.splitlines())
    return [names for names in lines if names]


def test_the_picture_draws_the_layers_from_the_top():
    assert drawn() == LAYERS


def test_the_line_in_the_picture_is_the_pure_contract():
    below = PICTURE.split("below: pure")[1].split("\n---")[0]
    names = [f"tidegate.{name}" for line in drawn(below) for name in line]
    assert sorted(names) == sorted(CONTRACTS[1]["source_modules"])


def test_every_package_is_in_the_picture():
    packages = sorted(path.parent.name for path in (ROOT / "src" / "tidegate").glob("*/__init__.py"))
    assert sorted(name for line in drawn() for name in line) == packages
