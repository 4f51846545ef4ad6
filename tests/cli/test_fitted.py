"""Lines that are wider than the terminal."""

from __future__ import annotations

import pytest

from tidegate.cli.fitted import folded


@pytest.mark.parametrize("line, lead", [
    ("  4. " + "word " * 30, 5),
    ("  21:23:00  " + "word " * 30, 12),
    ("  note: " + "word " * 30, 8),
    ("deploy/echo waits: " + "word " * 30, 2),
])  # fmt: skip
def test_what_follows_stands_under_what_it_belongs_to(line, lead):
    found = folded(line, 80).split("\n")
    assert len(found) > 1 and max(map(len, found)) <= 80
    assert {len(one) - len(one.lstrip()) for one in found[1:]} == {lead}
    assert " ".join(" ".join(found).split()) == " ".join(line.split())


def test_what_fits_and_what_has_no_space_to_fold_at_is_left_as_it_is():
    assert folded("  REVISION  ROLE", 80) == "  REVISION  ROLE"
    assert folded("x" * 100, 80) == "x" * 100
