"""docs/protocol.md shows the drain table as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tidegate.drain import State, picture
from tidegate.model.names import Ending

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
DRAWINGS = {"mermaid": picture.mermaid, "text": picture.text}


@pytest.mark.parametrize("kind", sorted(DRAWINGS))
def test_the_picture_in_the_docs_is_the_table(kind, request):
    page = PAGE.read_text("utf-8")
    marker = re.escape(f"<!-- drawn from src/tidegate/drain/table.py: {kind} -->")
    found = re.search(rf"{marker}\n```{kind}\n(.*?)```", page, re.DOTALL)
    assert found, f"no {kind} drawing in docs/protocol.md"
    drawn = DRAWINGS[kind]() + "\n"
    if request.config.getoption("--rewrite-golden"):
        PAGE.write_text(page[: found.start(1)] + drawn + page[found.end(1) :], "utf-8")
    else:
        assert found[1] == drawn, "run pytest --rewrite-golden"


def test_every_state_is_in_the_picture():
    for state in State:
        assert state.name in picture.mermaid()
        assert state.meaning in picture.text()


def test_every_result_is_explained():
    page = PAGE.read_text("utf-8")
    assert not [ending for ending in Ending if f"| `{ending.value}` |" not in page]
