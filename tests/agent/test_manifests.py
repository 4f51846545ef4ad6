"""The objects of an installation: processes find in them what they read, and nobody may do more than the verbs need."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from tests.realcluster.test_kube_proxy import CAPABILITIES as PROVEN

from tidegate.agent import issuer, roles
from tidegate.agent.coordinator import CoordinatorSettings
from tidegate.agent.holder import HolderSettings
from tidegate.agent.issuer import AUTHORITY_SECRET
from tidegate.agent.manifests import AGENT_SECRET, CAPABILITIES, OPTIONAL, PARTS, Installation, pieces, sweep
from tidegate.agent.process import AgentSettings
from tidegate.client.permissions import VERBS, deeds_of
from tidegate.model import pod as pod_noun
from tidegate.model.names import (
    AGENT_PORT,
    COORDINATOR_PORT,
    GATE,
    GATE_PORT,
    REPLACE_SLEEP,
    SYSTEM_NAMESPACE,
)
from tidegate.observers.asking import ACCOUNT, AGENT_ASK_PORT, COORDINATOR_ASK_PORT, ask_target
from tidegate.operator.process import ProcessSettings

OF = Installation("tidegate:1")
NODE = {"spec.nodeName": "node-1", "status.hostIP": "192.0.2.1", "metadata.name": "tidegate-coordinator-x"}
WRITING = {"create", "update", "patch", "delete", "deletecollection"}


def found(kind, name, of=OF):
    [one] = [
        piece.manifest
        for piece in pieces(of)
        if (piece.manifest["kind"], piece.manifest["metadata"]["name"]) == (kind, name)
    ]
    return one


def pod_of(kind, name, of=OF):
    return found(kind, name, of)["spec"]["template"]["spec"]


def environment(pod):
    """As the kubelet makes it on node-1."""
    [container] = pod["containers"]
    return {
        one["name"]: one["value"] if "value" in one else NODE[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container["env"]
    }


AGENT, HOLDER = ("DaemonSet", "tidegate-agent"), ("DaemonSet", "tidegate-holder")
COORDINATOR = ("Deployment", "tidegate-coordinator")


def test_the_agent_finds_its_node_and_its_holder():
    settings = AgentSettings.from_env(environment(pod_of(*AGENT)))
    assert (settings.node, settings.address) == ("node-1", "192.0.2.1")
    assert (settings.server, settings.kernel_socket) == ("", ""), "in the cluster, on this machine's own kernel"
    holder = HolderSettings.from_env(environment(pod_of(*HOLDER)))
    assert settings.agent_socket == holder.agent_socket
    assert settings.holder == f"{holder.host}:{holder.port}" == f"127.0.0.1:{GATE_PORT}"
    assert holder.original_destination == "sockopt"
    assert settings.state_dir in [one["mountPath"] for one in pod_of(*AGENT)["containers"][0]["volumeMounts"]]


@pytest.mark.parametrize("which", [AGENT, HOLDER])
def test_agent_and_holder_meet_in_a_folder_of_the_node(which):
    pod = pod_of(*which)
    socket = environment(pod)["TIDEGATE_AGENT_SOCKET"]
    mounted = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
    name = mounted[socket.rpartition("/")[0]]
    [volume] = [one for one in pod["volumes"] if one["name"] == name]
    assert volume["hostPath"]["path"] == socket.rpartition("/")[0]


def test_pods_networks_that_are_told_reach_the_agent_and_open_the_other_loopback():
    of = Installation("tidegate:1", ("10.244.0.0/16", "fd00:10:244::/56"))
    assert AgentSettings.from_env(environment(pod_of(*AGENT, of))).pod_networks == of.pod_networks
    assert HolderSettings.from_env(environment(pod_of(*HOLDER, of))).host == "127.0.0.1,::1"
    six = Installation("tidegate:1", ("fd00:10:244::/56",))
    assert HolderSettings.from_env(environment(pod_of(*HOLDER, six))).host == "::1"
    assert "nodes" not in str(found("ClusterRole", "tidegate-agent", of)["rules"]), "then no Node object is read"
    assert "nodes" in str(found("ClusterRole", "tidegate-agent")["rules"])


def test_the_coordinators_variables_are_those_that_it_reads():
    env = environment(pod_of(*COORDINATOR))
    assert set(env) == {
        "TIDEGATE_POD", "TIDEGATE_NODE_ADDRESS", "TIDEGATE_INSTALL", "TIDEGATE_TLS_DIR", "TIDEGATE_TLS_ISSUE"
    }  # fmt: skip
    assert CoordinatorSettings(env["TIDEGATE_POD"], env["TIDEGATE_NODE_ADDRESS"]).install == env["TIDEGATE_INSTALL"]


def test_of_holder_and_coordinator_none_can_come_up_beside_another_and_an_agent_can():
    ports = {
        name: [one["hostPort"] for one in pod_of(kind, name)["containers"][0].get("ports", ())]
        for kind, name in (AGENT, HOLDER, COORDINATOR)
    }
    assert list(ports.values()) == [[], [GATE_PORT], [COORDINATOR_PORT, COORDINATOR_ASK_PORT]]
    assert found(*AGENT)["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert found(*HOLDER)["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert found(*COORDINATOR)["spec"]["strategy"] == {"type": "Recreate"}


def test_the_agents_certificate_is_a_file_and_the_coordinators_in_memory():
    agent, coordinator = pod_of(*AGENT), pod_of(*COORDINATOR)
    for pod, source in (
        (agent, {"secret": {"secretName": AGENT_SECRET, "defaultMode": 0o400}}),
        (coordinator, {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    ):
        folder = environment(pod)["TIDEGATE_TLS_DIR"]
        [volume] = [one["name"] for one in pod["containers"][0]["volumeMounts"] if one["mountPath"] == folder]
        assert {"name": volume, **source} in pod["volumes"]
    assert AgentSettings.from_env(environment(agent)).tls_folder == environment(agent)["TIDEGATE_TLS_DIR"]
    assert AGENT_SECRET == issuer.AGENT_SECRET


def test_command_lines_are_told_where_and_how_to_ask_an_agent():
    metadata = found(*AGENT)["spec"]["template"]["metadata"]
    assert ask_target("x", metadata, AGENT_PORT) == (f"https:x:{AGENT_ASK_PORT}", True)
    assert ask_target("x", {}, AGENT_PORT) == (f"x:{AGENT_PORT}", False), "one from before there were tokens"


def test_only_the_agent_has_capabilities_and_they_are_the_proven_ones():
    assert sorted(one.lower() for one in CAPABILITIES) == sorted(PROVEN)
    granted = {
        name: pod_of(kind, name)["containers"][0]["securityContext"]["capabilities"]
        for kind, name in (AGENT, HOLDER, COORDINATOR)
    }
    assert granted == {
        "tidegate-agent": {"drop": ["ALL"], "add": list(CAPABILITIES)},
        "tidegate-holder": {"drop": ["ALL"]},
        "tidegate-coordinator": {"drop": ["ALL"]},
    }
    assert [name for kind, name in (AGENT, HOLDER, COORDINATOR) if pod_of(kind, name).get("hostPID")] == [
        "tidegate-agent"
    ]
    assert pod_of(*HOLDER)["automountServiceAccountToken"] is False


def test_every_object_is_labelled_as_its_selector_says():
    for one in [*(piece.manifest for piece in pieces(OF)), sweep(OF)]:
        if one["kind"] in ("DaemonSet", "Deployment"):
            assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("part", (*PARTS, *OPTIONAL))
def test_a_part_alone_is_that_part_and_the_namespace(part):
    chosen = pieces(OF, (part,))
    assert {one.part for one in chosen} == {"namespace", part}
    assert chosen[0].manifest["metadata"]["name"] == SYSTEM_NAMESPACE


# --- operator and webhook ---

OPERATOR = ("Deployment", "tidegate-operator")


def test_the_operator_would_be_let_in_at_pod_securitys_strictest_level():
    pod = pod_of(*OPERATOR)
    [container] = pod["containers"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not [port for port in container["ports"] if "hostPort" in port]
    assert {next(iter(one.keys() - {"name"})) for one in pod["volumes"]} == {"emptyDir"}
    context = container["securityContext"]
    assert context["runAsNonRoot"] is True and context["runAsUser"] and context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]} and context["allowPrivilegeEscalation"] is False
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "host" not in container["lifecycle"]["preStop"]["httpGet"]


def test_the_operator_finds_who_it_is_and_where_its_certificate_may_be_written():
    pod = pod_of(*OPERATOR)
    settings = ProcessSettings.from_env(environment(pod))
    assert settings.identity == NODE["metadata.name"] and settings.host == ""
    [volume] = [
        one["name"] for one in pod["containers"][0]["volumeMounts"] if one["mountPath"] == settings.webhook.folder
    ]
    assert {"name": volume, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}} in pod["volumes"]
    assert {settings.health_port, settings.metrics_port, settings.webhook.port} == set(ports_of(pod))
    assert settings.webhook.name == "tidegate-webhook.tidegate-system.svc"


def test_the_operator_has_two_replicas_apart_and_a_gate_of_its_own():
    deployment = found(*OPERATOR)["spec"]
    assert deployment["replicas"] == 2 and deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pod = deployment["template"]["spec"]
    assert {one["whenUnsatisfiable"] for one in pod["topologySpreadConstraints"]} == {"ScheduleAnyway"}
    whole = {"metadata": {"name": "x", "namespace": SYSTEM_NAMESPACE}, "spec": pod}
    assert pod_noun.decode(whole).is_gated and pod["terminationGracePeriodSeconds"] >= 60
    labels = deployment["template"]["metadata"]["labels"]
    budget = found("PodDisruptionBudget", "tidegate-operator")["spec"]
    assert budget["selector"]["matchLabels"] == labels and budget["maxUnavailable"] == 1
    service = found("Service", "tidegate-webhook")["spec"]
    assert service["selector"] == labels and service["ports"][0]["targetPort"] in ports_of(pod)


def ports_of(pod):
    return [one["containerPort"] for one in pod["containers"][0]["ports"]]


def chosen(selector, labels):
    """A label selector's own arithmetic: NotIn is true of what has no such label."""
    holds = {"In": lambda value, values: value in values, "NotIn": lambda value, values: value not in values}
    return all(holds[one["operator"]](labels.get(one["key"]), one["values"]) for one in selector["matchExpressions"])


ON, OFF, SLEEP = {GATE: "enabled"}, {GATE: "disabled"}, {REPLACE_SLEEP: "true"}


@pytest.mark.parametrize(
    ("space", "pod", "paths"),
    [
        ({}, {}, []),
        (ON, {}, ["/gate"]),
        (ON, OFF, []),
        (ON, ON, ["/gate"]),
        ({}, ON, ["/gate"]),
        (OFF, {}, []),
        (OFF, ON, ["/gate"]),
        (SLEEP, {}, []),
        (ON | SLEEP, {}, ["/gate/replace-sleep"]),
        (SLEEP, ON, ["/gate/replace-sleep"]),
        (ON | SLEEP, OFF, []),
    ],
)
def test_namespaces_and_pods_opt_in_and_exactly_one_webhook_is_called(space, pod, paths):
    hooks = found("MutatingWebhookConfiguration", "tidegate")["webhooks"]

    def called(name):
        labels = {"kubernetes.io/metadata.name": name, **space}
        return [
            one["clientConfig"]["service"]["path"]
            for one in hooks
            if chosen(one["namespaceSelector"], labels) and chosen(one["objectSelector"], pod)
        ]

    assert called("shop") == paths
    for name in ("kube-system", SYSTEM_NAMESPACE):
        assert called(name) == [], "never"


def test_the_webhook_can_hold_up_nothing():
    for one in found("MutatingWebhookConfiguration", "tidegate")["webhooks"]:
        assert one["failurePolicy"] == "Ignore" and one["timeoutSeconds"] == 2 and one["sideEffects"] == "None"
        [rule] = one["rules"]
        assert (rule["operations"], rule["resources"]) == (["CREATE"], ["pods"]), "no eviction, no deletion"
        assert "caBundle" not in one["clientConfig"], "the operator's field: applying again must not take it out"


def test_the_webhook_comes_after_everything_that_answers_it():
    kinds = [one.manifest["kind"] for one in pieces(OF)]
    assert kinds.index("MutatingWebhookConfiguration") > max(
        index for index, kind in enumerate(kinds) if kind in ("Deployment", "DaemonSet", "Service")
    )


# --- who may do what ---


def all_rules(of=OF):
    """(role, rule) of everything that is printed."""
    kinds = ("Role", "ClusterRole")
    return [
        (f"{one.manifest['kind']}/{one.manifest['metadata']['name']}", rule)
        for one in pieces(of)
        if one.manifest["kind"] in kinds
        for rule in one.manifest["rules"]
    ]


def cells(rule):
    """(verb, group, resource) of a rule."""
    return set(itertools.product(rule["verbs"], rule["apiGroups"], rule["resources"]))


def rules_of(name):
    return [rule for role, rule in all_rules() if role.partition("/")[2] == name]


def test_no_rule_has_a_wildcard_and_who_makes_certificates_reads_their_secrets_and_no_other():
    own = {
        "Role/tidegate-coordinator": [AUTHORITY_SECRET, AGENT_SECRET],
        "Role/tidegate-operator": [roles.WEBHOOK_SECRET],
    }
    for role, rule in all_rules():
        for verb, group, resource in cells(rule):
            assert "*" not in (verb, group, resource), role
            assert resource not in ("pods/exec", "pods/eviction", "serviceaccounts"), role
            assert resource != "configmaps" or role == f"ClusterRole/{roles.RELEASER}", role
            if resource == "secrets":
                assert verb == "create" or rule["resourceNames"] == own[role]
                assert role in own


def test_operator_and_people_are_given_a_token_of_one_account_and_all_it_may_is_ask():
    tokens = [(role, rule) for role, rule in all_rules() if "serviceaccounts/token" in rule["resources"]]
    askers = [f"Role/{roles.OPERATOR}", f"Role/{roles.ASK}"]
    assert [(role, rule["resourceNames"]) for role, rule in tokens] == [(one, [ACCOUNT]) for one in askers]
    assert [cells(rule) for rule in rules_of(ACCOUNT)] == [
        {(verb, "tidegate.dev", "questions") for verb in ("get", "create")}
    ]


def test_only_the_coordinator_may_write_the_fence():
    writers = {
        role
        for role, rule in all_rules()
        for verb, _, resource in cells(rule)
        if verb in WRITING and resource == "endpointslices"
    }
    assert writers == {"Role/tidegate-coordinator"}


def test_agent_and_coordinator_can_delete_nothing_and_the_operator_only_what_a_release_ends():
    for name in (roles.AGENT, roles.COORDINATOR):
        assert not [rule for rule in rules_of(name) if {"delete", "deletecollection"} & set(rule["verbs"])]
    deleted = {cell[2] for name in (roles.OPERATOR, roles.RELEASE) for rule in rules_of(name) for cell in cells(rule)
               if cell[0].startswith("delete")}  # fmt: skip
    assert deleted == {"drains", "pods", "services", "deployments"}


def test_the_operator_may_change_no_node_no_role_no_namespace_and_of_all_webhooks_one():
    written = {
        (cell[1], cell[2], tuple(rule.get("resourceNames", ())))
        for name in (roles.OPERATOR, roles.RELEASE)
        for rule in rules_of(name)
        for cell in cells(rule)
        if cell[0] in WRITING
    }
    assert not {one for _, one, _ in written} & {"nodes", "namespaces", "endpointslices", "customresourcedefinitions"}
    assert not [one for one in written if one[0] == roles.GROUP]
    webhooks = [one for one in written if one[0] == "admissionregistration.k8s.io"]
    assert webhooks == [("admissionregistration.k8s.io", "mutatingwebhookconfigurations", ("tidegate",))]


def where(role):
    """The place a role is bound in, for somebody who works in namespace "demo"."""
    return {roles.ASK: SYSTEM_NAMESPACE}.get(role, "" if role in roles.CLUSTER_WIDE else "demo")


def may(verb_roles, deed):
    return any(
        where(role) in ("", deed.namespace) and (deed.verb, deed.group, deed.resource) in cells(rule)
        for role in verb_roles
        for rule in rules_of(role)
    )


@pytest.mark.parametrize("is_witnessed", [True, False])
@pytest.mark.parametrize("verb", VERBS)
def test_the_roles_of_a_verb_let_it_do_all_its_deeds(verb, is_witnessed):
    assert not [str(one) for one in deeds_of(verb, "demo", is_witnessed) if not may(roles.VERB_ROLES[verb], one)]


BESIDE = {
    *(("watch", one) for one in ("nodes", "services", "endpointslices", "jobs", *roles.WORKLOADS)),
    ("list", "pods"),
    ("list", "podmonitors"),
    *((verb, kind) for verb in ("get", "patch") for kind in ("httproutes", "traefikservices")),
}  # fmt: skip
"""``-w`` of status, trace and observe; the pods of a node, wherever they are; who scrapes a pod, a note in a plan; the
object whose weights a canary's --route names."""


def test_no_role_lets_people_do_what_no_verb_of_theirs_does():
    assert set(roles.VERB_ROLES) == set(VERBS)
    for role in (roles.LOOK, roles.VIEW, roles.ASK, roles.CUT, roles.DRAIN, roles.PREPARE, roles.DRAIN_NODES,
                 roles.RELEASER):  # fmt: skip
        verbs = [verb for verb, its in roles.VERB_ROLES.items() if role in its]
        done = {
            (deed.verb, deed.group, deed.resource)
            for verb in verbs
            for is_witnessed in (True, False)
            for deed in deeds_of(verb, "demo", is_witnessed)
        }
        for rule in rules_of(role):
            beyond = {cell for cell in cells(rule) - done if (cell[0], cell[2]) not in BESIDE}
            assert not beyond, (role, beyond)


def test_credentials_in_the_cluster_are_the_pods_own():
    assert "TIDEGATE_SERVER" not in environment(pod_of(*AGENT)) | environment(pod_of(*COORDINATOR))


# --- what the docs say ---

BOUND = {
    roles.AGENT: "agents", roles.COORDINATOR: "coordinator", roles.OPERATOR: "operator",
    roles.RELEASE: "operator, cluster-wide", roles.LOOK: "people, cluster-wide",
    roles.DRAIN_NODES: "people, cluster-wide", roles.ASK: "people", ACCOUNT: "tokens of command lines",
}  # fmt: skip


def row(role, rules):
    """A line of the table in docs/security.md."""
    kind, _, name = role.partition("/")
    place = " in `tidegate-system`" if kind == "Role" else "" if BOUND.get(name) else "people, in a namespace"
    may = "; ".join(sentence(rule) for rule in rules)
    return f"| `{name}` | {BOUND.get(name, '')}{place} | {may} |"


def sentence(rule):
    [group] = rule["apiGroups"]
    shown = ", ".join(one if not group or "." not in group else f"{one}.{group}" for one in rule["resources"])
    names = f" named {', '.join(rule['resourceNames'])}" if "resourceNames" in rule else ""
    return f"{', '.join(rule['verbs'])}: {shown}{names}"


def test_the_table_of_roles_in_the_docs_is_what_is_printed():
    grouped = {}
    for role, rule in all_rules():
        grouped.setdefault(role, []).append(rule)
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
    table = page.split("| role | of | may |\n|---|---|---|\n", 1)[1].split("\n\n", 1)[0]
    assert table.splitlines() == [row(role, rules) for role, rules in grouped.items()]
    for capability in CAPABILITIES:
        assert f"| `{capability}` |" in page


def test_a_prober_has_no_privilege_and_is_printed_only_where_it_is_named():
    assert not [one for one in pieces(OF) if "prober" in str(one.manifest)]
    [daemonset] = [one.manifest for one in pieces(OF, ("prober",)) if one.manifest["kind"] == "DaemonSet"]
    pod = daemonset["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert not {"hostNetwork", "hostPID", "volumes", "serviceAccountName"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False
    context = container["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]} and context["runAsNonRoot"] is True
