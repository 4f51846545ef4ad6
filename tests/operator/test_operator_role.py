"""The operator carries out releases with the rights of its printed roles, and needs every write that they give it."""

from __future__ import annotations

import asyncio
import itertools

from operator_stage import Hand, asked, deleted, play, seen, until
from stage import deployment
from tests.agent.test_roles_in_a_lab import HeldTo, beyond

from tidegate.agent import roles
from tidegate.agent.manifests import Installation, pieces
from tidegate.model.names import OPERATOR


def held(stage, **options):
    """An operator that may do what its roles say."""
    hand = Hand(stage, **options)
    hand.wire.exchange = HeldTo(hand.wire.exchange, (OPERATOR, roles.RELEASE))
    return hand, hand.wire.exchange


def test_rolling_is_done_and_undone_with_no_more_than_its_roles():
    async def story(stage):
        hand, rights = held(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        await deleted(stage)
        await asyncio.sleep(5)
        await hand.leave()
        return rights

    assert beyond(play(story)) == []


def wanted(strategy):
    images = {"echo": "tidegate/echo:v2"}
    return {
        "rolling": {"images": images},
        "bluegreen": {"images": images, "strategy": "bluegreen", "bluegreen": {"service": "echo"}},
        "rainbow": {
            "images": images, "strategy": "rainbow",
            "rainbow": {"service": "echo", "idle_seconds": 3.0, "retire_seconds": 15.0},
        },
    }[strategy]  # fmt: skip


def carried(strategy, manifest=None, seconds=90):
    """What was asked of the API for a release from its beginning to the end of its object."""

    async def story(stage):
        hand, rights = held(stage)
        await asked(stage, **wanted(strategy))
        await asyncio.sleep(seconds)
        status = (await seen(stage)).get("status") or {}
        await deleted(stage)
        await asyncio.sleep(5)
        await hand.leave()
        return rights, status.get("phase")

    return play(story, manifest)


def test_all_strategies_need_everything_that_the_operators_roles_give_and_nothing_else():
    used, phases, refused = set(), {}, []
    for strategy in ("rolling", "bluegreen", "rainbow"):
        rights, phases[strategy] = carried(strategy, deployment(gate=False) if strategy == "rolling" else None)
        used |= rights.passed
        refused += beyond(rights)
    assert refused == []
    assert phases == dict.fromkeys(phases, "done")
    given = {cell for name, rule in rules_of() if name in (roles.RELEASE, OPERATOR) for cell in rule}
    elsewhere = {
        ("get", "secrets"), ("create", "secrets"), ("update", "secrets"),  # the webhook's: tests/realcluster
        ("get", "mutatingwebhookconfigurations"), ("patch", "mutatingwebhookconfigurations"),
        ("list", "drains"), ("patch", "drains"), ("delete", "drains"),  # of old records, and those with an afterword
        ("patch", "observers/status"),  # where there is one
        ("patch", "events"),  # of one that happens again
        ("delete", "deployments"),  # of a revision that is retired
        ("patch", "horizontalpodautoscalers"),  # where there is one: tests/client/release
        ("get", "httproutes"), ("patch", "httproutes"), ("get", "traefikservices"), ("patch", "traefikservices"),
    }  # fmt: skip
    assert given - used <= elsewhere, sorted(given - used - elsewhere)


def rules_of():
    for piece in pieces(Installation("x")):
        for rule in piece.manifest.get("rules", ()):
            yield piece.manifest["metadata"]["name"], itertools.product(rule["verbs"], rule["resources"])
