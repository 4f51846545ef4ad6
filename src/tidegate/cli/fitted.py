"""Long lines on a terminal: folded between words, what follows under what it belongs to."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TextIO

_LEAD = re.compile(r"\s*(?:\d+\. |\d\d:\d\d:\d\d  |\d+\.\d s  |(?:note|refused|foreseen): )?")
WIDTH_MIN = 40


def fitted(text: str, stream: TextIO | None = None) -> str:
    """``text`` as wide as the terminal of ``stream`` (stderr); as it is where that is none."""
    stream = stream or sys.stderr
    return folded(text, shutil.get_terminal_size().columns) if stream.isatty() else text


def folded(text: str, width: int) -> str:
    """Each line at most ``width`` wide, where words allow."""
    return "\n".join(_folded(line, max(width, WIDTH_MIN)) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    found = _LEAD.match(line)
    hang = " " * (len(found[0]) if found is not None and found[0] else 2)
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False))
