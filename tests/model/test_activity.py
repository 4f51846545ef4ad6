"""The activity probe's grammar and judgement. Whatever is not clearly idle or busy is unreadable."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.model.activity import Activity, judge, judge_exit, parse


def test_the_three_forms_are_read():
    assert parse("http:8080/idle?queue=a") == Activity("http:8080/idle?queue=a", "http", 8080, "/idle?queue=a")
    assert parse("http:8080").path == "/"
    metric = parse('metric:9090/metrics#jobs_active{queue="a,b",kind="x\\"y"}')
    assert (metric.port, metric.path, metric.metric) == (9090, "/metrics", "jobs_active")
    assert metric.labels == (("queue", "a,b"), ("kind", 'x"y'))
    assert parse("metric:9090#jobs").path == "/metrics"
    assert parse("exec:sh -c 'test ! -e /tmp/job'").command == ("sh", "-c", "test ! -e /tmp/job")


@pytest.mark.parametrize(
    "text",
    [
        "", "http", "http:", "http:0/x", "http:70000/x", "http:80 /x", "http:x/y", "http:80/a#b", "https:443/", "exec:",
        "exec:  ", "exec:'unclosed", "metric:80/metrics", "metric:80/m#", "metric:80/m#a{b}", 'metric:80/m#a{b="c"',
        'metric:80/m#a{b="c"}x', "metric:80/m#1a", "idle",
    ],
)  # fmt: skip
def test_anything_else_is_an_error_with_the_grammar(text):
    with pytest.raises(ValueError, match="no activity probe"):
        parse(text)


@pytest.mark.parametrize(
    ("status", "is_idle"),
    [(200, True), (503, False), (409, False), (204, None), (301, None), (404, None), (429, None), (500, None)],
)
def test_an_http_answer_is_idle_busy_or_unreadable(status, is_idle):
    assert judge(parse("http:80/idle"), status, b"3 jobs\nmore").is_idle is is_idle


def test_the_first_line_is_shown_and_nothing_that_could_confuse_a_terminal():
    assert str(judge(parse("http:80/idle"), 503, b"3 jobs left\nx")) == "activity http:80/idle says busy: 3 jobs left"
    assert judge(parse("http:80/idle"), 503, b"\x1b[31mred\xff").detail == "?[31mred\N{REPLACEMENT CHARACTER}"
    assert len(judge(parse("http:80/idle"), 503, b"x" * 5000).detail) == 120


PAGE = b"""# HELP jobs_active Jobs.
# TYPE jobs_active gauge
jobs_active{queue="a",kind="x"} 2
jobs_active{queue="a",kind="y"} 1.5 1395066363000
jobs_active{queue="b",kind="a}b"} 0
jobs_active_total 99
other NaN
"""


@pytest.mark.parametrize(
    ("series", "is_idle", "detail"),
    [
        ("jobs_active", False, "jobs_active is 3.5"),
        ('jobs_active{queue="a"}', False, "jobs_active is 3.5"),
        ('jobs_active{queue="a",kind="x"}', False, "jobs_active is 2"),
        ('jobs_active{queue="b"}', True, "jobs_active is 0"),
        ('jobs_active{queue="c"}', None, 'there is no sample of jobs_active{queue="c"}'),
        ("jobs", None, "there is no sample of jobs"),
        ("other", None, "a sample is no count: nan"),
    ],
)
def test_the_matching_samples_are_summed(series, is_idle, detail):
    answer = judge(parse(f"metric:80/metrics#{series}"), 200, PAGE)
    assert (answer.is_idle, answer.detail) == (is_idle, detail)


@pytest.mark.parametrize(
    "page",
    [
        b"jobs",
        b"jobs x",
        b'jobs{a="b} 0',
        b"jobs 0\njobs -1",
        b"jobs 0\njobs nan",
        b"",
        b"\xff",
        b"jobs 0 0 0",
        b"<html>",
    ],
)
def test_what_is_no_count_is_unreadable(page):
    assert judge(parse("metric:80/m#jobs"), 200, page).is_idle is None


def test_infinitely_busy_is_busy_and_an_error_page_unreadable():
    assert judge(parse("metric:80/m#jobs"), 200, b"jobs +Inf").is_idle is False
    assert judge(parse("metric:80/m#jobs"), 503, b"jobs 0").is_idle is None


@pytest.mark.parametrize(("code", "is_idle"), [(0, True), (1, False), (2, None), (126, None), (137, None)])
def test_a_command_says_it_by_its_exit_code(code, is_idle):
    assert judge_exit(parse("exec:check"), code, b"").is_idle is is_idle


@given(st.text(max_size=60), st.binary(max_size=200))
def test_no_text_and_no_answer_breaks_it(text, body):
    for series in ('jobs{a="b"}', "jobs"):
        assert judge(parse(f"metric:80/m#{series}"), 200, body).is_idle in (True, False, None)
    with contextlib.suppress(ValueError):
        assert parse(text).text == text.strip()
