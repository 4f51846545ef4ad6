"""A headless Service has no data plane: what nodes say of it proves nothing."""

from __future__ import annotations

import copy

from scene import play
from stage import NS, SERVICE

from tidegate.client.release.asking import answer, subject_of
from tidegate.kube.api import SERVICES
from tidegate.model import pod
from tidegate.release.scene import Question


def test_that_a_headless_service_routes_to_a_revision_is_assumed_by_name():
    async def story(stage):
        made = copy.deepcopy(SERVICE)
        made["metadata"]["name"] = "bare"
        made["spec"]["clusterIP"] = "None"
        await stage.api.create(SERVICES, made, NS)
        await stage.ready(3)
        pods = [pod.decode(one) for one in await stage.pods()]
        subject = subject_of(NS, Question("routed", "r2", "bare", 1), pods)
        said = await answer(stage.client, subject, "n", lambda found: None)
        assert said.verdict == "assumed"
        assert "headless Service demo/bare" in said.assumed[0]
        assert "no observer is configured" in said.assumed[0]

    play(story)
