"""The file that names observers is strict: whatever is not understood is an error that says where."""

from __future__ import annotations

from importlib import metadata

import pytest

from tidegate.dataplane.facts import Facts
from tidegate.model import endpointslice
from tidegate.observers.config import ConfigError, load, parse
from tidegate.observers.external import Fencing, Replica, Where, replicas_of

WHOLE = """
observers:
- name: edge
  kind: traefik
  where: {service: traefik/traefik, port: 8080}
- name: old
  kind: haproxy
  where: {addresses: ["unix:/run/haproxy.sock", "10.0.0.1:9999"]}
  policy: advisory
  timeoutSeconds: 1.5
  onUnreachable: warn
  settleSeconds: 12
- name: lb
  kind: command
  options: {command: [check-lb, --fast], covers: [loadbalancer/aws]}
"""


def test_a_file_gives_observers_with_their_terms(tmp_path):
    file = tmp_path / "observers.yaml"
    file.write_text(WHOLE)
    edge, old, lb = load(file)
    assert (edge.name, edge.terms.is_required, edge.terms.holds_unreachable, edge.timeout_seconds) == (
        "edge",
        True,
        True,
        2.0,
    )
    assert edge.terms.fencing is Fencing.DOUBLE and edge.service == "traefik/traefik"
    assert (old.terms.is_required, old.terms.holds_unreachable, old.terms.settle_seconds) == (False, False, 12.0)
    assert lb.observer.covers == ("loadbalancer/aws",) and lb.observer.replicas(()) == (Replica("command", ""),)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("policy: advisory", "polcy: advisory"), "unknown field `polcy` - at `$.observers[1]`"),
        (("policy: advisory", "policy: sometimes"), "`$.observers[1].policy`"),
        (("onUnreachable: warn", "onUnreachable: ignore"), "`$.observers[1].onUnreachable`"),
        (("timeoutSeconds: 1.5", "timeoutSeconds: 0"), "`$.observers[1].timeoutSeconds`"),
        (("settleSeconds: 12", "settleSeconds: -1"), "`$.observers[1].settleSeconds`"),
        (
            ("kind: haproxy", "kind: hapoxy"),
            "no kind 'hapoxy', there are aws-target-group, ",
        ),
        (("name: old", "name: edge"), "two observers are called 'edge'"),
        (("name: old", "name: Old_One"), "`$.observers[1].name`"),
        (("port: 8080", "prot: 8080"), "unknown field `prot` - at `$.observers[0].where`"),
        (("port: 8080", "port: 0"), "`$.observers[0].where.port`"),
        (("service: traefik/traefik", "service: traefik"), "not namespace/name"),
        (("10.0.0.1:9999", "10.0.0.1"), "`$.observers[1].where.addresses[1]`"),
        (("{service: traefik/traefik, port: 8080}", "{}"), "`$.observers[0].where`"),
        (("command: [check-lb, --fast]", "comand: [x]"), "$.observers[2].options"),
        (("command: [check-lb, --fast]", "command: []"), "$.observers[2].options.command"),
        (("observers:", "observer:"), "observer"),
        ((WHOLE, "observers: [:"), "not YAML"),
        ((WHOLE, ""), "Expected"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change, says):
    with pytest.raises(ConfigError) as error:
        parse(WHOLE.replace(*change))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path / "nowhere.yaml")


class Nobody:
    fencing, covers = Fencing.SINGLE, ()

    def __init__(self, spec):
        self.spec = spec

    def replicas(self, slices):
        return ()

    async def ask(self, replica, question):
        return Facts("", "")


def test_a_third_party_kind_comes_by_an_entry_point(monkeypatch):
    point = metadata.EntryPoint("ours", "somewhere:Nobody", "tidegate.observers")
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: Nobody)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "tidegate.observers" else [])
    [one] = parse("observers: [{name: a, kind: ours, options: {anything: 1}}]")
    assert one.observer.spec.options == {"anything": 1}
    with pytest.raises(ConfigError, match=r"there are aws-target-group, .*, ours, .*traefik"):
        parse("observers: [{name: a, kind: theirs}]")


def slice_of(service, *endpoints):
    return endpointslice.decode({
        "metadata": {"name": f"{service}-1", "namespace": "edge", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [ip], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod, "uid": pod}}
            for pod, ip, ready in endpoints
        ],
        "ports": [{"port": 80}],
    })  # fmt: skip


def test_replicas_are_the_endpoints_of_its_own_service_ready_or_not():
    slices = [
        slice_of("web", ("b", "10.0.0.2", False), ("a", "10.0.0.1", True)),
        slice_of("other", ("c", "10.0.0.3", True)),
    ]
    where = Where("edge/web", 8080)
    assert replicas_of(where, slices) == (Replica("a", "10.0.0.1:8080"), Replica("b", "10.0.0.2:8080"))


def test_a_service_that_nobody_knows_is_not_nobody():
    with pytest.raises(ValueError, match="edge/wbe has no EndpointSlice"):
        replicas_of(Where("edge/wbe", 1), [slice_of("web")])
    assert replicas_of(Where("edge/web", 1), [slice_of("web")]) == (), "one that was scaled to zero is"
