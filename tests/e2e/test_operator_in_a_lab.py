"""``tidegate install`` on a lab, as on a cluster of one's own: operator pods, the webhook, a Release, and no trace."""

from __future__ import annotations

import json

import pytest
from e2e_world import eventually

from tidegate.lab.network.machine import missing

pytestmark = pytest.mark.realtime

WEB = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {tidegate.dev/gate: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: app
        image: tidegate/echo:1
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
"""
RELEASE = """
apiVersion: tidegate.dev/v1alpha1
kind: Release
metadata: {name: web, namespace: shop}
spec: {workload: web, images: {app: "tidegate/echo:2"}}
"""
LEFT = "namespaces,crds,clusterroles,clusterrolebindings,mutatingwebhookconfigurations"


SYSTEM = ("-n", "tidegate-system")
SHOP = ("-n", "shop")


class Shop:
    """A user with a lab, Tidegate installed on it, and a Deployment in a namespace that asks for gates."""

    def __init__(self, user, folder, *options):
        self.user, self._folder = user, folder
        user.run("lab", "up", "--detach", "--nodes", "2", *options).expect(0)
        user.environment["KUBECONFIG"] = str(user.state / "labs" / "default" / "kubeconfig")
        assert "everything is ready" in user.run("install", "--yes").expect(0).stdout
        self.apply(WEB)
        user.kubectl("rollout", "status", "deploy/web", *SHOP, "--timeout=15s").expect(0)

    def apply(self, text):
        manifest = self._folder / "manifest.yaml"
        manifest.write_text(text)
        self.user.kubectl("apply", "-f", str(manifest)).expect(0)

    def read(self, *words):
        return json.loads(self.user.kubectl("get", *words, "-o", "json").expect(0).stdout)

    def leader(self):
        return self.read("lease/tidegate-operator", *SYSTEM)["spec"]["holderIdentity"]

    def released(self):
        self.user.kubectl("wait", "rel/web", *SHOP, "--for=condition=Complete", "--timeout=18s").expect(0)
        row = self.user.kubectl("get", "releases", *SHOP).expect(0).stdout.splitlines()[1].split()
        assert row[:4] + row[5:6] == ["web", "web", "rolling", "done", "4/4"], row

    def drains(self):
        return [one["status"]["result"] for one in self.read("drains", *SHOP)["items"]]

    def leave(self):
        self.user.kubectl("delete", "rel,deploy", "--all", *SHOP, "--timeout=15s").expect(0)
        self.user.run("uninstall", "--yes").expect(0)
        assert "tidegate" not in self.user.kubectl("get", LEFT, "-o", "name").expect(0).stdout


def test_a_release_begun_by_one_pod_of_the_operator_is_ended_by_the_other_and_nothing_is_left(user, tmp_path):
    shop = Shop(user, tmp_path, "--tls")
    hooks = [one["spec"]["containers"][0].get("lifecycle") for one in shop.read("pods", *SHOP)["items"]]
    assert [hook["preStop"]["httpGet"]["path"] for hook in hooks] == ["/gate/app"] * 4
    assert "lifecycle" not in shop.read("deploy/web", *SHOP)["spec"]["template"]["spec"]["containers"][0]
    assert "pulls no image" in user.run("install", "--image", "x", "--yes").expect(3).stderr

    shop.apply(RELEASE)
    eventually(lambda: "progressing" in user.kubectl("get", "rel/web", *SHOP).stdout)
    first = shop.leader()
    user.kubectl("delete", "pod", first, *SYSTEM, "--wait=false").expect(0)
    shop.released()
    eventually(lambda: shop.leader() not in ("", first))
    assert '"message":"leading"' in user.kubectl("logs", shop.leader(), *SYSTEM).expect(0).stdout
    assert {one["reason"] for one in shop.read("events", *SHOP)["items"]} >= {"Step", "Done"}
    assert set(shop.drains()) <= {"verified"}  # who ended between two leaders has no record

    assert "has a gate" in user.run("uninstall", "--yes").expect(3).stderr
    shop.leave()


@pytest.mark.skipif(bool(missing("nft-1.36")), reason="network kernel wants root, nft and conntrack")
def test_where_pods_have_a_network_of_their_own_it_is_the_same(user, tmp_path):
    shop = Shop(user, tmp_path, "--network", "kernel")
    shop.apply(RELEASE)
    shop.released()
    eventually(lambda: len(shop.drains()) == 4)
    assert set(shop.drains()) == {"verified"}
    shop.leave()
