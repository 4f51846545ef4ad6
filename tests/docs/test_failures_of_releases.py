"""docs/failures.md, "Releases": every story that it names is there, and where it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "failures.md").read_text("utf-8").split("\n## Releases\n", 1)[1]
ROWS = re.findall(r"^\| (?!failure|-|\*)([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("failure", "stories"), [(failure, stories) for failure, _, stories in ROWS])
def test_the_story_of_a_failure_is_there(failure, stories):
    left = stories
    groups = re.findall(r"((?:`test_\w+`, )*`test_\w+`) \(([\w/]+\.py)\)", stories)
    assert groups, failure
    for names, path in groups:
        left = left.replace(f"{names} ({path})", "")
        known = re.findall(r"^(?:async )?def (test_\w+)\(", (TESTS / path).read_text("utf-8"), re.MULTILINE)
        assert [name for name in re.findall(r"test_\w+", names) if name not in known] == []
    assert left.strip(", ") == "", "a story without the file that it is in"


def test_the_table_is_read():
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(ROWS) == len(lines) > 30
