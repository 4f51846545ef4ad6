"""Stories of writes: create, update, patch, and what the server makes of them."""

from __future__ import annotations

import copy

from tests.realcluster.objects import budget, configmap, deployment, pod, replicaset, service, slice_
from tests.realcluster.twin import JSON_PATCH, MERGE, STRATEGIC, Side


async def defaults(side: Side) -> None:
    """What the server adds to what was sent."""
    await side.ask("POST", "pods", pod("plain"))
    rich = pod("rich", terminationGracePeriodSeconds=5, hostNetwork=False, restartPolicy="Never")
    rich["spec"]["initContainers"] = [{"name": "init", "image": "registry.example:5000/init"}]
    rich["spec"]["containers"][0] |= {
        "image": "app:latest",
        "readinessProbe": {"httpGet": {"port": "http"}},
        "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 3},
        "startupProbe": {"exec": {"command": ["true"]}},
        "lifecycle": {
            "preStop": {"httpGet": {"port": 15299, "path": "/gate/app"}},
            "postStart": {"sleep": {"seconds": 1}},
        },
        "resources": {"limits": {"cpu": "0.5", "memory": "64Mi"}},
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    }
    rich["spec"]["volumes"] = [
        {"name": "c", "configMap": {"name": "x"}},
        {"name": "s", "secret": {"secretName": "x"}},
        {"name": "e", "emptyDir": {}},
        {"name": "h", "hostPath": {"path": "/x"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    await side.ask("POST", "pods", rich)
    host = pod("host", hostNetwork=True)
    await side.ask("POST", "pods", host)
    await side.ask("POST", "pods", pod("ephemeral", nodeName="nowhere", tolerations=[{"operator": "Exists"}]))
    await side.ask("POST", "services", service("plain"))
    await side.ask("POST", "services", service("headless", clusterIP="None"))
    await side.ask("POST", "services", service("node-port", type="NodePort"))
    await side.ask("POST", "services", service("balanced", type="LoadBalancer", externalTrafficPolicy="Local"))
    await side.ask("POST", "services", service("sticky", sessionAffinity="ClientIP"))
    named = {"type": "ExternalName", "externalName": "example.org"}
    await side.ask("POST", "services", {"metadata": {"name": "named"}, "spec": named})
    await side.ask("POST", "services", service("two", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}]))
    await side.ask("POST", "apps/deployments", deployment("plain"))
    await side.ask("POST", "apps/deployments", deployment("recreate", strategy={"type": "Recreate"}))
    half = deployment("half", strategy={"rollingUpdate": {"maxSurge": 1}}, replicas=0, revisionHistoryLimit=0)
    await side.ask("POST", "apps/deployments", half)
    await side.ask("POST", "apps/replicasets", replicaset("plain"))
    await side.ask("POST", "discovery.k8s.io/endpointslices", slice_("plain"))
    await side.ask("POST", "policy/poddisruptionbudgets", budget("plain"))
    await side.ask("POST", "policy/poddisruptionbudgets", budget("max", maxUnavailable="50%"))
    await side.ask("POST", "configmaps", configmap("plain", x="1"))
    secret = {"metadata": {"name": "plain"}, "stringData": {"x": "1"}, "data": {"y": "Mg=="}}
    await side.ask("POST", "secrets", secret)
    await side.ask(
        "POST",
        "endpoints",
        {
            "metadata": {"name": "e"},
            "subsets": [{"addresses": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}], "ports": [{"port": 80}]}],
        },
    )
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}
    await side.ask("POST", f"/apis/coordination.k8s.io/v1/namespaces/{side.namespace}/leases", lease)


async def creates(side: Side) -> None:
    """Names, places and things a create refuses."""
    await side.ask("POST", "configmaps", configmap("a", x="1"))
    await side.ask("POST", "configmaps", configmap("a", x="2"))
    await side.ask("POST", "configmaps", configmap("Not_A_Name"))
    await side.ask("POST", "configmaps", configmap("x" * 254))
    await side.ask("POST", "configmaps", {"metadata": {}})
    await side.ask("POST", "configmaps", {"metadata": {"name": "b", "namespace": "elsewhere"}})
    await side.ask("POST", "/api/v1/namespaces/nosuch/configmaps", configmap("a"))
    await side.ask("POST", "/api/v1/configmaps", configmap("a"))
    await side.ask(
        "POST", "configmaps", {"apiVersion": "v2", **{k: v for k, v in configmap("c").items() if k != "apiVersion"}}
    )
    await side.ask("POST", "configmaps", {**configmap("c"), "kind": "Pod"})
    await side.ask("POST", "configmaps", {**configmap("c"), "metadata": {"name": "c", "resourceVersion": "5"}})
    await side.ask(
        "POST",
        "configmaps",
        {
            **configmap("c"),
            "metadata": {
                "name": "c",
                "uid": "mine",
                "creationTimestamp": "2001-01-01T00:00:00Z",
                "deletionTimestamp": "2001-01-01T00:00:00Z",
            },
        },
    )
    generated = await side.quietly("POST", "configmaps", {"metadata": {"generateName": "drawn-"}})
    name = generated.body["metadata"].pop("name")
    side.tell("generateName", {"status": generated.status, "body": generated.body, "length": len(name)})
    await side.ask("POST", "configmaps", configmap("dry", x="1"), dryRun="All")
    await side.ask("GET", "configmaps/dry")
    await side.ask("POST", "configmaps", configmap("dry"), dryRun="Some")
    await side.ask("POST", "configmaps", b"{not json")
    await side.ask("POST", "configmaps", b"")
    await side.ask("POST", "configmaps", b"[]")
    await side.ask("POST", "configmaps", b"metadata: {name: yaml}\n", kind="application/yaml")
    await side.ask("POST", "configmaps", configmap("x"), kind="text/plain")
    await side.ask("POST", "configmaps", configmap("x"), accept="text/html")
    typo = {**configmap("typo"), "dta": {"x": "1"}}
    await side.ask("POST", "configmaps", typo, fieldValidation="Strict")
    await side.ask("POST", "configmaps", typo, fieldValidation="Warn")
    await side.ask("POST", "configmaps", typo, fieldValidation="Sometimes")
    await side.ask(
        "POST",
        "configmaps",
        b'{"metadata":{"name":"twice"},"data":{"a":"1"},"data":{"b":"1"}}',
        fieldValidation="Strict",
    )
    await side.ask("POST", "configmaps", {"metadata": {"name": "n"}, "data": {"x": 5}})
    await side.ask("POST", "configmaps", {"metadata": {"name": "n"}, "data": {"x y": "5"}})
    await side.ask(
        "POST", "configmaps", {"metadata": {"name": "n", "labels": {"a b": "c d"}, "annotations": {"_": "x"}}}
    )
    await side.ask("POST", "configmaps", {"metadata": {"name": "n", "finalizers": ["nodomain"]}})
    await side.ask("POST", "configmaps", {"metadata": {"name": "n", "ownerReferences": [{"kind": "Pod"}]}})
    await side.ask("PUT", "configmaps", configmap("a"))
    await side.ask("PATCH", "configmaps", {}, kind=MERGE)
    await side.ask("POST", "configmaps/a", configmap("a"))
    await side.ask("GET", "nosuchkind")
    await side.ask("GET", "nosuchkind/x")
    await side.ask("GET", "/apis/nosuch.example/v1/things")
    await side.ask("GET", "/nosuchpath")
    await side.ask("GET", "pods/nosuch")
    await side.ask("GET", "pods/nosuch/log")
    await side.ask("GET", "pods/nosuch/nosuchsub")
    await side.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "Bad_Name"}})
    await side.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})


async def invalid(side: Side) -> None:
    """422: the words and the causes."""
    bad = pod("bad")
    bad["spec"] = {"containers": []}
    await side.ask("POST", "pods", bad)
    await side.ask("POST", "pods", {"metadata": {"name": "bad"}})
    bad = pod("bad", restartPolicy="Sometimes", dnsPolicy="x", terminationGracePeriodSeconds=-1)
    bad["spec"]["containers"] = [
        {"name": "App", "image": ""},
        {"name": "b", "image": " x", "ports": [{"containerPort": 0}, {"containerPort": 70000, "protocol": "X"}]},
        {"name": "b", "image": "x", "ports": [{"containerPort": 1, "name": "UPPER"}], "env": [{"name": ""}]},
        {"name": "c", "image": "x", "imagePullPolicy": "Now", "volumeMounts": [{"name": "nosuch", "mountPath": "/x"}]},
    ]
    await side.ask("POST", "pods", bad)
    bad = pod("bad")
    bad["spec"]["containers"][0] |= {
        "readinessProbe": {"periodSeconds": -1, "successThreshold": 0, "httpGet": {"port": 0}},
        "livenessProbe": {"successThreshold": 2, "tcpSocket": {"port": "toolongaportname"}},
        "startupProbe": {},
        "lifecycle": {"preStop": {}, "postStart": {"exec": {}, "httpGet": {"port": 1}}},
        "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
    }
    await side.ask("POST", "pods", bad)
    bad = pod("bad")
    bad["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 40}}}
    await side.ask("POST", "pods", bad)
    bad = pod("bad")
    bad["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "lots"}}
    await side.ask("POST", "pods", bad)
    bad["spec"]["containers"][0]["resources"] = {"limits": {"memory": "-5"}}  # one entry: Go walks maps in any order
    await side.ask("POST", "pods", bad)
    await side.ask("POST", "pods", pod("bad", serviceAccountName="nosuch"))
    await side.ask("POST", "pods", pod("bad", priorityClassName="nosuch"))
    await side.ask("POST", "pods", pod("bad", containers="x"))
    for spec in (
        {"ports": []},
        {"ports": [{"port": 0}]},
        {"ports": [{"port": 80}, {"port": 80}]},
        {"type": "Nope"},
        {"ports": [{"name": "a", "port": 1}, {"port": 2}]},
        {"clusterIP": "1.2.3.4"},
        {"clusterIP": "x"},
        {"sessionAffinity": "Maybe"},
        {"selector": {"a b": "c"}},
        {"type": "NodePort", "ports": [{"port": 1, "nodePort": 5}]},
        {"ports": [{"port": 80, "nodePort": 30999}]},
        {"externalTrafficPolicy": "Local"},
        {"ports": [{"port": 80, "targetPort": 0}]},
        {"internalTrafficPolicy": "X"},
        {"type": "ExternalName"},
        {"ports": [{"port": 80, "protocol": "ICMP"}]},
    ):
        await side.ask("POST", "services", service("bad", **spec))
    await side.ask("POST", "services", {"metadata": {"name": "9digits"}, "spec": {"ports": [{"port": 1}]}})
    for spec in (
        {"selector": {"matchLabels": {"app": "other"}}},
        {"replicas": -1},
        {"selector": {}},
        {"selector": None},
        {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
        {"strategy": {"type": "X"}},
        {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
        {"progressDeadlineSeconds": 0, "minReadySeconds": 5},
        {"strategy": {"rollingUpdate": {"maxSurge": "x%", "maxUnavailable": "110%"}}},
        {"replicas": "two"},
        {"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
        {"template": {}},
    ):
        await side.ask("POST", "apps/deployments", deployment("bad", **spec))
    await side.ask("POST", "policy/poddisruptionbudgets", budget("bad", minAvailable=1, maxUnavailable=1))
    await side.ask("POST", "policy/poddisruptionbudgets", budget("bad", minAvailable=-1))
    await side.ask("POST", "policy/poddisruptionbudgets", budget("bad", minAvailable="x"))
    await side.ask("POST", "discovery.k8s.io/endpointslices", {**slice_("bad"), "addressType": "X"})
    await side.ask(
        "POST",
        "discovery.k8s.io/endpointslices",
        {**slice_("bad"), "endpoints": [{"addresses": ["x"]}, {"addresses": []}]},
    )
    await side.ask("POST", "discovery.k8s.io/endpointslices", {**slice_("bad"), "ports": [{"port": 1}, {"port": 2}]})


async def updates(side: Side) -> None:
    """PUT: versions, generations, what cannot change."""
    made = await side.ask("POST", "configmaps", configmap("a", x="1"))
    await side.ask("PUT", "configmaps/a", made.body)  # changes nothing: same version
    changed = {**made.body, "data": {"x": "2"}}
    await side.ask("PUT", "configmaps/a", changed)
    await side.ask("PUT", "configmaps/a", changed)  # stale
    await side.ask("PUT", "configmaps/a", configmap("a", x="3"))  # unconditional
    await side.ask("PUT", "configmaps/a", configmap("b", x="3"))
    await side.ask("PUT", "configmaps/nosuch", configmap("nosuch"))
    await side.ask(
        "PUT",
        "configmaps/nosuch",
        {**configmap("nosuch"), "metadata": {"name": "nosuch", "resourceVersion": "1", "uid": made.uid}},
    )
    await side.ask(
        "PUT",
        "configmaps/a",
        {**configmap("a"), "metadata": {"name": "a", "uid": "00000000-0000-4000-8000-000000000000"}},
    )
    await side.ask("PUT", "configmaps/a", {"metadata": {"name": "a", "resourceVersion": "x"}})
    await side.ask("PUT", "configmaps/a", {**configmap("a"), "immutable": True})
    await side.ask("PUT", "configmaps/a", {**configmap("a", x="9"), "immutable": True})
    made = await side.ask("POST", "pods", pod("p"))
    change = copy.deepcopy(made.body)
    change["spec"]["containers"][0]["image"] = "app:2"
    await side.ask("PUT", "pods/p", change)
    change = copy.deepcopy(made.body)
    change["metadata"].pop("resourceVersion")
    change["spec"]["containers"][0]["command"] = ["x"]
    await side.ask("PUT", "pods/p", change)
    change = copy.deepcopy(made.body)
    change["metadata"].pop("resourceVersion")
    change["status"] = {"phase": "Running"}
    change["metadata"]["labels"]["new"] = "1"
    await side.ask("PUT", "pods/p", change)
    made = await side.ask("POST", "services", service("s"))
    change = copy.deepcopy(made.body)
    change["spec"]["clusterIP"] = "10.96.0.99"
    await side.ask("PUT", "services/s", change)
    change = copy.deepcopy(made.body)
    change["spec"].pop("clusterIP"), change["spec"].pop("clusterIPs")
    change["spec"]["ports"][0]["port"] = 81
    await side.ask("PUT", "services/s", change)
    made = await side.ask("POST", "apps/deployments", deployment("d"))
    change = copy.deepcopy(made.body)
    change["spec"]["selector"]["matchLabels"] = {"app": "web", "x": "y"}
    change["spec"]["template"]["metadata"]["labels"] = {"app": "web", "x": "y"}
    await side.ask("PUT", "apps/deployments/d", change)
    change = copy.deepcopy(made.body)
    change["metadata"]["annotations"] = {"only": "metadata"}
    change["metadata"]["generation"] = 44
    await side.ask("PUT", "apps/deployments/d", change)


async def merge_and_json_patches(side: Side) -> None:
    """Merge patch and JSON patch, and their mistakes."""
    made = await side.ask("POST", "configmaps", configmap("a", x="1", y="2"))
    path = "configmaps/a"
    await side.ask("PATCH", path, {}, kind=MERGE)
    await side.ask("PATCH", path, {"data": {"x": None, "z": "3"}}, kind=MERGE)
    await side.ask("PATCH", path, {"metadata": {"labels": {"a": "b"}, "annotations": {"c": None}}}, kind=MERGE)
    await side.ask("PATCH", path, {"metadata": {"labels": None}}, kind=MERGE)
    await side.ask("PATCH", path, {"metadata": {"resourceVersion": made.rv}, "data": {"x": "9"}}, kind=MERGE)
    await side.ask("PATCH", path, {"metadata": {"uid": "00000000-0000-4000-8000-000000000000"}}, kind=MERGE)
    await side.ask("PATCH", path, {"metadata": {"name": "other"}}, kind=MERGE)
    await side.ask("PATCH", path, {"data": {"x": 5}}, kind=MERGE)
    await side.ask("PATCH", path, {"data": []}, kind=MERGE)
    await side.ask("PATCH", path, {"dat": {"x": "5"}}, kind=MERGE, fieldValidation="Strict")
    await side.ask("PATCH", path, {"dat": {"x": "5"}}, kind=MERGE, fieldValidation="Warn")
    await side.ask("PATCH", path, b"[]", kind=MERGE)
    await side.ask("PATCH", path, b"{nope", kind=MERGE)
    await side.ask("PATCH", path, {"data": {"x": "1"}}, kind="application/json")
    await side.ask("PATCH", path, {"data": {"dry": "1"}}, kind=MERGE, dryRun="All")
    await side.ask("GET", path)
    await side.ask("PATCH", "configmaps/nosuch", {"data": {}}, kind=MERGE)
    for ops in (
        [{"op": "add", "path": "/data/new", "value": "1"}],
        [{"op": "replace", "path": "/data/new", "value": "2"}, {"op": "test", "path": "/data/new", "value": "2"}],
        [{"op": "test", "path": "/data/new", "value": "other"}],
        [{"op": "remove", "path": "/data/nosuch"}],
        [{"op": "replace", "path": "/data/nosuch", "value": "1"}],
        [
            {"op": "copy", "from": "/data/new", "path": "/data/copied"},
            {"op": "move", "from": "/data/new", "path": "/data/moved"},
        ],
        [{"op": "add", "path": "/metadata/labels", "value": {"x~1y": "v"}}],
        [{"op": "add", "path": "/metadata/labels", "value": {"x.y/z": "v"}}],
        [{"op": "remove", "path": "/metadata/labels/x.y~1z"}],
        [{"op": "nope", "path": "/data"}],
        [{"op": "add", "path": "no-slash", "value": 1}],
        [{"op": "test", "path": "/metadata/resourceVersion", "value": made.rv}],
        [],
    ):
        await side.ask("PATCH", path, ops, kind=JSON_PATCH)
    await side.ask("PATCH", path, {"op": "add"}, kind=JSON_PATCH)


async def strategic_patches(side: Side) -> None:
    """Lists with merge keys, directives, and their mistakes."""
    await side.ask("POST", "apps/deployments", deployment("d", replicas=0))
    path = "apps/deployments/d"

    def containers(*items: object, **more: object) -> dict[str, object]:
        return {"spec": {"template": {"spec": {"containers": list(items), **more}}}}

    for body in (
        {},
        containers({"name": "app", "image": "app:2"}),
        containers({"name": "app", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "9"}]}),
        containers({"name": "app", "env": [{"name": "A", "$patch": "delete"}]}),
        containers(
            {"name": "side", "image": "side:1", "ports": [{"containerPort": 1}, {"containerPort": 2, "name": "two"}]}
        ),
        containers({"name": "side", "ports": [{"containerPort": 2, "name": "zwei"}, {"containerPort": 3}]}),
        containers({"name": "side", "ports": [{"$patch": "replace"}, {"containerPort": 9}]}),
        containers(
            {"name": "third", "image": "t"},
            **{"$setElementOrder/containers": [{"name": "third"}, {"name": "app"}, {"name": "side"}]},
        ),
        containers({"name": "side", "$patch": "delete"}),
        containers({"name": "app", "command": ["a", "b"]}),
        containers({"name": "app", "command": None}),
        containers({"image": "nameless"}),
        {"spec": {"template": {"metadata": {"labels": {"$patch": "replace", "app": "web"}}}}},
        {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}},
        {"spec": {"template": {"spec": {"tolerations": [{"key": "a"}]}}}},
        {
            "spec": {
                "template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}], "imagePullSecrets": [{"name": "s"}]}}
            }
        },
        {"spec": {"template": {"spec": {"$retainKeys": ["containers"], "containers": [{"name": "app"}]}}}},
        {"metadata": {"finalizers": ["a.b/c"]}},
        {"metadata": {"finalizers": ["a.b/d"]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.b/c"]}},
        {"spec": {"replicas": "x"}},
        {"$patch": "nope"},
        {"spec": {"selector": {"matchLabels": {"more": "x"}}}},
    ):
        await side.ask("PATCH", path, body, kind=STRATEGIC)
    await side.ask("POST", "services", service("s"))
    for ports in ([{"port": 80, "name": "web"}], [{"port": 81, "name": "other"}], [{"port": 80, "$patch": "delete"}]):
        await side.ask("PATCH", "services/s", {"spec": {"ports": ports}}, kind=STRATEGIC)
    await side.ask("PATCH", "services/s", {"spec": {"selector": {"v": "2"}}}, kind=STRATEGIC)


STORIES = (defaults, creates, invalid, updates, merge_and_json_patches, strategic_patches)
