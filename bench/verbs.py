"""The traffic verbs, line by line of what they must show: the installed command, real sockets, another's judgement.

Nine lines, each in a namespace of its own on one lab of three nodes in three zones, with requests on fresh and on kept
connections from every node. A figure is what the clients, kubectl or the command itself said, never the verbs' own
word alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.figures import Figure, at_least, at_most, below, counted, holds
from bench.ground import BenchLab, lab
from bench.verbs_ground import Done, Scene, Tally, ended, slow
from bench.verbs_objects import bare_pod, budget, deployment, policy, service, with_label

Line = Callable[[Scene], Awaitable[list[Figure]]]
KILLS = 8
SEED = 7
PROBES = 1000
CALLS = 100
"""Story 4's."""
HELD = "tidegate.dev/held"


def lost(tally: Tally, name: str) -> Figure:
    notes = counted(tally.lost[:20])
    return at_most(
        f"{name}: lost", len(tally.lost), "requests", 0, f"of {tally.sent}" + (f": {notes}" if notes else "")
    )


def brief(text: str) -> str:
    """The end of what was said, in a line."""
    return text.strip().replace("\n", " / ")[-160:]


def went(name: str, done: Done, code: int = 0) -> Figure:
    """The exit code was the one; else what was said stands beside it."""
    return holds(
        f"{name}: exit code {code}", done.code == code, "" if done.code == code else f"{done.code}: {brief(done.said)}"
    )


async def shared_label(scene: Scene) -> list[Figure]:
    """1. Story 4: Service and Deployment share ``app: test``."""
    await scene.apply(deployment("test", {"app": "test"}), service("test", {"app": "test"}, type="NodePort"))
    before = await scene.ready("app=test", 3)
    sick, other = before[0], before[1]
    _, _, node_port = await scene.address("test")
    loop = asyncio.get_running_loop()
    async with scene.load("test") as tally:
        began = loop.time()
        cut = await scene.tidegate("cut", f"pod/{sick}", "--yes", "-o", "json")
        seconds, cut_at = loop.time() - began, loop.time()
        replaced = await scene.ready("app=test", 3)
        calls = await scene.burst((scene.node(1), node_port), CALLS)
        status = (await scene.get("pod", sick))["status"]["phase"]
        served = len(tally.by(sick, cut_at))
        restored = await scene.tidegate("restore", f"pod/{sick}", "--yes")
        after = await scene.ready("app=test", 3)
        await asyncio.sleep(0.5)
        again = len(tally.by(sick, loop.time() - 0.5))
        destroyed = [await scene.tidegate(verb, f"pod/{other}", "--yes") for verb in ("cut", "drain")]
        remaining = await scene.ready("app=test", 3)
    gone = [one["metadata"]["name"] for one in (await scene.get("pods"))["items"]]
    return [
        went("1 cut", cut),
        Figure("1 cut: command to exit", seconds, "s"),
        at_most("1 cut: new connections it answered after the exit", served, "", 0, f"of {tally.sent} requests"),
        at_most(
            f"1 of {CALLS} concurrent calls through the NodePort", sum(one.pod == sick for one in calls.answered), "", 0
        ),
        holds(
            "1 cut: the ReplicaSet has replaced it, and it runs",
            len(replaced) == 3 and sick not in replaced and status == "Running",
        ),
        went("1 restore", restored),
        holds(
            "1 restore: it lives and serves, its replacement is gone", sick in after and after == before and again > 0
        ),
        went("1 destroy instead: cut", destroyed[0]),
        went("1 destroy instead: drain", destroyed[1]),
        holds("1 destroy: it is gone, three serve", other not in gone and len(remaining) == 3),
        lost(tally, "1"),
        lost(calls, "1 concurrent calls"),
    ]


async def separate_label(scene: Scene) -> list[Figure]:
    """2. Story 1: the Service selects ``backend: default``, the Deployment ``app: echoapp``."""
    made = with_label(deployment("echoapp", {"app": "echoapp"}), "backend", "default")
    await scene.apply(made, service("echo-service", {"backend": "default"}))
    pod = (await scene.ready("app=echoapp", 3))[0]
    at = (await scene.address("echo-service"))[:2]
    loop = asyncio.get_running_loop()
    async with scene.load("echo-service") as tally:
        isolated = await scene.tidegate("isolate", "--keep-traffic", f"pod/{pod}", "--yes")
        isolated_at = loop.time()
        four = await scene.ready("backend=default", 4)
        await asyncio.sleep(1.0)
        kept = len(tally.by(pod, isolated_at))
        in_flight = Tally()
        works = [asyncio.create_task(slow(in_flight, scene.node(n), at, 4.0)) for n in (1, 2, 3) for _ in range(8)]
        await asyncio.sleep(0.3)
        cut = await scene.tidegate("cut", f"pod/{pod}", "--yes")
        cut_at = loop.time()
        await asyncio.gather(*works)
        served = len(tally.by(pod, cut_at))
        drained = await scene.tidegate("drain", f"pod/{pod}", "--yes")
    held = [one for one in in_flight.answered if one.pod == pod]
    left = [one["metadata"]["name"] for one in (await scene.get("pods"))["items"]]
    return [
        went("2 isolate --keep-traffic", isolated),
        at_least("2 isolated: requests it went on answering in 1 s", kept, "", 1, f"{len(four)} pods serve"),
        went("2 cut", cut),
        at_most("2 cut: new connections it answered after the exit", served, "", 0),
        at_least(
            "2 cut: requests in flight that it finished",
            len(held),
            "",
            1,
            f"of {len(works)} of 4 s, cut took its time meanwhile",
        ),
        went("2 drain", drained),
        holds("2 drain: it is gone, three serve", pod not in left and len(left) == 3),
        lost(tally, "2"),
        lost(in_flight, "2 in flight"),
    ]


async def prepared(scene: Scene) -> list[Figure]:
    """3. Story 1's way there: by rollout, in place, again, killed and resumed, aborted."""
    found: list[Figure] = []
    for name, options in (("echoapp", ()), ("inplace", ("--in-place",))):
        svc = f"{name}-service"
        await scene.apply(deployment(name, {"app": name}, gated=True), service(svc, {"app": name}))
        before = await scene.ready(f"app={name}", 3)
        words = ("prepare", f"deploy/{name}", "--service", svc, "--label", "backend=default", "--yes", *options)
        async with scene.load(svc) as tally:
            killed = await scene.start(*words)
            await asyncio.sleep(1.5)
            killed.kill()
            await ended(killed)
            done = await scene.tidegate(*words)
            pods = [
                one
                for one in (await scene.get("pods", "-l", f"app={name}"))["items"]
                if not one["metadata"].get("deletionTimestamp")
            ]
            selector = (await scene.get("service", svc))["spec"]["selector"]
            again = await scene.tidegate(*words)
            aborted = await scene.tidegate(*words[:6], "--abort", "--yes")
            back = (await scene.get("service", svc))["spec"]["selector"]
        names = sorted(one["metadata"]["name"] for one in pods)
        labelled = all(one["metadata"]["labels"].get("backend") == "default" for one in pods)
        title = f"3 prepare{' --in-place' if options else ' by rollout'}"
        found += [
            went(f"{title}, killed after 1.5 s and run again", done),
            holds(
                f"{title}: pods and selector have the label",
                labelled and selector.get("backend") == "default",
                str(selector),
            ),
            holds(
                f"{title}: {'no pod was' if options else 'every pod was'} replaced", (names == before) is bool(options)
            ),
            went(f"{title}: repeated", again),
            went(f"{title}: --abort", aborted),
            holds(f"{title}: the selector is as it was", back == {"app": name}, str(back)),
            lost(tally, title),
        ]
    return found


async def blue_green(scene: Scene) -> list[Figure]:
    """4. Story 3: ``biz1`` 4.1 and 4.2, the selector patched by hand, one node's proxy lagging."""
    for version in ("4.1", "4.2"):
        labels = {"app": "biz1", "zone": "prod", "version": version}
        await scene.apply(deployment(f"biz1-{version.replace('.', '')}", labels, 2, version=version))
    await scene.apply(service("biz1", {"app": "biz1", "zone": "prod"}))
    await scene.ready("app=biz1", 4)
    found = [holds("4 one selector for both: every node routes to 4.1 and 4.2", await _routed(scene) == {"4.1 4.2"})]
    found.append(
        holds(
            "4 one selector for both: it warns of two versions",
            "2 versions" in (await scene.tidegate("status", "svc/biz1")).out,
        )
    )
    async with scene.load("biz1") as tally:
        for version, before in (("4.1", ""), ("4.2", "4.1"), ("4.1", "4.2")):
            if before:
                await scene.tidegate(
                    "lab", "fault", "proxy-freeze", "--node", "node-2", "--seconds", "4", "--lab", scene.lab.record.name
                )
            await scene.kubectl(
                "patch", "service", "biz1", "-p", json.dumps({"spec": {"selector": {"version": version}}})
            )
            await asyncio.sleep(1.5)
            if before:
                late = await _by_node(scene)
                is_told = late == {"node-1": version, "node-2": before, "node-3": version}
                found.append(
                    holds(f"4 {before} -> {version}, node-2 frozen: status tells it node by node", is_told, str(late))
                )
                await asyncio.sleep(4.5)
            nodes = await _routed(scene)
            since = asyncio.get_running_loop().time()
            await asyncio.sleep(0.5)
            seen = {one.version for one in tally.answered if one.is_new and one.began >= since}
            found.append(
                holds(
                    f"4 -> {version}: status and the clients agree on every node",
                    nodes == seen == {version},
                    f"{nodes} {seen}",
                )
            )
    return [*found, lost(tally, "4")]


async def _by_node(scene: Scene) -> dict[str, str]:
    """The versions each node routes to, as ``status -o json`` has it."""
    (found,) = (await scene.tidegate("status", "svc/biz1", "-o", "json")).document["services"]
    return {one["node"]: " ".join(sorted(each["version"] for each in one["revisions"])) for one in found["nodes"]}


async def _routed(scene: Scene) -> set[str]:
    return set((await _by_node(scene)).values())


async def guarded(scene: Scene) -> list[Figure]:
    """5. Five command lines drain pods of one Service; what may not be given back or cut; scrapers; the TTL."""
    await scene.apply(deployment("web", {"app": "web"}, 5), service("web", {"app": "web"}))
    pods = await scene.ready("app=web", 5)
    lows: list[int] = []
    over = asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            slices = (await scene.get("endpointslices", "-l", "kubernetes.io/service-name=web"))["items"]
            entries = [one for each in slices for one in each["endpoints"] or () if one["conditions"]["ready"]]
            lows.append(len(entries))

    watching = asyncio.create_task(watch())
    async with scene.load("web") as tally:
        floor = ("--no-replace", "--floor", "3", "--yes")
        results = await asyncio.gather(*(scene.tidegate("drain", f"pod/{pod}", *floor) for pod in pods))
    over.set()
    await watching
    codes = [done.code for done in results]
    found = [
        holds(
            "5 five drains at once: some go, some are refused, none is anything else", set(codes) == {0, 3}, str(codes)
        ),
        at_least(
            "5 five drains at once: fewest ready endpoints", min(lows), "", 3, f"of 5, floor 3, {len(lows)} looks"
        ),
        lost(tally, "5"),
    ]
    return [*found, *await _not_given_back(scene), *await _others_labels(scene), *await _kept(scene)]


async def _not_given_back(scene: Scene) -> list[Figure]:
    """A restore whose owner would delete the pod, and one whose revision is past."""
    pod, other = (await scene.ready("app=web", 5))[:2]
    await scene.tidegate("cut", f"pod/{pod}", "--yes")
    await scene.kubectl("scale", "deployment", "web", "--replicas=0")
    down = await scene.tidegate("restore", f"pod/{pod}", "--yes")
    await scene.kubectl("scale", "deployment", "web", "--replicas=2")
    await scene.kubectl("set", "image", "deployment/web", "echo=tidegate/echo:2")
    await scene.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    del other
    past = await scene.tidegate("restore", f"pod/{pod}", "--yes")
    return [went("5 restore after scale-down", down, 3), went("5 restore after another revision", past, 3)]


async def _others_labels(scene: Scene) -> list[Figure]:
    await scene.apply(policy("web", {"app": "web"}))
    pod = (await scene.ready("app=web", 2))[0]
    refused = await scene.tidegate("cut", f"pod/{pod}", "--yes")
    await scene.kubectl("delete", "networkpolicy", "web")
    tracked = {"argocd.argoproj.io/tracking-id": "shop:/Pod:web/kept"}
    await scene.apply(
        bare_pod("kept", {"app": "kept"}, tracked),
        bare_pod("more", {"app": "kept"}, {}),
        service("kept", {"app": "kept"}),
    )
    await scene.ready("app=kept", 2)
    await asyncio.sleep(1.0)
    gitops = await scene.tidegate("cut", "pod/kept", "--yes")
    return [
        went("5 a label that a NetworkPolicy selects on", refused, 3),
        holds("5 ... with the way out", "tidegate prepare" in refused.said),
        went("5 a field that Argo CD owns", gitops, 3),
        holds("5 ... with the way out", "where it is managed" in gitops.said, brief(gitops.said)),
    ]


async def _kept(scene: Scene) -> list[Figure]:
    """What is cut stays scrapeable by whoever follows endpoints, and is an orphan once its time is over."""
    pod = (await scene.ready("app=web", 2))[0]
    await scene.tidegate("cut", f"pod/{pod}", "--yes", "--ttl", "1s", "--reason", "leaks")
    await asyncio.sleep(1.5)
    slices = (await scene.get("endpointslices", "-l", "kubernetes.io/service-name=tidegate-draining"))["items"]
    targets = {one["targetRef"]["name"]: one["addresses"][0] for each in slices for one in each["endpoints"] or ()}
    scraped = await scene.burst((targets.get(pod, "127.0.0.1"), 8080), 1)
    orphans = await scene.tidegate("status", "--orphans")
    return [
        holds("5 a cut pod is scraped by endpoint", [one.pod for one in scraped.answered] == [pod], str(scraped.lost)),
        holds(
            "5 status --orphans names it, its reason and that its time is over",
            all(word in orphans.out for word in (pod, "leaks", "that is over")),
            brief(orphans.out),
        ),
    ]


async def floors(scene: Scene) -> list[Figure]:
    """6. The last endpoint, of a zone, of a Local Service's node, below a budget: refused, nothing changed; force."""
    await scene.apply(
        deployment("one", {"app": "one"}, 1), service("one", {"app": "one"}),
        deployment("zoned", {"app": "zoned"}), service("zoned", {"app": "zoned"}, trafficDistribution="PreferSameZone"),
        deployment("local", {"app": "local"}),
        service("local", {"app": "local"}, type="NodePort", externalTrafficPolicy="Local"),
        deployment("kept", {"app": "kept"}), service("kept", {"app": "kept"}), budget("kept", {"app": "kept"}, 3),
    )  # fmt: skip
    found = []
    for name, count in (("one", 1), ("zoned", 3), ("local", 3), ("kept", 3)):
        pod = (await scene.ready(f"app={name}", count))[0]
        await asyncio.sleep(0.5)
        before = await scene.versions()
        done = await scene.tidegate("cut", f"pod/{pod}", "--yes")
        found.append(went(f"6 {name}", done, 3))
        found.append(holds(f"6 {name}: nothing was changed", await scene.versions() == before))
        if name == "one":
            forced = await scene.tidegate("cut", f"pod/{pod}", "--yes", "--force", "--reason", "on fire", "-o", "json")
            record = (await scene.get("pod", pod))["metadata"]["annotations"]["tidegate.dev/drain"]
            found.append(
                holds(
                    "6 --force does it and records it",
                    "would keep 0" in record,
                    f"exit {forced.code}, {forced.document['result']}",
                )
            )
    return found


async def probed(scene: Scene) -> list[Figure]:
    """7. ``verify --probe 1000`` after a cut, and with a node whose proxy stands still."""
    await scene.apply(deployment("test", {"app": "test"}, 4), service("test", {"app": "test"}, type="NodePort"))
    pods = await scene.ready("app=test", 4)
    await scene.tidegate("cut", f"pod/{pods[0]}", "--yes")
    done = await scene.tidegate("verify", f"pod/{pods[0]}", "--probe", str(PROBES), "-o", "json")
    tried = done.document["probes"]
    reached, opened = (sum(one[key] for one in tried) for key in ("reached", "opened"))
    node = (await scene.get("pod", pods[1]))["spec"]["nodeName"]
    frozen = next(f"node-{n}" for n in (1, 2, 3) if f"node-{n}" != node)
    await scene.tidegate(
        "lab", "fault", "proxy-freeze", "--node", frozen, "--seconds", "12", "--lab", scene.lab.record.name
    )
    cut = await scene.tidegate("cut", f"pod/{pods[1]}", "--yes", "--timeout", "3s")
    verified = await scene.tidegate("verify", f"pod/{pods[1]}", "--probe", "100", "--timeout", "5s", "-o", "json")
    await scene.tidegate("lab", "fault", "clear", "--node", frozen, "--lab", scene.lab.record.name)
    lies = sum(one["reached"] for one in verified.document["probes"] if one["node"] != frozen)
    return [
        went("7 verify --probe", done),
        at_most(
            f"7 of {PROBES} connections from every node through each address, reached", reached, "", 0, f"of {opened:,}"
        ),
        went(f"7 cut with {frozen} frozen", cut, 4),
        holds("7 ... names the node", frozen in cut.said, cut.out.partition("\n")[0]),
        holds("7 verify with it frozen: exit code 1 or 4", verified.code in (1, 4), f"{verified.code}"),
        holds("7 ... names the node", frozen in verified.out, verified.document["reasons"][0]),
        at_most("7 ... connections from the other nodes that reached it", lies, "", 0),
    ]


async def killed(scene: Scene) -> list[Figure]:
    """8. SIGKILL at instants all along a cut and a drain, and run again; two who cut at once."""
    await scene.apply(deployment("web", {"app": "web"}, 8), service("web", {"app": "web"}))
    await scene.ready("app=web", 8)
    rng = random.Random(SEED)
    same, odd = 0, []
    async with scene.load("web") as tally:
        for batch in range(KILLS // 4):
            pods = (await scene.ready("app=web", 8, 40))[:4]
            verbs = ["cut", "drain"] * 2
            instants = [0.3 + (batch * 4 + place) * 0.22 + rng.uniform(0, 0.2) for place in range(4)]
            ends = await asyncio.gather(*(_killed_once(scene, *one) for one in zip(pods, verbs, instants, strict=True)))
            same += sum(not end for end in ends)
            odd += [end for end in ends if end]
            await asyncio.gather(*(scene.tidegate("drain", f"pod/{pod}", "--yes") for pod in pods[::2]))
    reserved = (await scene.get("service", "web"))["metadata"].get("annotations", {})
    pod = (await scene.ready("app=web", 8))[0]
    both = await asyncio.gather(*(scene.tidegate("cut", f"pod/{pod}", "--yes") for _ in range(2)))
    codes = sorted(one.code for one in both)
    loser = next((one.said for one in both if one.code == 3), "")
    return [
        at_least(
            f"8 killed {KILLS} times along the way, run again: the same end", same, "", KILLS, "; ".join(odd)[:300]
        ),
        holds("8 no reservation is left", not any("reserv" in key for key in reserved), str(sorted(reserved))),
        lost(tally, "8"),
        holds("8 two who cut at once: one wins, one is refused", codes == [0, 3], str(codes)),
        holds(
            "8 ... and is told the winner's token and instant",
            "token" in loser and "since 20" in loser,
            brief(loser),
        ),
    ]


async def _killed_once(scene: Scene, pod: str, verb: str, instant: float) -> str:
    """Start, kill, run again: empty, or what is not as it should be."""
    process = await scene.start(verb, f"pod/{pod}", "--yes")
    await asyncio.sleep(instant)
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await ended(process)
    found = (await scene.kubectl("get", "pod", pod, "--ignore-not-found", "-o", "json")) or ""
    again = await scene.tidegate(verb, f"pod/{pod}", "--yes") if found else Done(0, "", "")
    end = await scene.kubectl("get", "pod", pod, "--ignore-not-found", "-o", "json")
    problem = ""
    if again.code:
        problem = f"{verb} again exits {again.code}: {brief(again.said)}"
    elif verb == "drain" and end and not json.loads(end)["metadata"].get("deletionTimestamp"):
        problem = "drained and still there"
    elif verb == "cut":
        metadata = json.loads(end)["metadata"]
        record = json.loads(metadata["annotations"]["tidegate.dev/drain"])
        state = (metadata["labels"].get("app"), metadata["labels"].get(HELD), record["state"], record.get("holder", ""))
        problem = "" if state == ("tidegate-cut", "cut", "UNROUTED", "") else str(state)
    return f"{verb} killed after {instant:.2f} s: {problem}" if problem else ""


async def refused(scene: Scene) -> list[Figure]:
    """9. What the verbs say to wrong kinds, wrong namespaces and to those who may not (every text: tests/golden)."""
    await scene.apply(deployment("web", {"app": "web"}), service("web", {"app": "web"}))
    pod = (await scene.ready("app=web", 3))[0]
    reads = ("get,list,watch:pods,services,nodes,endpointslices.discovery.k8s.io,replicasets.apps,deployments.apps",
             "list:poddisruptionbudgets.policy,networkpolicies.networking.k8s.io,horizontalpodautoscalers.autoscaling",
             "get,list:statefulsets.apps,daemonsets.apps,jobs.batch", "get,create:pods/proxy",
             "get:leases.coordination.k8s.io")  # fmt: skip
    rules = [word for rule in reads for word in ("--rule", rule)]
    printed = await scene.tidegate("lab", "token", "reader", *rules, "--lab", scene.lab.record.name)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        reader = Path(folder) / "reader"
        reader.write_text(printed.out)
        before = await scene.versions()
        for words, missing in (
            (("cut", f"pod/{pod}"), "patch pods"),
            (("isolate", "--keep-traffic", f"pod/{pod}"), "patch pods"),
            (("drain", f"pod/{pod}"), "delete pods"),
            (("prepare", "deploy/web", "--service", "web"), "patch"),
        ):
            done = await scene.tidegate(*words, "--yes", kubeconfig=reader)
            is_named = missing in done.said and done.code == 3
            found.append(
                holds(
                    f"9 {words[0]} without permission: refused, naming it",
                    is_named,
                    f"{done.code}: {brief(done.said)}",
                )
            )
        found.append(holds("9 ... and nothing was changed", await scene.versions() == before))
    kind = await scene.tidegate("cut", "svc/web")
    other = await scene.tidegate("cut", "pod/nosuch", "--yes")
    piped = await scene.tidegate("cut", f"pod/{pod}", "--dry-run", "-o", "json")
    return [
        *found,
        went("9 a kind that cannot be cut", kind, 2),
        went("9 no such pod", other, 1),
        holds("9 ... and the namespace is named", scene.namespace in other.err and not other.out, other.err.strip()),
        holds(
            "9 --dry-run -o json: JSON alone on stdout, the plan on stderr",
            bool(piped.document["steps"]) and "1. cut" in piped.err,
        ),
    ]


LINES: tuple[tuple[str, Line], ...] = (
    ("shared", shared_label), ("separate", separate_label), ("prepared", prepared), ("bluegreen", blue_green),
    ("guarded", guarded), ("floors", floors), ("probed", probed), ("killed", killed), ("refused", refused),
)  # fmt: skip
SECONDS_MAX = 240.0


async def show(ground: BenchLab, only: str) -> list[Figure]:
    """Every line in turn, with what it took."""
    loop, found = asyncio.get_running_loop(), []
    began = loop.time()
    for name, line in LINES:
        if only and name not in only.split(","):
            continue
        scene, line_began = Scene(ground, f"verbs-{name}"), loop.time()
        await scene.kubectl("create", "namespace", scene.namespace)
        try:
            found += await line(scene)
        except (OSError, RuntimeError, ValueError, LookupError, TimeoutError) as error:
            found.append(holds(f"{name}: was played to its end", False, repr(error)))
        print(f"  {name}: {loop.time() - line_began:.0f} s", flush=True)
    return [*found, below("all lines", loop.time() - began, "s", SECONDS_MAX)]


def run() -> list[Figure]:
    with lab("bench-verbs", "--nodes", "3", "--zones", "3") as ground:
        return asyncio.run(show(ground, os.environ.get("TIDEGATE_BENCH_LINES", "")))
