"""The report is one file that needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from tidegate.rehearse import chart, report
from tidegate.rehearse.settings import ROWS
from tidegate.rehearse.verdict import judge

MADE_AT = "2026-11-20 10:40 UTC"
VOID = frozenset({"meta", "rect", "line", "circle", "polygon", "path"})


class Outline(HTMLParser):
    """Tags, attributes and whether every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(rehearsal: Any) -> str:
    made = rehearsal(ROWS[:5], requests_min=2000, new_per_second=80.0, pool_per_second=80.0)
    return report.render(made, judge(made), MADE_AT)


def test_the_report_refers_to_nothing_outside_itself(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    links = [
        (tag, name, value) for tag, name, value in outline.attributes if name in ("src", "href", "srcset", "action")
    ]
    assert all(value.startswith("#") for _, _, value in links)
    assert not re.search(r"https?://|//[a-z]|@import|url\((?!#)|fetch\(|XMLHttpRequest|<link|<iframe|<img", page)


def test_every_tag_of_the_report_is_closed(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []


def test_every_link_of_the_report_has_its_target(page: str) -> None:
    targets = re.findall(r'href="#([^"]+)"', page)
    assert len(targets) == 5
    assert all(f'id="{target}"' in page for target in targets)


def test_the_report_has_a_light_and_a_dark_dress(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "color-scheme: light dark" in page


def test_each_chart_is_well_formed_and_has_a_row_per_pod(rehearsal: Any) -> None:
    made = rehearsal(ROWS[:1], requests_min=2000, new_per_second=80.0, pool_per_second=80.0)
    line = made.runs[0].timeline
    root = ElementTree.fromstring(chart.chart(line, chart.common_scale([line])))
    labels = [node for node in root.iter("text") if node.get("class") == "pod"]
    assert len(labels) == len(line.tracks) == 8


def test_a_lost_request_is_on_the_strip_and_at_its_pod(rehearsal: Any) -> None:
    made = rehearsal(ROWS[:1], requests_min=2000, new_per_second=80.0, pool_per_second=80.0)
    line = made.runs[0].timeline
    root = ElementTree.fromstring(chart.chart(line, chart.common_scale([line])))
    drawn = sum(
        int((node.get("data-tip") or "").split()[0])
        for node in root.iter("rect")
        if "loss" in (node.get("class") or "")
    )
    assert drawn == len(line.losses) > 0
    hits = sum(int((node.get("data-tip") or "").split()[0]) for node in root.iter("line") if node.get("class") == "hit")
    assert hits == sum(track.lost for track in line.tracks) > 0


def test_names_from_the_cluster_are_escaped(rehearsal: Any) -> None:
    made = rehearsal(ROWS[:1], requests_min=200, new_per_second=8.0, pool_per_second=8.0)
    run = made.runs[0]
    track = run.timeline.tracks[0]
    evil = replace(track, seen=replace(track.seen, name='<script>alert("1")</script>', node="<b>"))
    line = replace(run.timeline, tracks=(evil, *run.timeline.tracks[1:]))
    page = report.render(replace(made, runs=(replace(run, timeline=line),)), judge(made), MADE_AT)
    assert "<script>alert" not in page
    assert "<b>" not in page


def test_an_invalid_run_says_so_on_the_page(rehearsal: Any) -> None:
    made = rehearsal(ROWS[:1], requests_min=200, new_per_second=8.0, pool_per_second=8.0)
    broken = replace(made, runs=(replace(made.runs[0], invalid="the machine is too busy"),))
    assert "This run is invalid: the machine is too busy." in report.render(broken, judge(broken), MADE_AT)


def badge(made: Any) -> str:
    found = re.search(r'class="verdict \w+">([^<]*)<', report.render(made, judge(made), MADE_AT))
    assert found
    return found[1]


def headline(made: Any) -> str:
    found = re.search(r"<h1>([^<]*)</h1>", report.render(made, judge(made), MADE_AT))
    assert found
    return found[1]


def test_the_good_badge_speaks_for_tidegates_rows_only(rehearsal: Any) -> None:
    made = rehearsal(ROWS[:4], requests_min=400, new_per_second=16.0, pool_per_second=16.0)
    assert made.runs[0].tally.dropped
    assert badge(made) == "Tidegate: every drain verified, nothing lost"
    assert headline(made).startswith("Tidegate lost 0 of ")


def test_without_a_tidegate_row_nothing_is_claimed(rehearsal: Any) -> None:
    made = rehearsal(ROWS[:1], requests_min=400, new_per_second=16.0, pool_per_second=16.0)
    assert badge(made) == "no Tidegate row was played"
    assert headline(made) == f"A rolling update without Tidegate lost {made.runs[0].tally.dropped} of 440 requests"


def test_an_invalid_tidegate_run_is_not_counted_as_a_zero(rehearsal: Any) -> None:
    made = rehearsal(ROWS[3:4], requests_min=400, new_per_second=16.0, pool_per_second=16.0)
    broken = replace(made, runs=(replace(made.runs[0], invalid="the machine is too busy"),))
    assert badge(broken) == "exit code 1"
    assert headline(broken) == "A Tidegate run is invalid: nothing is proven"


def test_no_state_is_told_by_colour_alone(rehearsal: Any) -> None:
    """On paper: cut is striped, draining thin, gone yet routed hatched, and new pods are labelled v2."""
    made = rehearsal(ROWS[4:5], requests_min=400, new_per_second=16.0, pool_per_second=16.0)
    page = report.render(made, judge(made), MADE_AT)
    assert ".cut { fill: url(#cut); }" in page and '<pattern id="cut"' in page
    assert ".stale { fill: url(#stale);" in page and '<pattern id="stale"' in page
    line = made.runs[0].timeline
    root = ElementTree.fromstring(chart.chart(line, chart.common_scale([line])))
    heights = {str(node.get("class")): float(node.get("height") or 0) for node in root.iter("rect")}
    assert heights["ready"] == heights["cut"]
    labels = [str(node.text) for node in root.iter("text") if node.get("class") == "pod"]
    assert sum(label.startswith("v2") for label in labels) == 4
    sleeping = rehearsal(ROWS[1:2], requests_min=400, new_per_second=16.0, pool_per_second=16.0).runs[0].timeline
    root = ElementTree.fromstring(chart.chart(sleeping, chart.common_scale([sleeping])))
    heights = {str(node.get("class")): float(node.get("height") or 0) for node in root.iter("rect")}
    assert heights["draining"] < heights["ready"]


def test_wide_tables_scroll_inside_their_card(page: str) -> None:
    """A phone's page must not grow wider than the phone."""
    assert page.count("<table>") == page.count('scroll"><table>')
