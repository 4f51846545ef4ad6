"""What the webhook does to a pod: every container that serves is gated or named, and nothing else is touched."""

from __future__ import annotations

import base64
import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.agent.operator_objects import LEFT_ALONE
from tidegate.drain.gating import GATE_TOKEN, GRACE_SECONDS, is_gate
from tidegate.lab.apiserver.schema import patches
from tidegate.model import pod as pod_noun
from tidegate.model.names import GATE, REPLACE_SLEEP, SYSTEM_NAMESPACE, UNGATED
from tidegate.operator.injection import REVIEW_BYTES_MAX, WARNING_LENGTH_MAX, answer, inject

TOKEN = "0123456789abcdef" * 2
SLEEP = {"sleep": {"seconds": 15}}
SHELL = {"exec": {"command": ["sh", "-c", "sleep 20"]}}
QUIT = {"exec": {"command": ["nginx", "-s", "quit"]}}


def container(name, hook=None, **more):
    return {"name": name, "image": "x", **({"lifecycle": {"preStop": hook}} if hook else {}), **more}


def pod(*containers, annotations=None, labels=None, owner=None, **spec):
    metadata = {"generateName": "web-7d9c-", "namespace": "shop"}
    metadata |= {"annotations": annotations} if annotations else {}
    metadata |= {"labels": labels} if labels else {}
    metadata |= {"ownerReferences": [{"kind": owner, "name": "o", "uid": "u", "controller": True}]} if owner else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": list(containers), **spec}}


def patched(one, found):
    """By the lab's JSON patch, which shares no code with what made it."""
    return patches.json_patch(one, list(found.patch))


def hooks(one):
    parts = (*one["spec"].get("initContainers", ()), *one["spec"]["containers"])
    return {each["name"]: (each.get("lifecycle") or {}).get("preStop") for each in parts}


def gate(name):
    return {"httpGet": {"path": f"/gate/{name}", "port": 15299}}


# --- for any pod ---

HOOKS = st.sampled_from([None, SLEEP, SHELL, QUIT, {"httpGet": {"path": "/quit", "port": 80}}, "gate", "on-host"])
ON_HOST = {"host": "127.0.0.1", "httpHeaders": [{"name": "X-Tidegate-Gate", "value": TOKEN}]}


@st.composite
def containers_of(draw, names):
    found = []
    for name in names:
        hook = draw(HOOKS)
        hook = gate(name) if hook == "gate" else hook
        hook = {"httpGet": {**gate(name)["httpGet"], **ON_HOST}} if hook == "on-host" else hook
        lifecycle = draw(
            st.sampled_from([None, {}, {"postStart": {"sleep": {"seconds": 1}}}, {"stopSignal": "SIGUSR1"}])
        )
        one = {"name": name, "image": "x"}
        if hook or lifecycle is not None:
            one["lifecycle"] = {**(lifecycle or {}), **({"preStop": hook} if hook else {})}
        if draw(st.booleans()):
            one["ports"] = [{"containerPort": 8080}]
        found.append(one)
    return found


@st.composite
def pods(draw):
    spec = {"containers": draw(containers_of(["app", "proxy", "log"][: draw(st.integers(1, 3))]))}
    inits = draw(containers_of(["setup", "mesh"][: draw(st.integers(0, 2))]))
    for one in inits:
        if draw(st.booleans()):
            one["restartPolicy"] = "Always"
    spec |= {"initContainers": inits} if inits else {}
    grace = draw(st.sampled_from([None, 0, 1, 30, 59, 60, 61, 3600]))
    spec |= {} if grace is None else {"terminationGracePeriodSeconds": grace}
    spec |= draw(st.sampled_from([{}, {}, {"hostNetwork": True}, {"os": {"name": "windows"}}]))
    metadata = {"name": "x"}
    key = st.sampled_from(["a", "a/b~c", UNGATED, GATE_TOKEN, REPLACE_SLEEP])
    value = st.sampled_from(["", "true", TOKEN, "not a token"])
    if draw(st.booleans()):
        metadata["annotations"] = draw(st.dictionaries(key, value, max_size=3))
    labels = st.dictionaries(st.sampled_from([GATE, REPLACE_SLEEP, "app"]), st.sampled_from(["disabled", "true"]))
    if draw(st.booleans()):
        metadata["labels"] = draw(labels)
    if draw(st.booleans()):
        owner = draw(st.sampled_from(["Job", "ReplicaSet"]))
        metadata["ownerReferences"] = [{"kind": owner, "name": "o", "uid": "u", "controller": True}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def serving(one):
    inits = [each for each in one["spec"].get("initContainers", ()) if each.get("restartPolicy") == "Always"]
    return [each["name"] for each in (*one["spec"]["containers"], *inits)]


def is_gated(one, name):
    token = one["metadata"].get("annotations", {}).get(GATE_TOKEN, "") if one["spec"].get("hostNetwork") else ""
    return is_gate(name, hooks(one)[name] or {}, token)


def anonymous(one):
    """Without what may be changed."""
    one = copy.deepcopy(one)
    one["spec"].pop("terminationGracePeriodSeconds", None)
    for each in (*one["spec"]["containers"], *one["spec"].get("initContainers", ())):
        (each.get("lifecycle") or {}).pop("preStop", None)
        if not each.get("lifecycle"):
            each.pop("lifecycle", None)
    annotations = one["metadata"].pop("annotations", {})
    one["metadata"]["annotations"] = {k: v for k, v in annotations.items() if k not in (UNGATED, GATE_TOKEN)}
    return one


@given(pods(), st.booleans())
def test_of_any_pod_every_container_that_serves_is_gated_or_named(one, replaces_sleep):
    before = copy.deepcopy(one)
    found = inject(one, TOKEN, replaces_sleep)
    assert one == before, "what was asked about is not changed"
    if found is None:
        assert one["metadata"]["labels"][GATE] == "disabled"
        return
    after = patched(one, found)
    for name in serving(after):
        assert is_gated(after, name) or f"container {name} " in found.ungated or hooks(after) == hooks(one)
    if not found.ungated:
        assert all(is_gated(after, name) for name in serving(after))
    assert (after["metadata"].get("annotations") or {}).get(UNGATED, "") == found.ungated
    assert anonymous(after) == anonymous(one), "nothing but hooks, the grace and our annotations"
    for name in set(hooks(one)) - set(serving(one)):
        assert hooks(after)[name] == hooks(one)[name], "an init container is never gated"


@given(pods(), st.booleans())
def test_of_any_pod_the_grace_is_raised_for_a_gate_and_never_lowered(one, replaces_sleep):
    found = inject(one, TOKEN, replaces_sleep)
    if found is None:
        return
    after = patched(one, found)
    was, now = (each["spec"].get("terminationGracePeriodSeconds", 30) for each in (one, after))
    assert now >= was
    if any(is_gated(after, name) for name in serving(after)) and hooks(after) != hooks(one):
        assert now >= GRACE_SECONDS
    if hooks(after) == hooks(one) and not any(is_gated(after, name) for name in serving(after)):
        assert now == was, "a pod that gets no gate keeps its grace"


@given(pods(), st.booleans())
def test_of_any_pod_a_second_look_changes_nothing(one, replaces_sleep):
    found = inject(one, TOKEN, replaces_sleep)
    if found is None:
        return
    again = inject(patched(one, found), "f" * 32, replaces_sleep)
    assert again.patch == () and again.ungated == found.ungated and again.warnings == found.warnings


@given(pods())
def test_of_any_pod_a_hook_that_does_something_is_kept(one):
    found = inject(one, TOKEN, replaces_sleep=True)
    if found is None:
        return
    after = hooks(patched(one, found))
    for name, hook in hooks(one).items():
        if hook in (QUIT, {"httpGet": {"path": "/quit", "port": 80}}):
            assert after[name] == hook


# --- one by one ---


def test_containers_and_native_sidecars_are_gated_and_the_model_takes_the_pod_for_gated():
    mesh = container("mesh", restartPolicy="Always")
    one = pod(container("app"), container("log"), initContainers=[container("setup"), mesh])
    found = inject(one, TOKEN)
    after = patched(one, found)
    assert hooks(after) == {"setup": None, "mesh": gate("mesh"), "app": gate("app"), "log": gate("log")}
    assert after["spec"]["terminationGracePeriodSeconds"] == 60
    assert found.warnings == () and found.gated == ("app", "log", "mesh")
    assert pod_noun.decode({**after, "metadata": {**after["metadata"], "name": "w"}}).is_gated


def test_a_container_with_a_hook_of_its_own_keeps_it_and_is_named_and_its_neighbour_is_gated():
    one = pod(container("app"), container("nginx", QUIT))
    found = inject(one, TOKEN, replaces_sleep=True)
    after = patched(one, found)
    assert hooks(after) == {"app": gate("app"), "nginx": QUIT}
    assert after["metadata"]["annotations"][UNGATED] == found.ungated
    [warning] = found.warnings
    assert "container nginx keeps a preStop hook of its own and has no gate" in warning


@pytest.mark.parametrize("hook", [SLEEP, SHELL])
def test_a_plain_sleep_is_kept_until_namespace_or_pod_ask_for_its_replacement(hook):
    one = pod(container("app", hook))
    found = inject(one, TOKEN)
    assert hooks(patched(one, found)) == {"app": hook} and "terminationGracePeriodSeconds" not in str(found.patch)
    assert f"{REPLACE_SLEEP}=true" in found.warnings[0]
    assert hooks(patched(one, inject(one, TOKEN, replaces_sleep=True))) == {"app": gate("app")}
    for asked in ({"labels": {REPLACE_SLEEP: "true"}}, {"annotations": {REPLACE_SLEEP: "true"}}):
        asking = pod(container("app", hook), **asked)
        assert hooks(patched(asking, inject(asking, TOKEN))) == {"app": gate("app")}


def test_on_the_nodes_network_the_hook_names_the_loopback_and_each_pod_has_a_token_of_its_own():
    one = pod(container("app", ports=[{"containerPort": 8080}]), hostNetwork=True)
    after = patched(one, inject(one, TOKEN))
    assert hooks(after) == {"app": {"httpGet": {**gate("app")["httpGet"], **ON_HOST}}}
    assert after["metadata"]["annotations"] == {GATE_TOKEN: TOKEN}
    asked = [json.loads(answer(json.dumps(review(one, uid=uid)).encode()).body) for uid in ("a", "b", "a")]
    first, second, again = (each["response"]["patch"] for each in asked)
    assert first != second and first == again


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (pod(container("app"), hostNetwork=True), "declares no port"),
        (pod(container("app"), os={"name": "windows"}), "runs windows"),
        (pod(container("app"), nodeSelector={"kubernetes.io/os": "windows"}), "runs windows"),
    ],
)
def test_what_cannot_be_gated_is_told_and_marked_and_otherwise_left_alone(one, why):
    found = inject(one, TOKEN)
    assert why in found.ungated and why in found.warnings[0] and found.gated == ()
    assert patched(one, found)["spec"] == one["spec"]


def test_a_jobs_pod_is_marked_without_a_warning_for_there_is_nothing_to_do():
    found = inject(pod(container("app"), owner="Job"), TOKEN)
    assert found.ungated == "a Job's pod ends by itself" and found.warnings == ()


@pytest.mark.parametrize(
    "one",
    [
        pod(container("app"), labels={GATE: "disabled"}),
        pod(container("app"), annotations={"kubernetes.io/config.mirror": "0123"}, hostNetwork=True),
    ],
)
def test_who_opted_out_and_mirrors_of_static_pods_are_not_touched(one):
    assert inject(one, TOKEN) is None


def test_a_reason_that_was_copied_from_another_pod_goes():
    one = pod(container("app", gate("app")), annotations={UNGATED: "old"}, terminationGracePeriodSeconds=60)
    assert inject(one, TOKEN).patch == ({"op": "remove", "path": "/metadata/annotations/tidegate.dev~1ungated"},)


# --- reviews ---


def review(one, uid="u-1", **more):
    request = {
        "uid": uid, "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
        "namespace": "shop", "object": one, "dryRun": False, **more,
    }  # fmt: skip
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def asked(document, **more):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = answer(body, **more)
    told = json.loads(found.body)
    assert (told["apiVersion"], told["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert told["response"]["allowed"] is True
    return found.outcome, told["response"]


def test_a_review_is_answered_with_its_uid_and_a_patch_that_applies():
    one = pod(container("app"))
    outcome, told = asked(review(one))
    assert outcome == "gated" and told["uid"] == "u-1" and told["patchType"] == "JSONPatch"
    patch = json.loads(base64.b64decode(told["patch"]))
    assert hooks(patches.json_patch(one, patch)) == {"app": gate("app")}
    assert asked(review(one, dryRun=True)) == asked(review(one)), "a dry run is answered as any other"


@pytest.mark.parametrize("namespace", LEFT_ALONE)
def test_system_namespaces_are_never_touched(namespace):
    assert namespace in ("kube-system", SYSTEM_NAMESPACE, "kube-public", "kube-node-lease")
    outcome, told = asked(review(pod(container("app")), namespace=namespace))
    assert outcome == "untouched" and "patch" not in told


@pytest.mark.parametrize(
    "more",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"subResource": "eviction", "kind": {"group": "policy", "version": "v1", "kind": "Eviction"}},
        {"kind": {"group": "example.org", "version": "v1", "kind": "Pod"}},
    ],
)
def test_what_is_not_the_creation_of_a_pod_is_allowed_untouched(more):
    assert asked(review(pod(container("app")), **more)) == ("untouched", {"uid": "u-1", "allowed": True})


DEEP = b'{"request": {"uid": "u-1", "object": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"


@pytest.mark.parametrize(
    ("body", "uid"),
    [
        (b"", ""),
        (b"not json", ""),
        (b"[]", ""),
        (b"{}", ""),
        (b"\xff\xfe", ""),
        (DEEP, ""),
        (b'{"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "u-1"}}', "u-1"),
        (b'{"apiVersion": "admission.k8s.io/v1", "request": {"uid": "u-1"}}', "u-1"),
        (json.dumps(review({"metadata": None, "spec": 7})).encode(), "u-1"),
        (json.dumps(review(pod())).encode(), "u-1"),
        (json.dumps(review(pod({"name": "a", "lifecycle": {"preStop": "sleep"}}))).encode(), "u-1"),
        (json.dumps(review(pod(container("a"), terminationGracePeriodSeconds="soon"))).encode(), "u-1"),
        (json.dumps(review(pod(container("a", env="x" * REVIEW_BYTES_MAX)))).encode(), "u-1"),
    ],
)
def test_garbage_is_allowed_with_a_warning(body, uid):
    outcome, told = asked(body)
    assert outcome == "malformed" and told["uid"] == uid and "patch" not in told
    [warning] = told["warnings"]
    assert warning.startswith("tidegate: this pod gets no gate: ") and len(warning) <= WARNING_LENGTH_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "metadata", "containers", "lifecycle", "preStop", "name"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_no_object_of_any_shape_is_answered_otherwise_than_allowed(metadata, spec):
    asked(review({"metadata": metadata, "spec": spec}))
    asked({"apiVersion": "admission.k8s.io/v1", "request": metadata})


def test_long_names_give_short_warnings_and_few_of_them():
    one = pod(*(container(f"c{index}-{'x' * 55}", QUIT) for index in range(30)))
    _, told = asked(review(one))
    assert len(told["warnings"]) == 8 and max(map(len, told["warnings"])) <= WARNING_LENGTH_MAX


def test_the_transcript_of_all_of_it_is_golden(golden):
    mesh = container("mesh", restartPolicy="Always")
    stories = {
        "a plain pod": pod(container("app")),
        "two containers, a native sidecar and an init container": pod(
            container("app"), container("log"), initContainers=[container("setup"), mesh]
        ),
        "a long grace": pod(container("app"), terminationGracePeriodSeconds=300),
        "a sleep that is kept": pod(container("app", SHELL)),
        "a sleep that may go": pod(container("app", SHELL), annotations={REPLACE_SLEEP: "true"}),
        "a hook of its own": pod(container("app", QUIT), container("log")),
        "on its node's network": pod(container("app", ports=[{"containerPort": 80}]), hostNetwork=True),
        "on its node's network, without a port": pod(container("app"), hostNetwork=True),
        "gated in its template": pod(container("app", gate("app")), terminationGracePeriodSeconds=60),
        "of a Job": pod(container("app"), owner="Job"),
        "opted out": pod(container("app"), labels={GATE: "disabled"}),
    }
    lines = []
    for title, one in stories.items():
        outcome, told = asked(review(one))
        lines.append(f"{title}: {outcome}")
        for each in json.loads(base64.b64decode(told.get("patch", "W10="))):
            lines.append(f"  {each['op']} {each['path']} {json.dumps(each.get('value', ''))}")
        lines += [f"  warning: {each}" for each in told.get("warnings", ())]
    golden("operator/injection.txt", "\n".join(lines) + "\n")
