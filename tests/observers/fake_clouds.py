"""The control planes of two clouds, as far as their load balancers are asked about, on whatever clock runs.

Shapes from botocore's model of elbv2 and the reference of compute v1. What a control plane says and where its load
balancers still send are two things: ``sends_to`` is the latter. moto's elbv2 never shows ``draining`` for an address.
"""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from tidegate.kube.exchange import whole

ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web/0123456789abcdef"
AWS = "https://elasticloadbalancing.eu-west-1.amazonaws.com"
GCP = "https://compute.googleapis.com"
_XMLNS = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"
NLB_LATE_SECONDS = 120.0
"""aws-load-balancer-controller#2366: new connections for two minutes after deregistration."""


def now():
    return asyncio.get_running_loop().time()


class Cloud:
    """Targets by address and port, registered and deregistered; ``fails`` is an error code for every call."""

    def __init__(self):
        self.targets, self.left, self.asked, self.fails = {}, {}, [], ""

    def register(self, *addresses, port=8080):
        for address in addresses:
            self.left.pop((address, port), None)
            self.targets.setdefault((address, port), now())

    def deregister(self, *addresses, port=8080):
        for address in addresses:
            if self.targets.pop((address, port), None) is not None:
                self.left[address, port] = now()

    def sends_to(self):
        """Where new connections may go."""
        late = [key for key, at in self.left.items() if now() < at + self.late_seconds]
        return [*self.targets, *late]


class FakeAws(Cloud):
    """elbv2's query API of one region. ``protocol`` HTTP is an Application Load Balancer's, TCP a Network one's."""

    def __init__(self, protocol="HTTP", deregistration_seconds=300.0):
        super().__init__()
        self.protocol, self.deregistration_seconds = protocol, deregistration_seconds
        self.late_seconds = 0.0 if protocol == "HTTP" else NLB_LATE_SECONDS
        self.states, self.initial_seconds = {}, 10.0

    async def exchange(self, request):
        asked = dict(parse_qsl(request.body.decode()))
        self.asked.append(asked.get("Action"))
        scope = re.match(
            r"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/\d{8}/([a-z0-9-]+)/elasticloadbalancing/",
            request.headers.get("authorization", ""),
        )
        if scope is None or request.headers["content-type"].partition(";")[0] != "application/x-www-form-urlencoded":
            return self.error(403, "IncompleteSignature")
        if self.fails:
            return self.error(503 if self.fails == "ServiceUnavailable" else 400, self.fails)
        if ARN not in asked.values() or scope[1] != ARN.split(":")[3]:
            return self.error(400, "TargetGroupNotFound")
        if asked["Action"] == "DescribeTargetGroups":
            return self.answer(
                asked["Action"],
                "TargetGroups",
                [
                    f"<TargetGroupArn>{ARN}</TargetGroupArn><Protocol>{self.protocol}</Protocol><TargetType>ip</TargetType>"
                ],
            )
        return self.answer(asked["Action"], "TargetHealthDescriptions", [self.describe(*one) for one in self.health()])

    def health(self):
        """(address, port, state, reason) of what is registered, and of what is still being drained."""
        for (address, port), at in self.targets.items():
            state = self.states.get(address) or ("initial" if now() < at + self.initial_seconds else "healthy")
            yield address, port, state, ""
        for (address, port), at in self.left.items():
            if now() < at + self.deregistration_seconds:
                yield address, port, "draining", "Target.DeregistrationInProgress"

    def describe(self, address, port, state, reason):
        told = f"<State>{state}</State>" + (f"<Reason>{reason}</Reason>" if reason else "")
        target = f"<Id>{escape(address)}</Id><Port>{port}</Port>"
        return f"<HealthCheckPort>{port}</HealthCheckPort><Target>{target}</Target><TargetHealth>{told}</TargetHealth>"

    def answer(self, action, listed, members):
        inner = "".join(f"<member>{one}</member>" for one in members)
        result = f"<{action}Result><{listed}>{inner}</{listed}></{action}Result>"
        request = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
        return whole(200, f'<{action}Response xmlns="{_XMLNS}">{result}{request}</{action}Response>'.encode())

    def error(self, status, code):
        told = f"<Type>Sender</Type><Code>{code}</Code><Message>no words of AKIDEXAMPLE</Message>"
        return whole(status, f'<ErrorResponse xmlns="{_XMLNS}"><Error>{told}</Error></ErrorResponse>'.encode())


class FakeGcp(Cloud):
    """compute v1's listNetworkEndpoints, two to a page. What was detached is unlisted once ``detach_seconds`` are over,
    and load balancers send to it until ``late_seconds``."""

    def __init__(self, detach_seconds=5.0, late_seconds=20.0):
        super().__init__()
        self.detach_seconds, self.late_seconds, self.warning = detach_seconds, late_seconds, ""
        self.groups = [("p-roject", "z-1", "web-neg")]

    async def exchange(self, request):
        match = re.fullmatch(
            "/compute/v1/projects/([^/]+)/zones/([^/]+)/networkEndpointGroups/([^/]+)/listNetworkEndpoints",
            request.path,
        )
        self.asked.append(request.path)
        if request.headers.get("authorization") != "Bearer ya29.token":
            return self.error(401, "authError")
        if self.fails:
            return self.error(503 if self.fails == "backendError" else 403, self.fails)
        if match is None or match.groups() not in self.groups:
            return self.error(404, "notFound")
        leaving = [key for key, at in self.left.items() if now() < at + self.detach_seconds]
        found = [("HEALTHY", *key) for key in self.targets] + [("DRAINING", *key) for key in leaving]
        start = int(request.param("pageToken", "0"))
        page = [
            {
                "networkEndpoint": {"ipAddress": address, "port": port, "instance": "n"},
                "healths": [{"healthState": state}],
            }
            for state, address, port in found[start : start + 2]
        ]
        body = {"kind": "compute#networkEndpointGroupsListNetworkEndpoints", "items": page}
        body |= {"nextPageToken": str(start + 2)} if len(found) > start + 2 else {}
        body |= {"warning": {"code": self.warning, "message": ""}} if self.warning else {}
        return whole(200, json.dumps(body).encode())

    def error(self, code, reason):
        body = {
            "error": {
                "code": code,
                "message": "no words of ya29.token",
                "errors": [{"reason": reason}],
                "status": "DENIED",
            }
        }
        return whole(code, json.dumps(body).encode())


def credentials(monkeypatch):
    """What the clouds' libraries would find, without asking anybody."""
    from botocore.credentials import ReadOnlyCredentials

    from tidegate.observers import aws, gcp

    async def found():
        return ReadOnlyCredentials("AKIDEXAMPLE", "secret", None)

    async def token():
        return "ya29.token"

    monkeypatch.setattr(aws, "credentials", found)
    monkeypatch.setattr(gcp, "token", token)
