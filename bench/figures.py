"""Measured figures and what they are held against. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. ``is_met`` is None for a figure without a target; ``note`` says what it stands beside."""

    name: str
    value: float
    unit: str
    target: str = ""
    is_met: bool | None = None
    note: str = ""


def at_least(name: str, value: float, unit: str, least: float, note: str = "") -> Figure:
    """A figure that must not be below ``least``."""
    return Figure(name, value, unit, f">= {number(least)}", value >= least, note)


def below(name: str, value: float, unit: str, most: float, note: str = "") -> Figure:
    """A figure that must stay below ``most``."""
    return Figure(name, value, unit, f"< {number(most)}", value < most, note)


def at_most(name: str, value: float, unit: str, most: float, note: str = "") -> Figure:
    """A figure that must not be above ``most``."""
    return Figure(name, value, unit, f"<= {number(most)}", value <= most, note)


def holds(name: str, is_met: bool, note: str = "") -> Figure:
    """A statement that is true or false; its value is 1 or 0."""
    return Figure(name, float(is_met), "", "holds", is_met, note)


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that ``fraction`` of all are at or below; 0 without values."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def number(value: float) -> str:
    """Three significant digits, large ones whole: 0.0123, 2.71, 43,500."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    text = f"{value:.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def counted(results: Sequence[str]) -> str:
    """ "3 verified, 1 timed-out", in order of appearance."""
    return ", ".join(f"{list(results).count(one)} {one}" for one in dict.fromkeys(results))


def verdict(figure: Figure) -> str:
    """PASS, FAIL, or nothing for a figure without a target."""
    if figure.is_met is None:
        return ""
    return "PASS" if figure.is_met else "FAIL"


def lines(title: str, figures: Sequence[Figure]) -> list[str]:
    """The figures as aligned text under their title."""
    rows = [
        (verdict(one), one.name, f"{number(one.value)} {one.unit}".strip() if one.target != "holds" else "",
         one.target if one.target != "holds" else "", one.note)
        for one in figures
    ]  # fmt: skip
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    text = [title]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width)
        text.append("  " + "  ".join(cells).rstrip())
    return text
