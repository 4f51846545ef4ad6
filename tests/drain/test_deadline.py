"""Deadlines: the kubelet's clock, while a gate is held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tidegate.drain import Budget, gate_deadline

DELETED = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(("grace", "left"), [(60, 48), (30, 18), (12, 0), (5, -7)])
def test_a_gate_leaves_the_app_its_stop_budget_and_the_kubelet_two_seconds(grace, left):
    timestamp = DELETED + timedelta(seconds=grace)  # as the API server writes it
    assert gate_deadline(timestamp) == DELETED + timedelta(seconds=left)


def test_an_app_that_stops_faster_leaves_more_for_the_drain():
    timestamp = DELETED + timedelta(seconds=30)
    assert gate_deadline(timestamp, Budget(app_stop_seconds=3)) == DELETED + timedelta(seconds=25)
