"""Lets the tests of agent, engine and commands share their fakes (importlib mode adds no folder to the path)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stage import switched


@pytest.fixture
def switch(monkeypatch):
    """The API as agents and coordinator reach it, to be turned off."""
    with switched(monkeypatch) as turn:
        yield turn
