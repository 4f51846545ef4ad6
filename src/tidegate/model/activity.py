"""The activity probe: how to ask a workload whether it is working though nobody is connected to it.

    http:PORT/PATH                       200 idle, 503 or 409 busy; the body's first line is shown
    metric:PORT/PATH#NAME{label="v"}     Prometheus text: the sum of the matching samples, 0 idle, more is busy
    exec:COMMAND ...                     exit code 0 idle, 1 busy

Every other answer is unreadable, and what is unreadable is never idle. Pure: the adapters are in
``observers.activity``.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

PLACE = "{revision}"
"""In a probe of a release: the revision's name. Such a probe may be put to any live pod (a queue's length tells of work
that no pod has yet); one without it asks each pod for its own."""
GRAMMAR = 'http:PORT/PATH, metric:PORT/PATH#NAME{label="value"} or exec:COMMAND'
LINE_CHARACTERS_MAX = 120

_TARGET = re.compile(r"([0-9]{1,5})(/[^#\s]*)?")
_METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+(\S+)(?:\s+-?\d+)?\s*')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@dataclass(frozen=True, slots=True)
class Activity:
    """One probe, as ``text`` says it. ``port`` and ``path`` are of the pod's own address."""

    text: str
    kind: Literal["http", "metric", "exec"]
    port: int = 0
    path: str = ""
    metric: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Answer:
    """What the workload said. ``is_idle`` is None where that could not be told, ``amount`` where it said no number."""

    probe: str
    is_idle: bool | None
    detail: str = ""
    amount: float | None = None

    def __str__(self) -> str:
        word = {True: "says idle", False: "says busy", None: "cannot be read"}[self.is_idle]
        return f"activity {self.probe} {word}" + (f": {self.detail}" if self.detail else "")


def parse(text: str) -> Activity:
    """Raises ``ValueError`` with the grammar."""
    wanted = text.strip()
    kind, colon, rest = wanted.partition(":")
    if kind == "exec" and colon:
        try:
            command = tuple(shlex.split(rest))
        except ValueError as error:
            raise ValueError(f"{text!r} is no activity probe: {error}") from error
        if command:
            return Activity(wanted, "exec", command=command)
    elif kind in ("http", "metric") and colon:
        target, hash_, series = rest.partition("#")
        where, what = _TARGET.fullmatch(target), _METRIC.fullmatch(series)
        is_port = where is not None and 0 < int(where[1]) < 65_536
        if where is not None and is_port and kind == "http" and not hash_:
            return Activity(wanted, "http", int(where[1]), where[2] or "/")
        if where is not None and is_port and kind == "metric" and what is not None:
            labels = _labels(what[2] or "")
            if labels is not None:
                return Activity(wanted, "metric", int(where[1]), where[2] or "/metrics", what[1], labels)
    raise ValueError(f"{text!r} is no activity probe: write {GRAMMAR}")


def judge(activity: Activity, status: int, body: bytes) -> Answer:
    """What an HTTP answer to an ``http`` or ``metric`` probe says."""
    if activity.kind == "metric":
        return _judge_metric(activity, status, body)
    line = first_line(body)
    if status == 200:
        return Answer(activity.text, True, line)
    if status in (409, 503):
        return Answer(activity.text, False, line)
    return Answer(activity.text, None, f"it answered {status}" + (f": {line}" if line else ""))


def judge_exit(activity: Activity, code: int, output: bytes) -> Answer:
    """What the end of an ``exec`` probe's command says."""
    line = first_line(output)
    if code in (0, 1):
        return Answer(activity.text, code == 0, line)
    return Answer(activity.text, None, f"exit code {code}" + (f": {line}" if line else ""))


def unreadable(activity: Activity, why: str) -> Answer:
    """No answer at all."""
    return Answer(activity.text, None, why)


def first_line(body: bytes) -> str:
    """For people: printable, and not long."""
    line = next(iter(body.decode("utf-8", "replace").strip().splitlines()), "")
    return "".join(one if one.isprintable() else "?" for one in line[:LINE_CHARACTERS_MAX]).strip()


def _judge_metric(activity: Activity, status: int, body: bytes) -> Answer:
    if status != 200:
        return Answer(activity.text, None, f"it answered {status}")
    try:
        values = list(_samples(activity, body.decode()))
    except ValueError as error:
        return Answer(activity.text, None, str(error))
    if not values:
        return Answer(activity.text, None, f"there is no sample of {activity.text.partition('#')[2]}")
    if any(math.isnan(value) or value < 0 for value in values):
        return Answer(activity.text, None, f"a sample is no count: {', '.join(f'{value:g}' for value in values[:5])}")
    total = sum(values)
    return Answer(activity.text, total == 0, f"{activity.metric} is {total:g}", total)


def _samples(activity: Activity, text: str) -> Iterator[float]:
    """The values of the samples that carry the name and at least the labels asked for. Raises ``ValueError``."""
    for line in text.splitlines():
        if not re.match(rf"\s*{re.escape(activity.metric)}(?![a-zA-Z0-9_:])", line):
            continue
        found = _SAMPLE.fullmatch(line.strip())
        labels = _labels(found[2] or "") if found is not None else None
        if found is None or labels is None:
            raise ValueError(f"not Prometheus text: {line.strip()[:80]!r}")
        if set(activity.labels) <= set(labels):
            yield float(found[3])


def _labels(text: str) -> tuple[tuple[str, str], ...] | None:
    """``a="1",b="2"`` -> pairs; None for anything else."""
    found = []
    at = 0
    while text[at:].strip():
        label = _LABEL.match(text, at)
        if label is None:
            return None
        value = re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), label[2])
        found.append((label[1], value))
        at = label.end()
    return tuple(found)
