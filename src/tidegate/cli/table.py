"""Rows with aligned columns, as kubectl prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), indent: str = "") -> list[str]:
    """Lines, without trailing blanks; none (not even the header) without rows. A column that is empty in every row is
    left out."""
    cells = [tuple(row) for row in rows]
    if not cells:
        return []
    kept = [column for column in range(len(cells[0])) if any(row[column] for row in cells)]
    shown = [[row[column] for column in kept] for row in ([tuple(header)] if header else []) + cells]
    widths = [max(len(row[column]) for row in shown) for column in range(len(kept))]
    return [
        indent + "  ".join((cell or "-").ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
