"""``status``, ``trace`` and ``doctor`` on a real control plane without agents: what the API tells, and honest gaps."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.realcluster.fake_kubelet import NODE
from tests.realcluster.scene import scene

from tidegate.kube.api import PODS, SERVICES, Deletion, Patch

pytestmark = pytest.mark.realcluster


async def test_every_subject_of_status_is_told(real_cluster):
    async with scene(real_cluster, "status-subjects") as here:
        deploy = await here.tidegate("status", "deployment/web")
        assert deploy.code == 0, deploy.err
        assert "Deployment status-subjects/web  3/3 ready" in deploy.out
        assert "web r1: 3 pods, 3 ready" in deploy.out
        assert "to cut a pod is to release it; `tidegate prepare deploy/web --service web" in deploy.out
        whole = await here.tidegate("status", "-o", "json")
        assert whole.code == 0, whole.err
        document = json.loads(whole.out)
        [service] = [one for one in document["services"] if one["name"] == "web"]
        assert {(one["revision"], one["routed"]) for one in service["endpoints"]} == {("web r1", True)}
        everywhere = await here.tidegate("status", "-A")
        assert any(line.split()[:2] == ["default", "kubernetes"] for line in everywhere.out.splitlines())
        missing = await here.tidegate("status", "sts/nosuch")
        assert missing.code == 1 and 'statefulsets "nosuch" not found in namespace status-subjects' in missing.err
        orphans = await here.tidegate("status", "--orphans")
        assert "no held pod without somebody at work on it" in orphans.out


async def test_a_watch_shows_a_selector_that_somebody_changes(real_cluster):
    async with scene(real_cluster, "status-watch") as here:
        process = await here.start("status", "svc/web", "-w", "-o", "json")
        decoder, text, seen = json.JSONDecoder(), "", []

        async def until(count):
            nonlocal text
            async with asyncio.timeout(20):
                while sum(len(one["services"][0]["endpoints"]) == count for one in seen) == 0:
                    text += (await process.stdout.read(65536)).decode()
                    while text.strip():
                        try:
                            found, end = decoder.raw_decode(text.lstrip())
                        except ValueError:
                            break
                        text = text.lstrip()[end:]
                        seen.append(found)

        await until(3)
        await here.api.patch(SERVICES, "web", Patch({"spec": {"selector": {"app": "nobody"}}}), here.namespace)
        await until(0)
        process.terminate()
        await process.wait()


async def test_a_pods_death_is_followed_to_its_end(real_cluster):
    async with scene(real_cluster, "trace-life") as here:
        name = (await here.names())[0]
        now = await here.tidegate("trace", f"pod/{name}")
        assert now.code == 0, now.err
        assert "metadata.creationTimestamp" in now.out and "not seen: the trace began later" in now.out
        assert f"there is no agent on {NODE}" in now.out
        process = await here.start("trace", f"pod/{name}", "-w", "-o", "json")
        await asyncio.sleep(3)
        await here.api.delete(PODS, name, here.namespace, Deletion())
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert process.returncode == 0, err
        moments = json.loads(out)["moments"]
        steps = [one["step"] for one in moments if one["at"] is not None]
        assert steps[0] == "created"
        # Seen on 1.36.2: the slice may let go after the object is gone, the controller hears of both by its own watch.
        assert steps.index("deleted") < min(steps.index("gone"), steps.index("unlisted"))
        assert [one["gap"] for one in moments if one["step"] == "sigterm"] == ["no Event Killing was seen"]
        missing = await here.tidegate("trace", "pod/nosuch")
        assert missing.code == 1 and "(--watch would wait for it)" in missing.err


async def test_doctor_knows_the_server_and_what_is_missing(real_cluster):
    async with scene(real_cluster, "doctor-plain") as here:
        ran = await here.tidegate("doctor", "-o", "json")
        document = json.loads(ran.out)
        found = {(one["check"], one["subject"]): one["level"] for one in document["findings"]}
        assert ran.code == 0, ran.out
        assert found["server", ""] == "ok"
        assert found["permissions", "drain node"] == "ok"
        assert found["coordinator", ""] == "warn"
        assert found["agents", ""] == "warn"
        assert found["gate", "Deployment doctor-plain/web"] == "warn"
