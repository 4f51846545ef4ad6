"""``make docs``: redraw the parts of docs/ that are drawn from code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tidegate.drain import picture

PROTOCOL = Path(__file__).parent.parent / "docs" / "protocol.md"
DRAWINGS = {"mermaid": picture.mermaid, "text": picture.text}


def redraw(page: str) -> str:
    """The page with every drawing made anew. Raises ``LookupError`` when a drawing's place is missing."""
    for kind, draw in DRAWINGS.items():
        place = re.compile(rf"(<!-- drawn from [^>]*: {kind} -->\n```\w*\n).*?(```\n)", re.DOTALL)
        page, count = place.subn(lambda found, drawing=draw(): f"{found[1]}{drawing.rstrip()}\n{found[2]}", page)
        if not count:
            raise LookupError(f"{PROTOCOL.name} has no place for the {kind} drawing")
    return page


def main() -> int:
    before = PROTOCOL.read_text("utf-8")
    after = redraw(before)
    PROTOCOL.write_text(after, "utf-8")
    print(f"{PROTOCOL.name}: {'unchanged' if after == before else 'redrawn'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
