"""Random Services and EndpointSlices, of every kind that rules differ by."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = ("web", "api", "db")
ADDRESSES = tuple(f"10.244.1.{last}" for last in (11, 12, 13, 14))
READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}


@st.composite
def spec(draw, number):
    """A Service and its slice, or nothing."""
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": draw(st.sampled_from([0, 30080 + number]))}]
    if draw(st.booleans()):
        ports.append(
            {"name": "", "port": 53, "protocol": "UDP", "nodePort": draw(st.sampled_from([0, 30180 + number]))}
        )
    chosen = {"clusterIP": f"10.96.1.{number + draw(st.sampled_from([1, 1, 1, 2]))}", "ports": ports}
    if draw(st.booleans()):
        seconds = draw(st.sampled_from([60, 10_800]))
        chosen |= {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}
    for key in ("internalTrafficPolicy", "externalTrafficPolicy"):
        chosen[key] = draw(st.sampled_from(["Cluster", "Cluster", "Local"]))
    balanced = draw(st.sampled_from([[], [{"ip": f"192.0.2.{number}", "ipMode": "VIP"}]]))
    if balanced and chosen["externalTrafficPolicy"] == "Local":
        chosen["healthCheckNodePort"] = 32000 + number
    if draw(st.integers(0, 2)) == 0:
        chosen["externalIPs"] = [f"198.51.100.{number}"]
    if draw(st.booleans()):
        chosen["loadBalancerSourceRanges"] = [draw(st.sampled_from(["10.0.0.0/8", "203.0.113.0/24"]))]
    endpoints = [
        {"addresses": [address], "nodeName": node, "conditions": conditions}
        for address in ADDRESSES
        for node, conditions in [
            draw(st.tuples(st.sampled_from(["n1", "n2"]), st.sampled_from([READY, LEAVING, GONE])))
        ]
        if draw(st.booleans())
    ]
    return chosen, balanced, endpoints


@st.composite
def moments(draw):
    """One moment of the API: (Services, EndpointSlices), as a real API server has them."""
    services, slices = [], []
    for number, name in enumerate(NAMES):
        if draw(st.integers(0, 4)):
            chosen, balanced, endpoints = draw(spec(number * 10))
            metadata = {"namespace": "default", "name": name, "uid": name}
            status = {"loadBalancer": {"ingress": balanced}}
            is_open = any(one["nodePort"] for one in chosen["ports"])
            kind = "LoadBalancer" if balanced else "NodePort" if is_open else "ClusterIP"
            whole = {"type": kind, "clusterIPs": [chosen["clusterIP"]], "ipFamilies": ["IPv4"], **chosen}
            services.append(
                {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": whole, "status": status}
            )
            labels = {"kubernetes.io/service-name": name}
            ports = [{"name": one["name"], "port": 8080, "protocol": one["protocol"]} for one in chosen["ports"]]
            slices.append(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {**metadata, "labels": labels},
                    "addressType": "IPv4",
                    "endpoints": endpoints,
                    "ports": ports,
                }
            )
    return services, slices
