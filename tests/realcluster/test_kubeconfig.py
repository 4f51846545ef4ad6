"""Ways into a real API server: certificates, tokens, plugins, contexts; and what is said when one is wrong."""

from __future__ import annotations

import base64
import json
import os

import pytest
import yaml
from tests.realcluster import certificates
from tests.realcluster.control_plane import TOKEN

from tidegate.kube.api import NAMESPACES, Resource
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.kubeconfig import ConfigError, load

pytestmark = pytest.mark.realcluster

WHO = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False)


@pytest.fixture
def written(tmp_path, real_cluster):
    """Writes a kubeconfig for the real server; ``user`` and ``cluster`` are what differs."""

    def write(user, cluster=None, **more):
        facts = {"server": real_cluster.server, "certificate-authority": str(real_cluster.ca.certificate)}
        if cluster is not None:
            facts = {"server": real_cluster.server, **cluster}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": facts}], "users": [{"name": "me", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me", "namespace": "ours"}}], **more,
        }  # fmt: skip
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(config))
        return str(path)

    return write


async def whoami(path, context=""):
    async with open_api(kubeconfig=path, context=context) as api:
        review = await api.create(WHO, {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
        return review["status"]["userInfo"]["username"]


@pytest.fixture(scope="session")
def client_pair(real_cluster):
    extension = "extendedKeyUsage=clientAuth"
    return certificates.signed(real_cluster.ca, "client", "/O=system:masters/CN=carla", extension)


async def test_a_client_certificate_from_files(written, client_pair):
    pair = {"client-certificate": str(client_pair.certificate), "client-key": str(client_pair.key)}
    assert await whoami(written(pair)) == "carla"


async def test_a_client_certificate_and_an_authority_as_data(written, client_pair, real_cluster):
    def data(path):
        return base64.b64encode(path.read_bytes()).decode()

    pair = {"client-certificate-data": data(client_pair.certificate), "client-key-data": data(client_pair.key)}
    assert await whoami(written(pair, {"certificate-authority-data": data(real_cluster.ca.certificate)})) == "carla"


async def test_a_token_and_a_token_file_that_is_rotated(written, tmp_path):
    assert await whoami(written({"token": TOKEN})) == "admin"
    (tmp_path / "token").write_text("stale")
    path = written({"tokenFile": "token"})
    async with open_api(kubeconfig=path) as api:
        with pytest.raises(ApiError, match="does not accept these credentials: Unauthorized"):
            await api.get(NAMESPACES, "default")
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        assert (await api.get(NAMESPACES, "default"))["metadata"]["name"] == "default"


def plugin(tmp_path, script):
    path = tmp_path / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "args": ["it"]}}


async def test_a_credential_plugin_is_asked_again_when_its_token_has_run_out(written, tmp_path):
    def credential(token):
        status = {"token": token}
        return json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})

    (tmp_path / "first").write_text(credential("stale"))
    (tmp_path / "later").write_text(credential(TOKEN))
    script = f'cd {tmp_path}; echo "$KUBERNETES_EXEC_INFO" >info; if [ -e asked ]; then cat later; else cat first; fi\n'
    path = written(plugin(tmp_path, script + "touch asked"))
    assert await whoami(path) == "admin"
    assert json.loads((tmp_path / "info").read_text())["kind"] == "ExecCredential"


async def test_a_credential_plugin_with_a_client_certificate(written, tmp_path, client_pair):
    status = {
        "clientCertificateData": client_pair.certificate.read_text(),
        "clientKeyData": client_pair.key.read_text(),
    }
    (tmp_path / "answer").write_text(json.dumps({"kind": "ExecCredential", "status": status}))
    assert await whoami(written(plugin(tmp_path, f"cat {tmp_path}/answer"))) == "carla"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo sign in first >&2; exit 3", "exit code 3: sign in first"),
        ("echo nonsense", "did not print an ExecCredential"),
        ("echo '{\"status\": null}'", "did not print an ExecCredential"),
    ],
)
def test_a_credential_plugin_that_fails_says_why(written, tmp_path, script, said):
    with pytest.raises(ConfigError, match=said):
        load(written(plugin(tmp_path, script)))


def test_a_credential_plugin_that_is_not_there_says_how_to_get_it(written):
    missing = {"exec": {"command": "no-such-plugin", "installHint": "Get it at the harbour."}}
    with pytest.raises(ConfigError, match=r"no-such-plugin: no such file or directory\. Get it at the harbour\."):
        load(written(missing))


async def test_contexts_choose_and_files_are_merged(written, tmp_path, monkeypatch, real_cluster):
    contexts = [
        {"name": "it", "context": {"cluster": "it", "user": "me"}},
        {"name": "other", "context": {"cluster": "it", "user": "them", "namespace": "theirs"}},
        {"name": "broken", "context": {"cluster": "nosuch", "user": "me"}},
    ]
    path = written({"token": "stale"}, contexts=contexts)
    second = tmp_path / "second"
    second.write_text(yaml.safe_dump({"users": [{"name": "them", "user": {"token": TOKEN}}]}))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([path, str(second), str(tmp_path / "not-there")]))
    assert await whoami("", "other") == "admin"
    assert load("", "other").namespace == "theirs"
    assert load().namespace == "default"
    with pytest.raises(ConfigError, match='there is no context "nope"'):
        load("", "nope")
    with pytest.raises(ConfigError, match='there is no cluster "nosuch"'):
        load("", "broken")


async def test_who_acts_as_another_is_the_other(written):
    assert await whoami(written({"token": TOKEN, "as": "berta"})) == "berta"
    with pytest.raises(ConfigError, match="as-groups, which is not supported"):
        load(written({"token": TOKEN, "as": "berta", "as-groups": ["staff"]}))


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({}, "certificate is not trusted: .*certificate-authority"),
        ({"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True}, "https://127.0.0.1:1: cannot connect"),
        ({"certificate-authority": "nosuch.crt"}, "certificate-authority: .*: nosuch.crt"),
    ],
)
async def test_a_cluster_that_cannot_be_reached_says_why(written, cluster, said):
    with pytest.raises(KubeError, match=said):
        await whoami(written({"token": TOKEN}, cluster))


async def test_a_server_certificate_of_another_name_is_refused_unless_named(written, real_cluster):
    authority = {"certificate-authority": str(real_cluster.ca.certificate)}
    elsewhere = real_cluster.server.replace("127.0.0.1", "localhost")
    with pytest.raises(KubeError, match=r"certificate is not trusted: .*localhost"):
        await whoami(written({"token": TOKEN}, {**authority, "server": elsewhere}))
    named = {**authority, "server": elsewhere, "tls-server-name": "127.0.0.1"}
    assert await whoami(written({"token": TOKEN}, named)) == "admin"


async def test_plain_http_to_a_tls_port_says_so(written, real_cluster):
    with pytest.raises(ApiError, match=r"http://127.0.0.1.* answered 400: Client sent an HTTP request"):
        await whoami(written({"token": TOKEN}, {"server": real_cluster.server.replace("https", "http")}))
