"""What the lab is known to answer otherwise is what users are told. Needs no cluster."""

from __future__ import annotations

from pathlib import Path

from tests.realcluster.known import KNOWN

LAB = Path(__file__).parents[2] / "docs" / "lab.md"


def test_every_known_difference_is_in_the_docs():
    text = LAB.read_text("utf-8")
    assert not [what for what, _ in KNOWN if what not in text]
