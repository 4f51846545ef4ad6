"""A release behind a headless Service: whoever resolves it is to be told of the new pods before the old ones end."""

from __future__ import annotations

import msgspec
from tests.observers.test_dns_stories import observer, resolved, told
from troupe import SPECS, at_rest, engine

from tidegate.kube.api import PODS, Selection

SERVERS = ("127.16.1.1", "127.16.1.2")


def test_old_pods_stay_until_every_server_answers_with_the_new_one(tmp_path):
    spec = msgspec.structs.replace(
        SPECS["canary"], canary=msgspec.structs.replace(SPECS["canary"].canary, service="peers"), progress_seconds=300
    )

    async def story(stage, clients):
        seen, reasons = [], []
        old = {pod["metadata"]["name"] for pod in await stage.pods()}

        async def look(turn):
            pods = (await stage.api.list(PODS, Selection("demo"))).items
            if not seen and any(
                one["metadata"]["name"] in old and "deletionTimestamp" in one["metadata"] for one in pods
            ):
                new = {one["status"]["podIP"] for one in pods if one["metadata"]["name"] not in old}
                seen.append([sorted(new & set((await resolved(server))[0])) == sorted(new) for server in SERVERS])

        async with engine(stage, spec) as (made, book):
            made.heard = lambda turn: reasons.append(turn.decision.status.reason)
            original = made.turn

            async def turn():
                decision = await original()
                await look(decision)
                return decision

            made.turn = turn
            status = await at_rest(made, book, within=600.0)
        return status, seen, reasons, [lost for one in clients for lost in one.lost]

    status, seen, reasons, lost = told(tmp_path, story, observer(), grace=300, limit=2000)
    [question] = [one for key, one in status.asked.items() if key.startswith("routed/peers/")]
    assert (status.phase, question.verdict, lost) == ("done", "yes", [])
    assert seen == [[True, True]]
    assert any("dns/" in text and "does not list pod/echo-r2-" in text for text in reasons)
