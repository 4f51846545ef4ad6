"""A lab whose nodes run kube-proxy in iptables mode: its agents read that, and their word is true."""

from __future__ import annotations

import os

import pytest

from tidegate.client.verify import VerifyOptions, verify_pod
from tidegate.kube.api import PODS, SERVICES, Patch
from tidegate.lab.network.seam import IPTABLES_1_36

from .kernel_lab import ask, up, web, why_not, within

pytestmark = [pytest.mark.realtime, pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can")]


def test_a_cut_pod_is_seen_to_be_off_the_rules_of_iptables(tmp_path, monkeypatch):
    monkeypatch.setenv("TIDEGATE_STATE", str(tmp_path))
    lab = up(f"rules-{os.getpid()}", nodes=1, proxy=IPTABLES_1_36)
    try:
        lab.apply(*web("web"))
        pod = lab.pods("web", ready=2)[0]["metadata"]["name"]
        spec = lab.do(lambda api: api.get(SERVICES, "web", "default"))["spec"]

        def verified():
            return lab.do(lambda api: verify_pod(api, "default", pod, VerifyOptions(timeout_seconds=10, probes=5)))

        assert within(20, lambda: bool(verified().nodes)), "no agent is up"
        before = verified()
        assert {(word.verdict, "iptables" in word.evidence) for word in before.nodes} == {("route", True)}
        lab.do(
            lambda api: api.patch(PODS, pod, Patch({"metadata": {"labels": {"app": "cut"}}}, style="merge"), "default")
        )
        lab.pods("web", ready=2)
        after = verified()
        assert {word.verdict for word in after.nodes} == {"no-route"}
        answering = {ask(lab.places["node-1"], spec["clusterIP"], 80)["pod"] for _ in range(20)}
        assert pod not in answering
    finally:
        lab.running.close()
