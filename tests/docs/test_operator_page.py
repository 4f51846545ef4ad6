"""docs/operator.md lists the metrics, conditions and reasons that there are."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from tidegate.operator.conditions import TYPES
from tidegate.operator.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "operator.md").read_text("utf-8")


def test_every_metric_is_on_the_page_with_its_type_and_labels():
    told = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(tidegate_\w+)` \| (\w+) \|([^|]*)\|", PAGE, re.MULTILINE)
    }
    kinds = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    found = {
        f"{one._name}_total" if isinstance(one, Counter) else one._name: (kinds[type(one)], one._labelnames)
        for one in vars(Metrics()).values()
        if type(one) in kinds
    }
    assert told == found


def test_every_condition_is_on_the_page():
    assert tuple(re.findall(r"^\| `([A-Z]\w+)` \| [^N|W]", PAGE, re.MULTILINE))[: len(TYPES)] == TYPES


def test_every_reason_of_an_event_is_on_the_page():
    source = "".join(
        path.read_text("utf-8") for path in (Path(__file__).parents[2] / "src/tidegate/operator").glob("*.py")
    )
    reasons = {*re.findall(r'Word\("(\w+)"', source), *re.findall(r'write\(\S+, "\w+", "(\w+)"', source)}
    assert {one for one in reasons if f"`{one}`" not in PAGE} <= {"Valid", "Waiting", "Acknowledged", "NotAsked"}
