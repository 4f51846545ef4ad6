"""What an answer to an analysis means, and when it is asked again. Pure: ``client/release/analysis.py`` asks.

Three-valued: passed, failed, and a *problem*: unreachable, no data, not a number. A problem is never success and never
failure: the release waits where it is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.release.record import Measured, Status
from tidegate.release.spec import Analysis

PROBLEMS_MAX = 3
"""So many in a row are more than a hiccup: then the release pauses."""
_SUCCESS = re.compile(r"\s*(>=|<=|>|<|==|!=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. ``is_passed`` is None for a problem; ``text`` is what was found, or why it could not be."""

    is_passed: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Condition:
    """``>= 0.99``."""

    operator: str
    limit: float

    def holds(self, value: float) -> bool:
        match self.operator:
            case ">=":
                return value >= self.limit
            case "<=":
                return value <= self.limit
            case ">":
                return value > self.limit
            case "<":
                return value < self.limit
            case "==":
                return value == self.limit
            case _:
                return value != self.limit


def condition(text: str) -> Condition:
    """Raises ``ValueError`` for what is no comparison with a number."""
    found = _SUCCESS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no condition: write a comparison and a number, such as '>= 0.99'")
    return Condition(found[1], float(found[2]))


def judge_value(value: float, success: str) -> Finding:
    """A number against a condition. No number is a problem."""
    if math.isnan(value):
        return Finding(None, "the value is not a number (NaN): there is nothing to judge yet")
    try:
        wanted = condition(success)
    except ValueError as error:
        return Finding(None, str(error))
    word = "is" if wanted.holds(value) else "is not"
    return Finding(wanted.holds(value), f"{value:g} {word} {success.strip()}")


class _Result(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str = ""
    result: Any = None


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    status: str = ""
    data: _Result = _Result()
    error: str = ""


def judge_prometheus(status: int, body: bytes, success: str) -> Finding:
    """The answer of ``GET /api/v1/query`` (Prometheus HTTP API, instant query): one sample, or a scalar."""
    answers = judge_answer(status, body)
    if not answers.is_passed:
        return answers
    answer = msgspec.json.decode(body, type=_Answer)
    samples = _samples(answer.data.result_type, answer.data.result)
    if samples is None:
        return Finding(None, f"a result of type {answer.data.result_type!r} is neither a vector nor a scalar")
    if len(samples) != 1:
        what = "no sample" if not samples else f"{len(samples)} samples"
        return Finding(None, f"the query found {what}, and one is judged")
    try:
        return judge_value(float(samples[0]), success)
    except (TypeError, ValueError):
        return Finding(None, f"{samples[0]!r} is no value")


def judge_answer(status: int, body: bytes) -> Finding:
    """Whether that was Prometheus at all; what the query found does not matter: there is no canary yet to be found."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Finding(None, f"it answered {status}, and not as Prometheus does")
    if status != 200 or answer.status != "success":
        return Finding(None, f"it answered {status}: {answer.error[:200] or answer.status or 'no reason given'}")
    return Finding(True, "it answers")


def _samples(kind: str, result: Any) -> list[Any] | None:
    """The values of a result; None for one of another shape."""
    try:
        if kind == "vector":
            return [one["value"][1] for one in result]
        if kind == "scalar":
            return [result[1]]
    except (KeyError, IndexError, TypeError):
        return None
    return None


def judge_status(status: int) -> Finding:
    """An HTTP check: 2xx passes, 4xx and 5xx do not, anything else is not understood."""
    if 200 <= status < 300:
        return Finding(True, f"it answered {status}")
    if status >= 400:
        return Finding(False, f"it answered {status}")
    return Finding(None, f"it answered {status}: neither success nor failure")


def judge_exit(code: int, output: str = "") -> Finding:
    """A command: exit 0 passes, 1 does not; anything else could not be judged (as the activity probe has it)."""
    text = f"exit code {code}" + (f": {output}" if output else "")
    return Finding({0: True, 1: False}.get(code), text)


# --- over time ---


def key_of(status: Status, analysis: Analysis, moment: str) -> str:
    """Under which its answers are remembered: of this release, and of one moment of it."""
    return f"{moment}/{analysis.name}/{status.began:.0f}"


def place_of(key: str) -> tuple[str, str]:
    """The name of the analysis of such a key, and in words the moment that it was asked at."""
    moment, _, rest = key.partition("/")
    match moment.partition("-")[0]:
        case "before":
            words = "before any traffic moves"
        case "flip":
            words = "before the flip"
        case "flipped":
            words = "after the flip"
        case _:
            words = f"at step {int(moment) + 1}" if moment.isdigit() else moment
    return rest.rpartition("/")[0], words


def added(measured: Measured, finding: Finding, at: float) -> Measured:
    """With one more answer."""
    if finding.is_passed is None:
        return msgspec.structs.replace(
            measured, problem=finding.text, problems=measured.problems + 1, at=at, last=measured.last
        )
    return Measured(
        passed=measured.passed + (1 if finding.is_passed else 0),
        failed=measured.failed + (0 if finding.is_passed else 1),
        last=finding.text,
        at=at,
    )


def is_failed(analysis: Analysis, measured: Measured) -> bool:
    return measured.failed > analysis.failure_limit


def is_over(analysis: Analysis, measured: Measured) -> bool:
    """Whether it has said all that is wanted of it at a step."""
    return measured.passed + measured.failed >= analysis.count


def is_due(analysis: Analysis, measured: Measured | None, now: float) -> bool:
    return measured is None or now - measured.at >= analysis.interval_seconds
