"""Kind ``aws-target-group``: DescribeTargetHealth for every target group that has pods for targets.

Which groups: those of the TargetGroupBindings in the cluster (aws-load-balancer-controller), or as written down.
Signed by botocore with the credentials of its own chain (the extra ``aws``), sent by our own client, which runs in
virtual time too. The region is the target group's own, as its ARN has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from tidegate.dataplane import awstargets
from tidegate.dataplane.awstargets import TargetGroup
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers import cloud
from tidegate.observers.addition import Joining
from tidegate.observers.external import Question, Replica, Services, Spec
from tidegate.observers.options import decode_options

BINDINGS = "targetgroupbindings.elbv2.k8s.aws"
_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):elasticloadbalancing:(?P<region>[a-z0-9-]+):\d{12}:targetgroup/[^/]+/[^/]+"
)
_HINTS = {
    "ExpiredToken": "the credentials have run out",
    "TargetGroupNotFound": "there is no such target group in its region and this account",
    "Throttling": "too many requests of this account",
}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``target_groups``: ARN to Service (namespace/name); with any, no TargetGroupBinding is looked at.
    ``network_linger_seconds``: how long a Network Load Balancer may go on sending what it should not. ``endpoint``: in
    the place of ``https://elasticloadbalancing.REGION.amazonaws.com`` (a VPC endpoint)."""

    target_groups: dict[str, str] = {}
    network_linger_seconds: float = 180.0
    endpoint: str = ""
    covers: tuple[str, ...] = ("loadbalancer/aws",)


class AwsTargetGroups(cloud.Groups):
    """Observer of kind ``aws-target-group``."""

    def __init__(self, spec: Spec) -> None:
        self._options = decode_options(spec, Options)
        self.covers = self._options.covers
        for arn, service in self._options.target_groups.items():
            if not _ARN.fullmatch(arn) or service.count("/") != 1:
                raise ValueError(f"{spec.path}.targetGroups: {arn!r}: {service!r} is no ARN and its namespace/name")
        if self._options.target_groups:
            self._services = {arn: frozenset((name,)) for arn, name in self._options.target_groups.items()}
        self._groups: dict[str, TargetGroup] = {}

    def see(self, objects: Mapping[str, list[dict[str, Any]] | None]) -> None:
        if self._options.target_groups:
            return
        bindings = objects.get(BINDINGS)
        if bindings is None:
            self._services = None
            return
        found: dict[str, frozenset[str]] = {}
        for binding in bindings:
            spec, namespace = binding.get("spec") or {}, binding["metadata"].get("namespace", "")
            if spec.get("targetType") != "instance":  # those have nodes for targets, whose rules are read
                service = f"{namespace}/{(spec.get('serviceRef') or {}).get('name')}"
                arn = str(spec.get("targetGroupARN") or "")
                found[arn] = found.get(arn, frozenset()) | {service}
        self._services = found

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        del slices
        if self._services is None:
            raise ValueError(f"{BINDINGS} were not listed, so which target groups there are is not known")
        return tuple(Replica(_name(arn), arn) for arn in sorted(self._services))

    def expected(
        self, replica: Replica, service: str, services: Services, pods: tuple[Joining, ...]
    ) -> tuple[Joining, ...] | None:
        """All of a Service that is bound to the group. With a readiness gate of the controller's a pod is ready once it
        is healthy here; without, this is who says so."""
        del services
        known = self._services_of(replica)
        return pods if known is not None and service in known else None

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``."""
        del question
        arn = replica.address
        if not _ARN.fullmatch(arn):
            return Facts(replica.name, "target health", unreadable=(Unreadable("no ARN of a target group", arn),))
        try:
            if arn not in self._groups:
                listed = await self._call(arn, "DescribeTargetGroups", {"TargetGroupArns.member.1": arn})
                self._groups[arn] = awstargets.parse_group(listed, arn)
            health = await self._call(arn, "DescribeTargetHealth", {"TargetGroupArn": arn})
        except ValueError as error:
            return Facts(replica.name, "target health", unreadable=(Unreadable(str(error), replica.name),))
        linger = self._options.network_linger_seconds
        return awstargets.parse_health(health, self._groups[arn], linger_seconds=linger, source=replica.name)

    async def _call(self, arn: str, action: str, parameters: dict[str, str]) -> str:
        """The answer's text. Raises ``Unreachable`` for any refusal, by its code."""
        parts = _ARN.fullmatch(arn)
        assert parts is not None
        region, suffix = parts["region"], ".cn" if parts["partition"] == "aws-cn" else ""
        server = self._options.endpoint or f"https://elasticloadbalancing.{region}.amazonaws.com{suffix}"
        body = urlencode({"Action": action, "Version": awstargets.VERSION, **parameters}).encode()
        answer = await cloud.fetch(server, Request("POST", "/", (), await signed(server, body, region), body))
        if answer.status == 200:
            return answer.text
        code = awstargets.parse_error(answer.text) or f"status {answer.status}"
        hint = f" ({_HINTS[code]})" if code in _HINTS else ""
        raise Unreachable(f"{server}: {action}: {code}{hint}")


def _name(arn: str) -> str:
    return arn.rpartition("targetgroup/")[2].partition("/")[0] or "(no ARN)"


async def signed(server: str, body: bytes, region: str) -> dict[str, str]:
    """The headers of a POST to ``/``, signed. Raises ``Unreachable``."""
    frozen = await credentials()
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    content = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = AWSRequest("POST", f"{server}/", headers=content, data=body)
    SigV4Auth(frozen, "elasticloadbalancing", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


async def credentials() -> Any:
    """As botocore finds them: environment, profile, web identity, container, instance. Raises ``Unreachable``."""

    def load() -> Any:
        import botocore.session

        if not _CHAIN:
            _CHAIN.append(botocore.session.Session().get_credentials())
        if _CHAIN[0] is None:
            _CHAIN.clear()
            raise Unreachable("no AWS credentials are found by botocore's chain")
        return _CHAIN[0].get_frozen_credentials()

    return await cloud.loaded("AWS credentials (the extra `aws`)", load)


_CHAIN: list[Any] = []
"""Kept: it renews what runs out by itself."""
