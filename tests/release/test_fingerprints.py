"""Which templates are one revision, and which are two (tests/realcluster/test_templates.py asks a real API server)."""

from __future__ import annotations

import pytest

from tidegate.release.template import fingerprint


def app(metadata=None, spec=None, **fields):
    return {
        "metadata": metadata or {},
        "spec": {"containers": [{"name": "app", "image": "a", **fields}], **(spec or {})},
    }


def probe(path):
    return app(readinessProbe={"httpGet": {"port": 80, "path": path}})


def volume(**source):
    return app(spec={"volumes": [{"name": "v", **source}]})


def needs(**amounts):
    return app(resources={"limits": amounts})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (needs(cpu="1000m"), needs(cpu=1)),
        (needs(memory="1Gi"), needs(memory=1073741824)),
        (probe("/"), app(readinessProbe={"httpGet": {"port": 80}})),
        (app(tty=False), app()),
        (app(spec={"serviceAccount": "x"}), app(spec={"serviceAccountName": "x", "serviceAccount": "x"})),
    ],
)
def test_written_in_two_ways_it_is_one_revision(one, other):
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (needs(cpu="1000m"), needs(cpu="1001m")),
        (needs(memory="1Gi"), needs(memory="1G")),
        (probe("/"), probe("/ready")),
        (volume(hostPath={"path": "/"}), volume(emptyDir={})),
        (app({"labels": {"user": "admin"}}), app()),
        (app({"labels": {"a": ""}}), app()),
        (app(spec={"nodeSelector": {"pool": "rbd"}}), app()),
        (app(securityContext={"runAsNonRoot": False}), app()),
        (app(securityContext={"runAsUser": 0}), app()),
        (app(spec={"automountServiceAccountToken": False}), app()),
        (app(image="a@sha256:" + "0" * 64), app(image="a@sha256:" + "1" * 64)),
        (app(env=[{"name": "A", "value": "1"}]), app(env=[{"name": "A", "value": "1.0"}])),
    ],
)
def test_what_behaves_otherwise_is_another_revision(one, other):
    assert fingerprint(one) != fingerprint(other)
