"""An API server of which every other answer is bad, for longer than anybody is patient: how many commands it ends."""

from __future__ import annotations

import asyncio
import random

import pytest

from tidegate import vtime
from tidegate.cli.target import engine_patience, patience
from tidegate.kube.exchange import Request, whole
from tidegate.kube.patience import Patience, Patient

ASKED = 2000
SHARE = 0.5


def given_up(patience):
    """Of ``ASKED`` requests in a row."""

    async def story():
        rng = random.Random(0)

        async def exchange(request):
            await asyncio.sleep(0.01)
            return whole(503 if rng.random() < SHARE else 200, b"{}")

        patient = Patient(exchange, patience)
        found = [(await patient(Request("GET", "/api/v1/namespaces/demo/pods"))).status for _ in range(ASKED)]
        return found.count(503)

    return vtime.run(story(), seed=0)


@pytest.mark.parametrize("of", [patience, engine_patience])
def test_a_command_lives_through_it(of):
    assert given_up(of()) == 0


def test_asked_five_times_in_eight_seconds_it_would_not():
    assert given_up(Patience(8.0)) > 20
