"""Options and fixtures of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["TIDEGATE_LEDGER"] = ""  # what the suite retires is nobody's record
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write what was produced over the golden files; commit only what you understand",
    )


APART = ("realcluster", "e2e", "lab/network", "lab/runtime", "observers")
"""Folders whose tests start processes or make network namespaces, marked realtime or not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what must not run beside anything else."""
    folders = [Path(__file__).parent / name for name in APART]
    for item in items:
        if item.get_closest_marker("realtime") or any(item.path.is_relative_to(folder) for folder in folders):
            item.add_marker(pytest.mark.apart)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str | Path, str], None]:
    """``golden("drain/grid.txt", text)``: compare with tests/golden/..., or rewrite it under --rewrite-golden."""

    def compare(name: str | Path, produced: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--rewrite-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(produced, "utf-8")
        assert path.exists(), f"no golden file {path.name}: run pytest --rewrite-golden"
        assert produced == path.read_text("utf-8")

    return compare


# A landing is judged by the same examples every time; everywhere else new ones are looked for, and a failure prints
# how to replay it.
settings.register_profile("here", deadline=None)  # how long an example takes is the machine's mood, not a property
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
