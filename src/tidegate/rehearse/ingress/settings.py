"""What the fed proxies are started with: as little as shows how they treat endpoints.

No retries, in either: a request that is lost must be seen to be lost.
"""

from __future__ import annotations

import json
from typing import Any

from tidegate.model.names import SYSTEM_NAMESPACE, fence_name

SITES, SLOTS = 16, 32
"""HAProxy adds no backends while it runs: so many hosts, and so many pods behind each, are all there can be."""
CONFIGURATION, BOOTSTRAP = "haproxy.cfg", "bootstrap.json"
HOSTS_MAP = "hosts.map"
FENCE_SERVICE = f"{SYSTEM_NAMESPACE}/{fence_name('main')}"
HAPROXY_FENCE = f"{SYSTEM_NAMESPACE}_{fence_name('main')}_fence"
ENVOY_FENCE = f"{FENCE_SERVICE}:fence"
ANY_HOST = "any"
IDLE_SECONDS = 1.0
"""How long Envoy keeps an idle connection to a pod (an hour by default): a pod that has one is not quiet."""
_TYPE = "type.googleapis.com/envoy"


def site(number: int) -> str:
    """Name of one of HAProxy's backends; which host it serves is in the map."""
    return f"site-{number}"


def haproxy_configuration(web: int, admin: int) -> str:
    """For ``$POD_IP``. Empty slots rest in maintenance; ``hosts.map`` says which backend a host goes to."""
    slots = "\n".join(f"  server SRV_{one} 127.0.0.1:1 disabled" for one in range(1, SLOTS + 1))
    sites = "\n".join(f"backend {site(one)}\n{slots}" for one in range(1, SITES + 1))
    host = "req.hdr(host),field(1,:),lower"
    return f"""global
  stats socket "ipv4@${{POD_IP}}:{admin}" level admin
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  option http-server-close
  retries 0
frontend web
  bind "${{POD_IP}}:{web}"
  use_backend %[{host},map({HOSTS_MAP})] if {{ {host},map({HOSTS_MAP}) -m found }}
  use_backend %[str({ANY_HOST}),map({HOSTS_MAP},nobody)]
backend nobody
backend {HAPROXY_FENCE}
  server SRV_1 127.0.0.1:1 disabled
{sites}
"""


def envoy_bootstrap(folder: str, address: str, web: int, admin: int) -> str:
    """One listener; routes, clusters and endpoints are files in ``folder``, which is watched for renames."""
    router = {"name": "router", "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "http_protocol_options": {"accept_http_10": True},
        "http_filters": [router],
        "rds": {"route_config_name": "web", "config_source": watched(folder, "rds.json")},
    }
    listener = {
        "name": "web",
        "address": _socket(address, web),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return json.dumps(
        {
            "node": {"id": "lab", "cluster": "lab"},
            "admin": {"address": _socket(address, admin)},
            "static_resources": {"listeners": [listener]},
            "dynamic_resources": {"cds_config": watched(folder, "cds.json")},
        }
    )


def envoy_cluster(name: str, folder: str, file: str) -> dict[str, Any]:
    """Panic is off: DRAINING hosts are used in it, so no drain could be told from a cluster about to panic."""
    options = f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {"eds_config": watched(folder, file)},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "common_http_protocol_options": {"idle_timeout": f"{IDLE_SECONDS:g}s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def envoy_assignment(name: str, hosts: list[tuple[str, int, str]]) -> dict[str, Any]:
    """``hosts``: address, port, EDS health status."""
    endpoints = [
        {"endpoint": {"address": _socket(address, port)}, "health_status": health} for address, port, health in hosts
    ]
    return {
        "@type": f"{_TYPE}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
    }


def envoy_routes(clusters: dict[str, str]) -> dict[str, Any]:
    """Of each host ("any" for all others) to its cluster."""
    sites = [
        {
            "name": host,
            "domains": ["*"] if host == ANY_HOST else [host, f"{host}:*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
        }
        for host, cluster in clusters.items()
    ]
    return {"@type": f"{_TYPE}.config.route.v3.RouteConfiguration", "name": "web", "virtual_hosts": sites}


def watched(folder: str, file: str) -> dict[str, Any]:
    source = {"path": f"{folder}/{file}", "watched_directory": {"path": folder}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}
