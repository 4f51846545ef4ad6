"""A lab with TLS: kubectl finds it by its kubeconfig, and tokens are what they are held to."""

from __future__ import annotations

import json

import pytest
import yaml
from e2e_world import eventually

pytestmark = pytest.mark.realtime

OPERATOR = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "operator"},
    "spec": {
        "serviceAccountName": "ci",
        "containers": [
            {
                "name": "c",
                "image": "any",
                "command": [
                    "sh",
                    "-c",
                    "kubectl get pods -o name; kubectl get secrets; kubectl auth whoami; sleep 600",
                ],
            }
        ],
    },
}


def test_kubectl_and_pods_are_held_to_their_tokens_under_tls(user, tmp_path):
    user.run("lab", "up", "--tls", "--bare", "--detach", "--nodes", "1").expect(0)
    kubeconfig = user.state / "labs" / "default" / "kubeconfig"
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    assert cluster["server"].startswith("https://127.") and cluster["server"].endswith(":6444")
    user.environment["KUBECONFIG"] = str(kubeconfig)
    user.kubectl("create", "serviceaccount", "ci").expect(0)
    token = user.kubectl("create", "token", "ci").expect(0).stdout.strip()

    def as_ci(*words: str):
        authority = str(user.state / "labs" / "default" / "ca.crt")
        road = (f"--server={cluster['server']}", f"--certificate-authority={authority}", "--kubeconfig=/dev/null")
        return user.kubectl(f"--token={token}", *road, *words)

    assert 'User "system:serviceaccount:default:ci" cannot list' in as_ci("get", "pods").expect(1).stderr
    user.kubectl("create", "rolebinding", "ci", "--clusterrole=view", "--serviceaccount=default:ci").expect(0)
    as_ci("get", "pods").expect(0)
    road = ("--kubeconfig=/dev/null", f"--server={cluster['server']}", "--token=lab")
    stranger = user.kubectl(*road, "get", "pods").expect(1)
    assert "certificate signed by unknown authority" in stranger.stderr

    manifest = tmp_path / "pod.json"
    manifest.write_text(json.dumps(OPERATOR))
    user.kubectl("apply", "-f", str(manifest)).expect(0)
    eventually(lambda: "Groups" in user.kubectl("logs", "operator").stdout)
    said = user.kubectl("logs", "operator").stdout
    assert "pod/operator" in said and "secrets is forbidden" in said
    assert "system:serviceaccount:default:ci" in said.partition("Username")[2]
    assert user.kubectl("exec", "operator", "--", "echo", "hello").expect(0).stdout == "hello\n"
