"""What an answer to an analysis means: passed, failed, or a problem, which is never success."""

from __future__ import annotations

import json

import pytest

from tidegate.release.analysis import (
    Finding,
    added,
    condition,
    is_due,
    is_failed,
    is_over,
    judge_answer,
    judge_exit,
    judge_prometheus,
    judge_status,
    judge_value,
    key_of,
)
from tidegate.release.record import Measured, Status
from tidegate.release.spec import Analysis

ONE = Analysis("rate", "prometheus", url="http://p", query="q", success=">= 0.99", count=3, interval_seconds=10)


def prometheus(result, kind="vector", status="success", **more):
    return json.dumps({"status": status, "data": {"resultType": kind, "result": result}, **more}).encode()


def sample(value):
    return [{"metric": {}, "value": [1795292556.5, value]}]


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        (">= 0.99", 0.99, True),
        (">= 0.99", 0.98, False),
        ("< 0.01", 0.0, True),
        ("<0.01", 0.01, False),
        ("> -1e-3", 0.0, True),
        (" <= 5. ", 5.0, True),
        ("== 0", 0.0, True),
        ("!= 0", 0.0, False),
        ("> 0", float("inf"), True),
    ],
)
def test_a_condition_compares(text, value, holds):
    assert condition(text).holds(value) is holds
    assert judge_value(value, text).is_passed is holds


@pytest.mark.parametrize("text", ["", "0.99", "=> 1", ">= one", ">= 1 and < 2", ">="])
def test_what_is_no_comparison_is_a_problem_and_says_so(text):
    with pytest.raises(ValueError, match="is no condition: write a comparison"):
        condition(text)
    assert judge_value(1.0, text).is_passed is None


@pytest.mark.parametrize(
    ("status", "body", "is_passed", "text"),
    [
        (200, prometheus(sample("0.995")), True, "0.995 is >= 0.99"),
        (200, prometheus(sample("0.5")), False, "0.5 is not >= 0.99"),
        (200, prometheus([1.0, "1"], "scalar"), True, "1 is >= 0.99"),
        (200, prometheus(sample("NaN")), None, "not a number"),
        (200, prometheus([]), None, "no sample"),
        (200, prometheus([*sample("1"), *sample("1")]), None, "2 samples"),
        (200, prometheus([[1.0, "1"]], "matrix"), None, "neither a vector nor a scalar"),
        (200, prometheus(sample("one")), None, "no value"),
        (200, prometheus([{"metric": {}}]), None, "neither a vector nor a scalar"),
        (422, prometheus(None, status="error", error="parse error at char 3"), None, "parse error at char 3"),
        (503, b"<html>", None, "not as Prometheus does"),
        (200, b"", None, "not as Prometheus does"),
        (200, b"{}", None, "it answered 200"),
    ],
)
def test_an_answer_of_prometheus(status, body, is_passed, text):
    found = judge_prometheus(status, body, ">= 0.99")
    assert found.is_passed is is_passed and text in found.text


def test_before_traffic_moves_it_only_has_to_answer():
    assert judge_answer(200, prometheus([])).is_passed is True
    assert judge_answer(200, prometheus(sample("0"))).is_passed is True
    assert judge_answer(400, prometheus(None, status="error", error="no such function")).is_passed is None


@pytest.mark.parametrize(("status", "is_passed"), [(200, True), (204, True), (404, False), (503, False), (302, None)])
def test_an_http_check(status, is_passed):
    assert judge_status(status).is_passed is is_passed


@pytest.mark.parametrize(("code", "is_passed"), [(0, True), (1, False), (2, None), (127, None), (-9, None)])
def test_a_command(code, is_passed):
    assert judge_exit(code).is_passed is is_passed


def test_answers_add_up_and_a_problem_counts_as_neither():
    found = Measured()
    for is_passed in (True, None, None, False):
        found = added(found, Finding(is_passed, str(is_passed)), found.at + 10)
    assert (found.passed, found.failed, found.problem, found.problems, found.last) == (1, 1, "", 0, "False")
    assert is_failed(ONE, found) and not is_over(ONE, found)
    found = added(Measured(passed=2), Finding(None, "gone"), 5.0)
    assert (found.passed, found.problem, found.problems) == (2, "gone", 1)
    assert not is_failed(ONE, found) and not is_over(ONE, found)
    assert not is_due(ONE, found, 14.9) and is_due(ONE, found, 15.0) and is_due(ONE, None, 0.0)


def test_answers_of_another_release_or_step_are_no_answers_of_this():
    status = Status(step=1, began=100.0)
    keys = {
        key_of(status, ONE, "1"),
        key_of(status, ONE, "before"),
        key_of(status, ONE, "2"),
        key_of(Status(step=1, began=200.0), ONE, "1"),
    }
    assert len(keys) == 4
