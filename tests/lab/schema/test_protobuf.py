"""Bodies kubectl 1.37 posted, against what it prints for the same command with --dry-run=client -o json."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tidegate.lab.apiserver.schema import protobuf, strict

RECORDED = json.loads((Path(__file__).parent / "kubectl_bodies.json").read_text())
PRINTED = sorted(command for command, found in RECORDED.items() if found["json"])


def posted(command):
    return protobuf.decode(base64.b64decode(RECORDED[command]["body"]))


def bare(value):
    """JSON without what Go may or may not leave out: nulls, empty maps and strings, zero."""
    if isinstance(value, dict):
        kept = {key: bare(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, {}, "", [])}
    return [bare(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("command", PRINTED)
def test_a_decoded_body_is_what_kubectl_prints(command):
    decoded, printed = posted(command), RECORDED[command]["json"]
    for obj in (decoded, printed):  # the server takes the namespace from the URL; kubectl prints a zero status
        obj.get("metadata", {}).pop("namespace", None)
        obj.pop("status", None)
    assert bare(decoded) == bare(printed)
    assert strict.mismatch(decoded["kind"], decoded) == ""
    assert strict.unknown_fields(decoded["kind"], decoded) == []


def test_pointers_keep_their_zeros_and_other_fields_lose_theirs():
    deployment = posted("create deployment web --image=i:1 --replicas=0 --port=80 -- sh -c true")
    assert deployment["spec"]["replicas"] == 0
    assert "minReadySeconds" not in deployment["spec"]
    assert "paused" not in deployment["spec"]
    assert posted("create poddisruptionbudget p2 --selector=app=web --max-unavailable=0")["spec"]["maxUnavailable"] == 0


def test_empty_values_of_maps_stay():
    config = posted("create configmap c --from-literal=a=b --from-literal=empty=")
    assert config["data"] == {"a": "b", "empty": ""}


def test_reviews_and_token_requests_are_decoded():
    token = posted("create token default --audience=a --duration=1h")
    assert token["kind"] == "TokenRequest"
    assert token["spec"] == {"audiences": ["a"], "expirationSeconds": 3600}
    review = posted("auth can-i create pods")
    assert review["spec"]["resourceAttributes"]["verb"] == "create"
    assert posted("auth can-i --list")["kind"] == "SelfSubjectRulesReview"
    assert posted("auth whoami")["kind"] == "SelfSubjectReview"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"k8s\0\x0a\xff",
        b"k8s\0\x0a\x0a\x0a\x02v1\x12\x04Gizm",
        b"k8s\0\x0a\x0d\x0a\x04x/v1\x12\x05Gizmo",
    ],
)
def test_garbage_is_refused(body):
    with pytest.raises(protobuf.Undecodable):
        protobuf.decode(body)


def test_a_cut_body_never_decodes_to_something_else():
    whole = base64.b64decode(RECORDED["create serviceaccount sa"]["body"])
    for end in range(len(whole)):
        try:
            decoded = protobuf.decode(whole[:end])
        except protobuf.Undecodable:
            continue
        assert decoded["kind"] == "ServiceAccount"
