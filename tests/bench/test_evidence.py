"""The evidence page takes in what was measured and nothing else changes."""

from __future__ import annotations

import json

from bench.demo import judged
from bench.evidence import demo_block, figures_block, renewed
from bench.figures import verdict

PAGE = """# Evidence

Prose stays.

<!-- bench:lab_up -->
old
<!-- /bench -->

<!-- bench:later -->
not measured yet
<!-- /bench -->
"""


def test_a_block_is_replaced_and_everything_else_stays():
    assert renewed(PAGE, {"lab_up": "new\n"}) == PAGE.replace("old", "new")


def test_renewing_twice_changes_nothing_more():
    once = renewed(PAGE, {"lab_up": "new"})
    assert renewed(once, {"lab_up": "new"}) == once


def test_figures_become_a_table_under_their_machine():
    figures = [
        {"name": "boot", "value": 0.61, "unit": "s", "target": "< 1.5", "is_met": True, "note": "of 10"},
        {"name": "same digest", "value": 0.0, "unit": "", "target": "holds", "is_met": False, "note": ""},
    ]
    table = figures_block({"title": "Boot", "ground": "2 cores, load 1.0 to 1.2", "figures": figures})
    assert table.splitlines() == [
        "*2 cores, load 1.0 to 1.2*",
        "",
        "| figure | measured | target | | |",
        "|---|---|---|---|---|",
        "| boot | 0.61 s | < 1.5 | PASS | of 10 |",
        "| same digest | no | yes | FAIL |  |",
    ]


def _row(name, dropped=0, result="verified"):
    return {
        "name": name,
        "requests": 10_000,
        "dropped": dropped,
        "dropped_by_cause": {"reset": dropped} if dropped else {},
        "rollout_seconds": 3.05,
        "excess_pod_seconds": 7.26,
        "drain_seconds": {"p50": 1.118, "max": 1.922},
        "drains": [{"pod": f"echo-{index}", "result": result} for index in range(4)],
    }


def _six(**changed):
    rows = {
        "plain": _row("plain", 143, "ungated"),
        "sleep-5": _row("sleep-5", 0, "ungated"),
        "sleep-15": _row("sleep-15", 0, "ungated"),
        "tidegate": _row("tidegate"),
        "sleep-5+lag": _row("sleep-5+lag", 801, "ungated"),
        "tidegate+lag": _row("tidegate+lag"),
    }
    return list({**rows, **changed}.values())


def test_the_demo_becomes_a_row_per_run():
    lines = demo_block({"runs": [_row("plain", 143, "ungated"), _row("tidegate")]}).splitlines()
    assert lines[2:] == [
        "| plain | 10000 | 143 (reset 143) | 3.0 s | 7.3 | 1.12 s | 1.92 s | 4 ungated |",
        "| tidegate | 10000 | 0 | 3.0 s | 7.3 | 1.12 s | 1.92 s | 4 verified |",
    ]


def _verdicts(runs, exit_code=0, seconds=97.0):
    return {one.name: verdict(one) for one in judged(json.loads(json.dumps(runs)), exit_code, seconds)}


def test_a_good_demo_passes_every_line():
    assert set(_verdicts(_six()).values()) == {"PASS"}


def test_a_lossless_plain_row_fails_the_demo():
    assert _verdicts(_six(plain=_row("plain", 0, "ungated")))["plain dropped"] == "FAIL"


def test_one_lost_request_or_one_unverified_drain_fails_the_demo():
    assert _verdicts(_six(tidegate=_row("tidegate", 1)))["Tidegate's rows dropped nothing"] == "FAIL"
    assert _verdicts(_six(tidegate=_row("tidegate", 0, "timed-out")))["every Tidegate drain verified"] == "FAIL"


def test_a_missing_tidegate_row_fails_the_demo():
    found = _verdicts([one for one in _six() if one["name"] != "tidegate"])
    assert found["Tidegate's rows dropped nothing"] == "FAIL"
    assert found["six rows, every one valid"] == "FAIL"
