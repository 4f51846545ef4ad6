"""Golden transcripts: the drain protocol as stories."""

from __future__ import annotations

from pathlib import Path

import pytest
from drain_stage import play

STORIES = Path(__file__).parent.parent / "golden" / "drain"


@pytest.mark.parametrize("name", sorted(path.name for path in STORIES.glob("*.txt") if path.name != "grid.txt"))
def test_the_drain_goes_as_the_story_tells(name, golden):
    golden(Path("drain") / name, play((STORIES / name).read_text("utf-8")))
