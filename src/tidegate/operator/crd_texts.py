"""What the definitions say beyond the structs: descriptions, limits, and the rules that span fields."""

from __future__ import annotations

from tidegate.operator.schema import Schema
from tidegate.release.spec import ANALYSES_MAX, STEPS_MAX, WORKLOAD_LENGTH_MAX

_POSITIVE: Schema = {"minimum": 0, "exclusiveMinimum": True}
_NOT_NEGATIVE: Schema = {"minimum": 0}


def _text(description: str, **more: object) -> Schema:
    return {"description": description, **more}


def _rule(rule: str, message: str, path: str = "") -> Schema:
    return {"rule": rule, "message": message, **({"fieldPath": path} if path else {})}


_ANALYSES: Schema = {
    "maxItems": ANALYSES_MAX,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
}
_ANALYSIS: dict[str, Schema] = {
    "Analysis": {
        "description": "One question.",
        "x-kubernetes-validations": [
            _rule(
                "self.kind != 'prometheus' || (has(self.url) && size(self.url) > 0 && has(self.query) && "
                "size(self.query) > 0 && has(self.success) && size(self.success) > 0)",
                "prometheus needs url, query and success (such as '>= 0.99')",
            ),
            _rule("self.kind != 'http' || (has(self.url) && size(self.url) > 0)", "http needs a URL", ".url"),
            _rule(
                "self.kind != 'command' || (has(self.command) && size(self.command) > 0)",
                "command needs one",
                ".command",
            ),
        ],
    },
    "Analysis.name": _text("For people; each has its own."),
    "Analysis.kind": _text("prometheus, http or command (of the command line only)."),
    "Analysis.url": _text("Where."),
    "Analysis.query": _text("Prometheus: the query."),
    "Analysis.success": _text("Prometheus: what its value has to be, such as '>= 0.99'."),
    "Analysis.command": _text("A program and its arguments: exit 0 is success."),
    "Analysis.intervalSeconds": _text("How often.", **_POSITIVE),
    "Analysis.count": _text("How many times for each step.", minimum=1),
    "Analysis.failureLimit": _text("More failures than this abort.", **_NOT_NEGATIVE),
    "Analysis.timeoutSeconds": _text("For how long an answer is waited for.", **_POSITIVE),
}

_SPEC: dict[str, Schema] = {
    "Spec": {
        "description": "What is asked for.",
        "x-kubernetes-validations": [
            _rule(
                "!has(self.template) || !has(self.images) || size(self.images) == 0",
                "a whole template and images beside it contradict each other: give one of them",
                ".images",
            ),
            _rule(
                "self.strategy != 'canary' || (has(self.canary) && has(self.canary.steps) && "
                "size(self.canary.steps) > 0)",
                "a canary needs at least one step",
                ".canary",
            ),
            _rule(
                "self.strategy != 'bluegreen' || (has(self.bluegreen) && has(self.bluegreen.service) && "
                "size(self.bluegreen.service) > 0)",
                "blue/green flips a Service: name it",
                ".bluegreen",
            ),
        ],
    },
    "Spec.workload": _text(
        "The Deployment that is released, by name, of this namespace.",
        pattern="^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        maxLength=WORKLOAD_LENGTH_MAX,
        **{
            "x-kubernetes-validations": [
                _rule("self == oldSelf", "a Release is of one Deployment: make another Release")
            ]
        },
    ),
    "Spec.strategy": _text("How: rolling, bluegreen, canary or rainbow."),
    "Spec.images": _text("To what: the template of now with these images, by container."),
    "Spec.template": _text("To what: a whole PodTemplateSpec."),
    "Spec.restart": _text("Any text: another text is another revision of the same template."),
    "Spec.rolling": _text("For strategy rolling."),
    "Spec.bluegreen": _text("For strategy bluegreen."),
    "Spec.canary": _text("For strategy canary."),
    "Spec.rainbow": _text("For strategy rainbow."),
    "Spec.paused": _text("Stop before the next step."),
    "Spec.promoted": _text("How many pauses somebody has let pass.", **_NOT_NEGATIVE),
    "Spec.wish": _text("abort goes back to the revision before."),
    "Spec.rollbackTo": _text("Go back to this revision."),
    "Spec.retire": _text("Revisions that are kept and are to end."),
    "Spec.ungated": _text("What becomes of pods without a gate: drain them by label first, or proceed unverified."),
    "Spec.onUnverified": _text("Whether a drain that ends unverified halts the release, or it proceeds."),
    "Spec.progressSeconds": _text("How long a new pod may take to be ready.", **_POSITIVE),
    "Rolling": _text("In place, on the Deployment itself; old pods end through their gates."),
    "BlueGreen": {
        "description": "A second Deployment beside the first; the Service flips, verified.",
        "x-kubernetes-validations": [
            _rule(
                "!has(self.preview) || self.preview == '' || !has(self.service) || self.preview != self.service",
                "the Service that flips cannot be its own preview: name another",
                ".preview",
            ),
        ],
    },
    "BlueGreen.service": _text("The Service that flips."),
    "BlueGreen.preview": _text("A Service for the new revision before the flip."),
    "BlueGreen.promote": _text("auto: once the new revision is ready; manual: when somebody says so."),
    "BlueGreen.keepSeconds": _text(
        "How long the old revision stays warm; without it until it is retired.", **_NOT_NEGATIVE
    ),
    "BlueGreen.by": _text(
        "A label of your own whose value differs between the templates, and by which the Service is to select.",
        pattern="^(([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$",
    ),
    "BlueGreen.name": _text(
        "Of the new revision's Deployment; without it WORKLOAD-rN.", pattern="^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
    ),
    "BlueGreen.together": _text("Both serve from when the new one is ready until the flip."),
    "BlueGreen.analysis": _text("What has to hold on both sides of the flip.", **_ANALYSES),
    "Canary": {
        "description": "A growing part of the traffic.",
        "x-kubernetes-validations": [
            _rule("!has(self.steps) || self.steps.map(one, one.weight).isSorted()", "weights only grow", ".steps"),
            _rule(
                "!has(self.steps) || (has(self.router) && self.router == 'httproute') || "
                "self.steps.all(one, !has(one.header) || size(one.header) == 0)",
                "only an HTTPRoute can look at headers: a step's header takes router httproute",
                ".steps",
            ),
            _rule(
                "!has(self.router) || self.router == 'replicas' || (has(self.route) && size(self.route) > 0)",
                "routers httproute and traefik need the name of the object that they weigh",
                ".route",
            ),
        ],
    },
    "Canary.service": _text("The Service whose traffic is divided."),
    "Canary.steps": _text("In order.", maxItems=STEPS_MAX),
    "Canary.router": _text("replicas: the ratio of pods; httproute or traefik: weights of an object."),
    "Canary.route": _text("The object that the router weighs."),
    "Canary.analysis": _text("What has to hold for it to go on.", **_ANALYSES),
    "CanaryStep": _text("One step."),
    "CanaryStep.weight": _text("Percent of new connections for the new revision.", minimum=0, maximum=100),
    "CanaryStep.pauseSeconds": _text("How long to stay; null: until somebody promotes.", **_NOT_NEGATIVE),
    "CanaryStep.header": _text("Only requests with it (name=value), where the router can.", maxLength=1024),
    **_ANALYSIS,
    **{f"Flip{place}": schema for place, schema in _ANALYSIS.items()},
    "FlipAnalysis.count": _text("How many times.", minimum=1),
    "FlipAnalysis.when": _text("before the flip: a failure leaves traffic where it is; after it: one flips back."),
    "Rainbow": {
        "description": "A Deployment for each revision; the old ones leave as their work does.",
        "x-kubernetes-validations": [
            _rule(
                "!has(self.analysis) || size(self.analysis) == 0 || (has(self.service) && size(self.service) > 0)",
                "its analyses are of new traffic, which goes by a Service: name it",
                ".service",
            ),
        ],
    },
    "Rainbow.analysis": _text("What has to hold before new traffic goes to it, and after.", **_ANALYSES),
    "Rainbow.service": _text("The Service that sends new work to the newest."),
    "Rainbow.cap": _text("Live revisions at most, the new one included.", minimum=2, maximum=20),
    "Rainbow.idleSeconds": _text("How long a pod has to be without work before it may go.", **_NOT_NEGATIVE),
    "Rainbow.retireSeconds": _text("How long an empty revision is kept at zero.", **_NOT_NEGATIVE),
    "Rainbow.activity": _text("How to ask a revision for its work; without it, its open connections."),
}

_STATUS: dict[str, Schema] = {
    "Status": _text("Where it stands: what the engine remembers between two looks."),
    "Status.phase": _text("pending, progressing, paused, halted, aborting, done or aborted."),
    "Status.haltedIn": _text("Where a question of it was refused: the phase that it goes on in."),
    "Status.reason": _text("The one sentence that says why it waits."),
    "Status.revision": _text("The revision that comes, or came."),
    "Status.stable": _text("The one that has (had) the traffic."),
    "Status.fingerprint": _text("Of the template that is asked for."),
    "Status.round": _text("Grows with every new target: older answers do not count for it."),
    "Status.generation": _text("Of the spec that the engine has seen."),
    "Status.step": _text("Which step."),
    "Status.since": _text("Since when it lasts (seconds since 1970)."),
    "Status.began": _text("When this target was first seen (seconds since 1970)."),
    "Status.asked": _text("What all observers said, by question."),
    "Status.measured": _text("Analyses, by step and name."),
    "Status.idleSince": _text("Since when a pod or revision has no work (seconds since 1970)."),
    "Status.unverified": _text("Pods that ended in another way than verified."),
    "Status.leaving": _text("Pods that are ending or about to, by name: the next engine asks how they did."),
    "Status.notes": _text("What was done, the newest last."),
    "Status.history": _text("Revisions of before, oldest first."),
    "Status.token": _text("Of this run."),
    "Status.by": _text("Who asked for it."),
    "Status.holder": _text("The engine at work."),
    "Status.leaseUntil": _text("Until when it is believed to be (RFC 3339)."),
}

RELEASE = {**_SPEC, **_STATUS}

DRAIN: dict[str, Schema] = {
    "DrainSpec": _text("Which pod was retired, by which verb, for whom."),
    "DrainSpec.pod": _text("Its name."),
    "DrainSpec.uid": _text("Its uid."),
    "DrainSpec.node": _text("Where it ran."),
    "DrainSpec.verb": _text("drain, cut, isolate or restore."),
    "DrainSpec.mode": _text("gate: by its preStop hook; label: by its labels."),
    "DrainSpec.by": _text("Who asked."),
    "DrainSpec.why": _text("In their words."),
    "DrainSpec.token": _text("Of the run."),
    "DrainSpec.services": _text("Services that it was in, namespace/name."),
    "DrainSpec.began": _text("When the verb was first asked for."),
    "DrainSpec.deadline": _text("How long it could take."),
    "DrainSpec.onDeadline": _text("What would become of it then."),
    "DrainSpec.probe": _text("How it was asked for its work."),
    "DrainStatus": _text("How it ended, and what was seen."),
    "DrainStatus.result": _text("verified is a proof; the other words name what is missing."),
    "DrainStatus.reason": _text("In a sentence."),
    "DrainStatus.cut": _text("When it was cut (RFC 3339)."),
    "DrainStatus.concluded": _text("When it was over (RFC 3339)."),
    "DrainStatus.seconds": _text("From the cut to the conclusion."),
    "DrainStatus.epoch": _text("Of the fence that every observer had to show."),
    "DrainStatus.policy": _text("What became of silent nodes."),
    "DrainStatus.stragglers": _text("Observers that had not let go."),
    "DrainStatus.suspected": _text("Who else may have routed to it."),
    "DrainStatus.regressions": _text("Routes that came back."),
    "DrainStatus.observers": _text("Each observer's last word."),
    "DrainStatus.observersLeftOff": _text("How many more there were."),
    "DrainStatus.connectionsAtCut": _text("Connections as it was cut."),
    "DrainStatus.connectionsAtEnd": _text("Connections at its end."),
    "DrainStatus.activity": _text("What its probe said last."),
    "DrainStatus.stamp": _text("Who wrote the record."),
}

OBSERVER: dict[str, Schema] = {
    "ObserverSpec": {
        "description": "As one entry of the observers' file.",
        "x-kubernetes-validations": [
            _rule(
                "!has(self.where) || !has(self.where.addresses) || size(self.where.addresses) == 0 || "
                "((!has(self.where.service) || size(self.where.service) == 0) && "
                "(!has(self.where.port) || self.where.port == 0))",
                "a service and its port, or addresses, not both",
                ".where",
            )
        ],
    },
    "ObserverSpec.kind": _text(
        "Which program: haproxy, traefik, envoy, dns, http ... (docs/observers.md).", minLength=1
    ),
    "ObserverSpec.where": _text("Where it is asked."),
    "ObserverSpec.policy": _text("required: drains wait for it; advisory: they are told."),
    "ObserverSpec.timeoutSeconds": _text("For how long one answer is waited for.", **_POSITIVE, maximum=60),
    "ObserverSpec.onUnreachable": _text("hold: a drain waits for one that is silent; warn: it goes on and says so."),
    "ObserverSpec.settleSeconds": _text(
        "How long one that proves nothing has to have let go.", minimum=0, maximum=3600
    ),
    "ObserverSpec.options": _text("Of its kind."),
    "WhereFields": _text("A Service and its pods' port, or addresses."),
    "WhereFields.service": _text("namespace/name", pattern="^([^/]+/[^/]+)?$"),
    "WhereFields.port": _text("Of its pods.", minimum=0, maximum=65535),
    "WhereFields.addresses": _text("host:port of each replica."),
}
