"""Who routes to a pod beside the nodes is told from the objects that name its Services, and nobody else is."""

from __future__ import annotations

import pytest

from tidegate.observers.discovery import Found, Subject, discover

WEB = Subject(("demo/web",), ("app",))
GATEWAY = "gateway.networking.k8s.io"


def ingress(service="web", namespace="demo", class_name="traefik", **annotations):
    backend = {"service": {"name": service, "port": {"number": 80}}}
    return {
        "metadata": {"name": "site", "namespace": namespace, "annotations": annotations},
        "spec": {
            **({"ingressClassName": class_name} if class_name else {}),
            "rules": [{"http": {"paths": [{"path": "/", "backend": backend}]}}],
        },
    }


def ingress_class(name="traefik", controller="traefik.io/ingress-controller", is_default=False):
    notes = {"ingressclass.kubernetes.io/is-default-class": "true"} if is_default else {}
    return {"metadata": {"name": name, "annotations": notes}, "spec": {"controller": controller}}


def service(name="web", **spec):
    annotations = spec.pop("annotations", {})
    return {"metadata": {"name": name, "namespace": "demo", "annotations": annotations}, "spec": spec}


def listed(plural, group, *items):
    return {f"{plural}.{group}": list(items)}


def ingresses(*items, classes=()):
    return {
        **listed("ingresses", "networking.k8s.io", *items),
        **listed("ingressclasses", "networking.k8s.io", *classes),
    }


def sentences(found):
    return [one.sentence for one in found.suspected]


def test_an_ordinary_cluster_has_nobody():
    services = [service(type="ClusterIP"), service(type="NodePort"), service(type="LoadBalancer")]
    others = ingresses(ingress("api"), ingress("web", namespace="other"), classes=[ingress_class()])
    assert discover(WEB, services, others, ()) == Found()


def test_an_ingress_to_the_pods_service_is_suspected_by_name():
    answer = discover(WEB, (), ingresses(ingress(), classes=[ingress_class()]), ())
    assert sentences(answer) == [
        "Ingress demo/site (class traefik, controller traefik.io/ingress-controller) routes to demo/web"
    ]


@pytest.mark.parametrize("covers", ["ingressclass/traefik", "controller/traefik.io/ingress-controller"])
def test_it_is_known_where_an_observer_covers_its_class_or_its_controller(covers):
    answer = discover(WEB, (), ingresses(ingress(), classes=[ingress_class()]), (covers,))
    assert not answer.suspected and len(answer.known) == 1


def test_an_observer_of_another_controller_is_no_answer():
    assert discover(WEB, (), ingresses(ingress(), classes=[ingress_class()]), ("controller/haproxy.org/x",)).suspected


def test_an_ingress_without_a_class_belongs_to_the_default_one():
    objects = ingresses(ingress(class_name=""), classes=[ingress_class("edge", "k8s.io/ingress-nginx", True)])
    [router] = discover(WEB, (), objects, ()).suspected
    assert router.ids == ("ingressclass/edge", "controller/k8s.io/ingress-nginx")


def test_one_without_any_class_is_suspected_too():
    assert "(no class)" in sentences(discover(WEB, (), ingresses(ingress(class_name="")), ()))[0]


def test_the_default_backend_counts():
    one = {"metadata": {"name": "d", "namespace": "demo"}, "spec": {"defaultBackend": {"service": {"name": "web"}}}}
    assert discover(WEB, (), ingresses(one), ()).suspected


def test_an_ingress_that_goes_by_the_services_address_is_left_to_the_nodes():
    one = ingress(class_name="nginx", **{"nginx.ingress.kubernetes.io/service-upstream": "true"})
    assert discover(WEB, (), ingresses(one), ()) == Found()


def test_gateway_routes_are_known_by_gateway_class_or_controller():
    route = {
        "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "edge"},
        "spec": {
            "parentRefs": [{"name": "gw"}],
            "rules": [{"backendRefs": [{"name": "web", "namespace": "demo", "port": 80}]}],
        },
    }
    gateway = {"metadata": {"name": "gw", "namespace": "edge"}, "spec": {"gatewayClassName": "envoy"}}
    objects = {**listed("httproutes", GATEWAY, route), **listed("gateways", GATEWAY, gateway)}
    [router] = discover(WEB, (), objects, ()).suspected
    assert router.ids == ("gateway/edge/gw", "gatewayclass/envoy")
    assert not discover(WEB, (), objects, ("gatewayclass/envoy",)).suspected


def test_traefiks_own_routes_nest():
    route = {"kind": "IngressRoute", "metadata": {"name": "r", "namespace": "demo"},
             "spec": {"routes": [{"match": "x", "services": [{"name": "other"}, {"name": "web"}]}]}}  # fmt: skip
    weighted = {"kind": "TraefikService", "metadata": {"name": "w", "namespace": "x"},
                "spec": {"weighted": {"services": [{"name": "web", "namespace": "demo"}]}}}  # fmt: skip
    objects = {**listed("ingressroutes", "traefik.io", route), **listed("traefikservices", "traefik.io", weighted)}
    assert len(discover(WEB, (), objects, ()).suspected) == 2
    assert len(discover(WEB, (), objects, ("crd/traefik.io",)).known) == 2


def test_load_balancers_that_have_pods_for_targets():
    aws = service(
        type="LoadBalancer", annotations={"service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip"}
    )
    gcp = service(type="ClusterIP", annotations={"cloud.google.com/neg": '{"ingress": true}'})
    off = service(type="ClusterIP", annotations={"cloud.google.com/neg": '{"ingress": false}'})
    binding = {
        "metadata": {"name": "b", "namespace": "demo"},
        "spec": {"serviceRef": {"name": "web"}, "targetType": "ip"},
    }
    assert "AWS" in sentences(discover(WEB, [aws], {}, ()))[0]
    assert "Google" in sentences(discover(WEB, [gcp], {}, ()))[0]
    assert discover(WEB, [off], {}, ()) == Found()
    assert discover(WEB, (), listed("targetgroupbindings", "elbv2.k8s.aws", binding), ("loadbalancer/aws",)).known


def test_external_dns_counts_for_a_headless_service_only():
    note = {"external-dns.alpha.kubernetes.io/hostname": "web.example.com"}
    assert "web.example.com" in sentences(discover(WEB, [service(clusterIP="None", annotations=note)], {}, ()))[0]
    assert discover(WEB, [service(type="LoadBalancer", annotations=note)], {}, ()) == Found()


@pytest.mark.parametrize(("container", "mesh"), [("istio-proxy", "istio"), ("linkerd-proxy", "linkerd")])
def test_a_sidecar_in_the_pod_names_its_mesh(container, mesh):
    subject = Subject(("demo/web",), ("app", container))
    assert mesh in sentences(discover(subject, (), {}, ()))[0]
    assert discover(subject, (), {}, (f"mesh/{mesh}",)).known


def marked(name, reason="", **annotations):
    conditions = [{"type": "NetworkUnavailable", "status": "False", "reason": reason}] if reason else []
    return {"metadata": {"name": name, "annotations": annotations}, "status": {"conditions": conditions}}


CILIUM, OVN = marked("a", "CiliumIsUp"), marked("b", **{"k8s.ovn.org/node-chassis-id": "7"})


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ([marked("a"), marked("b", "CalicoIsUp")], None),
        ([CILIUM], "Cilium may route Services by itself on 1 node, beside the rules that are read"),
        ([OVN, OVN], "OVN-Kubernetes may route Services by itself on 2 nodes, beside the rules that are read"),
    ],
)
def test_a_network_that_routes_services_itself_is_known_by_its_marks_on_nodes(nodes, sentence):
    found = discover(WEB, [service(clusterIP="10.96.0.1")], {"nodes": nodes}, ())
    assert [one.sentence for one in found.suspected] == ([sentence] if sentence else [])
    assert discover(WEB, [service(clusterIP="None")], {"nodes": nodes}, ("dns/cluster",)).suspected == ()
    assert discover(Subject(()), [], {"nodes": nodes}, ()) == Found()


def test_an_observer_of_the_network_answers_for_it():
    services = [service(clusterIP="10.96.0.1")]
    assert discover(WEB, services, {"nodes": [CILIUM]}, ("dataplane/cilium",)).suspected == ()
    assert discover(WEB, services, {"nodes": [CILIUM, OVN]}, ("dataplane/cilium",)).suspected[0].ids == (
        "dataplane/ovn-kubernetes",
    )


def test_a_pod_of_an_ambient_mesh_is_held_by_its_clients_ztunnels():
    pod = Subject(("demo/web",), ("app",), {"ambient.istio.io/redirection": "enabled"})
    [router] = discover(pod, [], {}, ()).suspected
    assert router.ids == ("mesh/istio",)
    assert discover(Subject(("demo/web",), (), {"ambient.istio.io/redirection": "disabled"}), [], {}, ()) == Found()


def test_a_headless_service_is_dns_business_and_one_that_publishes_what_is_not_ready_is_nobodys_to_prove():
    headless = service(clusterIP="None", selector={"app": "web"})
    assert discover(WEB, [headless], {}, ("dns/cluster",)).known[0].ids == ("dns/cluster", "service/demo/web")
    assert "keep its address" in discover(WEB, [headless], {}, ()).suspected[0].sentence
    forever = service(clusterIP="None", selector={"app": "web"}, publishNotReadyAddresses=True)
    [router] = discover(WEB, [forever], {}, ("dns/cluster",)).suspected
    assert router.ids == () and "until they are gone" in router.sentence
