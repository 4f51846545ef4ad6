"""Quantities ("500m", "1Gi", "0.5", "1e3"): their value and their canonical spelling.

apimachinery/pkg/api/resource/quantity.go: a quantity keeps the suffix family it was written in, has no
fraction and the largest exponent that allows; what is smaller than one nano is rounded up.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil
from typing import Any

_SHAPE = re.compile(r"^([+-]?)(\d+\.?\d*|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+|n|u|m|k|M|G|T|P|E|)$")
_BINARY = {"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}

MALFORMED = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def parse(text: Any) -> Fraction:
    """The value; raises ValueError with the API server's wording for what is no quantity."""
    match = _SHAPE.match(str(text))
    if isinstance(text, bool) or not match:
        raise ValueError(MALFORMED)
    sign, digits, suffix = match.groups()
    number = Fraction(digits.rstrip(".") if not digits.startswith(".") else "0" + digits)
    if suffix in _BINARY and suffix:
        number *= 2 ** _BINARY[suffix]
    elif suffix in _DECIMAL:
        number *= Fraction(10) ** _DECIMAL[suffix]
    else:
        number *= Fraction(10) ** int(suffix[1:])
    return -number if sign == "-" else number


def canonical(text: Any) -> Any:
    """The spelling the API server answers with: "0.5" -> "500m", "1024Ki" -> "1Mi", 1 -> "1"; garbage unchanged."""
    try:
        number = parse(text)
    except ValueError:
        return text
    suffix = _SHAPE.match(str(text)).group(3)  # type: ignore[union-attr]  # parse() has matched it
    if suffix in _BINARY and suffix and abs(number) >= 1024:
        return _binary(number)
    if suffix[:1] in ("e", "E") and suffix != "E":
        return _scientific(number)
    return _decimal(number)


def _binary(number: Fraction) -> str:
    whole = ceil(number)
    for suffix, bits in reversed(_BINARY.items()):
        if whole % 2**bits == 0:
            return f"{whole >> bits}{suffix}"
    return str(whole)


def _decimal(number: Fraction) -> str:
    nanos = ceil(number * 10**9)
    if nanos == 0:
        return "0"
    for suffix, power in reversed(_DECIMAL.items()):
        if nanos % 10 ** (power + 9) == 0:
            return f"{nanos // 10 ** (power + 9)}{suffix}"
    return f"{nanos}n"


def _scientific(number: Fraction) -> str:
    nanos = ceil(number * 10**9)
    power = -9
    while nanos and nanos % 1000 == 0:
        nanos, power = nanos // 1000, power + 3
    return f"{nanos}e{power}" if power and nanos else str(nanos)
