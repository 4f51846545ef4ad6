"""Objects are named as kubectl names them; completion asks the cluster and is silent when it cannot."""

import asyncio
import contextlib
import time

import click
import pytest

from tidegate.cli import suggest
from tidegate.cli.target import KINDS, Reference
from tidegate.kube.api import DEPLOYMENTS, NODES, Listing

ANY = Reference(*KINDS)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("po/a", "pod"), ("Pods/a", "pod"), ("service/a", "svc"), ("deployments.apps/a", "deploy"),
        ("replicaset/a", "rs"), ("sts/a", "sts"), ("daemonsets/a", "ds"), ("job.batch/a", "job"), ("no/a", "node"),
    ],
)  # fmt: skip
def test_every_spelling_kubectl_takes_names_the_same_kind(text, kind):
    assert ANY.convert(text, None, None) == (kind, "a")


def test_no_spelling_names_two_kinds():
    spellings = [spelling for every in KINDS.values() for spelling in every]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize("text", ["a", "pod", "/a", "ingress/a", "node/a", "deploy/UP", "deploy/", "pod/a/b"])
def test_what_the_command_does_not_know_is_refused_by_name(text):
    with pytest.raises(click.BadParameter) as refused:
        Reference("pod", "svc", "deploy").convert(text, None, None)
    assert "cannot be the name" in refused.value.message or "pod/NAME, svc/NAME or deploy/NAME" in refused.value.message


class Cluster:
    """A cluster with one deployment and one node, as a client sees it."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.asked = []

    async def list(self, resource, select, resource_version=""):
        self.asked.append((resource, select.namespace))
        await asyncio.sleep(self.seconds)
        names = {DEPLOYMENTS: ["web", "api"], NODES: ["node-1"]}[resource]
        return Listing([{"metadata": {"name": name}} for name in names], "1")

    @contextlib.asynccontextmanager
    async def open(self, cluster):
        yield self


def completed(monkeypatch, client, incomplete, **given):
    class Loaded:
        namespace = "prod"

    monkeypatch.setattr("tidegate.kube.kubeconfig.load", lambda path, context: Loaded())
    monkeypatch.setattr("tidegate.kube.connect.open_cluster", client.open)
    context = click.Context(click.Command("status"))
    context.params = given
    return [item.value for item in ANY.shell_complete(context, click.Argument(["subject"]), incomplete)]


def test_kinds_are_completed_without_a_cluster(monkeypatch):
    client = Cluster()
    assert completed(monkeypatch, client, "d") == ["deploy/", "ds/"]
    assert client.asked == []


def test_names_are_asked_of_the_namespace_the_command_will_use(monkeypatch):
    client = Cluster()
    assert completed(monkeypatch, client, "deployment/") == ["deployment/api", "deployment/web"]
    assert completed(monkeypatch, client, "deploy/w", namespace="test") == ["deploy/web"]
    assert completed(monkeypatch, client, "node/", namespace="test") == ["node/node-1"]
    assert [namespace for _, namespace in client.asked] == ["prod", "test", ""]


def test_a_cluster_that_is_slow_or_not_there_completes_nothing_and_says_nothing(monkeypatch, capfd):
    monkeypatch.setattr(suggest, "PATIENCE_SECONDS", 0.05)
    before = time.monotonic()
    assert completed(monkeypatch, Cluster(seconds=30), "deploy/") == []
    assert time.monotonic() - before < 5
    monkeypatch.undo()
    assert ANY.shell_complete(click.Context(click.Command("x")), click.Argument(["a"]), "ingress/") == []
    context = click.Context(click.Command("x"))
    context.params = {"kubeconfig": "/nowhere/kubeconfig"}
    assert ANY.shell_complete(context, click.Argument(["a"]), "deploy/") == []
    assert capfd.readouterr() == ("", "")
