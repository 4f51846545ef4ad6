"""Validation of pod specs (kubernetes/pkg/apis/core/validation): containers, ports, probes, hooks, volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.lab.apiserver.schema import causes, metadata, names
from tidegate.lab.apiserver.schema.causes import Cause, invalid, one_of, required
from tidegate.lab.apiserver.schema.quantity import canonical, parse

Json = Mapping[str, Any]
PROTOCOLS = ("SCTP", "TCP", "UDP")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_PROBE_NUMBERS = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)
_UPDATE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod(obj: Json, old: Json | None) -> list[Cause]:
    """A Pod at creation, or an update of one."""
    spec = obj.get("spec") or {}
    found = pod_spec(spec, "spec")
    for group in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(group) or ()):
            image = str(container.get("image") or "")
            if image != image.strip():
                text = "must not have leading or trailing whitespace"
                found.append(invalid(f"spec.{group}[{index}].image", image, text))
    return found if old is None else [*found, *_update(spec, old.get("spec") or {})]


def template(found: Json | None, field: str) -> list[Cause]:
    """A PodTemplateSpec."""
    if not found:
        return [required(field)]
    meta = found.get("metadata") or {}
    problems = metadata.label_set(meta.get("labels"), f"{field}.labels")
    problems += metadata.annotation_set(meta.get("annotations"), f"{field}.annotations")
    spec = found.get("spec") or {}
    problems += pod_spec(spec, f"{field}.spec")
    if spec.get("ephemeralContainers"):
        text = "ephemeral containers not allowed in pod template"
        problems.append(causes.forbidden(f"{field}.spec.ephemeralContainers", text))
    return problems


def pod_spec(spec: Json, field: str) -> list[Cause]:
    """A PodSpec, defaulted."""
    volumes = spec.get("volumes") or []
    found = _volumes(volumes, f"{field}.volumes")
    mounted = {volume.get("name") for volume in volumes}
    containers = spec.get("containers") or []
    if not containers:
        found.append(required(f"{field}.containers"))
    seen: set[str] = set()
    host_ports: set[tuple[Any, ...]] = set()
    for group in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(group) or ()):
            path = f"{field}.{group}[{index}]"
            name = container.get("name") or ""
            found += _container(container, path, mounted)
            found += _hooks(container.get("lifecycle") or {}, f"{path}.lifecycle", spec)
            found += _probes(container, path)
            if name and name in seen:
                found.append(causes.duplicate(f"{path}.name", name))
            seen.add(name)
            if group == "containers":
                found += _host_ports(container, path, host_ports)
    found += one_of(f"{field}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never"))
    policies = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
    found += one_of(f"{field}.dnsPolicy", spec.get("dnsPolicy"), policies)
    found += metadata.label_set(spec.get("nodeSelector"), f"{field}.nodeSelector")
    return found + _placement(spec, field)


def _placement(spec: Json, field: str) -> list[Cause]:
    found: list[Cause] = []
    for key in ("serviceAccountName", "nodeName"):
        value = str(spec.get(key) or "")
        if value:
            found += [invalid(f"{field}.{key}", value, text) for text in names.dns_subdomain(value)]
    deadline = spec.get("activeDeadlineSeconds")
    if isinstance(deadline, int) and not 1 <= deadline <= 2**31 - 1:
        text = f"must be between 1 and {2**31 - 1}, inclusive"
        found.append(invalid(f"{field}.activeDeadlineSeconds", deadline, text))
    for key in ("hostname", "subdomain"):
        value = str(spec.get(key) or "")
        if value:
            found += [invalid(f"{field}.{key}", value, text) for text in names.dns_label(value)]
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        found += _toleration(toleration, f"{field}.tolerations[{index}]")
    return found


def _toleration(toleration: Json, path: str) -> list[Cause]:
    found: list[Cause] = []
    key, operator = str(toleration.get("key") or ""), toleration.get("operator") or "Equal"
    if key:
        found += [invalid(f"{path}.key", key, text) for text in names.qualified_name(key)]
    elif operator != "Exists":
        text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        found.append(invalid(f"{path}.operator", operator, text))
    if operator not in ("Equal", "Exists"):
        found.append(causes.not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
    elif operator == "Exists" and toleration.get("value"):
        text = "value must be empty when `operator` is 'Exists'"
        found.append(invalid(f"{path}.operator", dict(toleration), text))
    effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    return found + one_of(f"{path}.effect", toleration.get("effect"), effects)


def _container(container: Json, path: str, volumes: set[Any]) -> list[Cause]:
    name = str(container.get("name") or "")
    found = [invalid(f"{path}.name", name, text) for text in names.dns_label(name)] if name else []
    if not name:
        found.append(required(f"{path}.name"))
    image = str(container.get("image") or "")
    if not image:
        found.append(required(f"{path}.image"))
    policy = container.get("terminationMessagePolicy")
    options = ("FallbackToLogsOnError", "File")
    found += one_of(f"{path}.terminationMessagePolicy", policy, options)
    found += _ports(container.get("ports") or (), f"{path}.ports")
    found += _environment(container, path)
    found += _mounts(container.get("volumeMounts") or (), f"{path}.volumeMounts", volumes)
    pulls = ("Always", "IfNotPresent", "Never")
    found += one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), pulls)
    found += _resources(container.get("resources") or {}, f"{path}.resources")
    return found


def _probes(container: Json, path: str) -> list[Cause]:
    found: list[Cause] = []
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe) is not None:
            found += _probe(container[probe], f"{path}.{probe}", is_readiness=probe == "readinessProbe")
    return found


def _hooks(lifecycle: Json, path: str, spec: Json) -> list[Cause]:
    found: list[Cause] = []
    grace = spec.get("terminationGracePeriodSeconds", 30)
    for hook in ("postStart", "preStop"):
        handler = lifecycle.get(hook)
        if handler is None:
            continue
        found += _action(handler, f"{path}.{hook}", _HANDLERS)
        seconds = (handler.get("sleep") or {}).get("seconds", 0)
        if not 0 <= seconds <= max(grace, 0):
            text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            found.append(invalid(f"{path}.{hook}.sleep", seconds, text))
    return found


def _ports(ports: Any, path: str) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        here, name = f"{path}[{index}]", str(port.get("name") or "")
        if name:
            found += [invalid(f"{here}.name", name, text) for text in names.port_name(name)]
            if name in seen:
                found.append(causes.duplicate(f"{here}.name", name))
            seen.add(name)
        number = port.get("containerPort")
        if not number:
            found.append(required(f"{here}.containerPort"))
        else:
            found += [invalid(f"{here}.containerPort", number, text) for text in names.port_number(number)]
        if port.get("hostPort"):
            host = port["hostPort"]
            found += [invalid(f"{here}.hostPort", host, text) for text in names.port_number(host)]
        found += one_of(f"{here}.protocol", port.get("protocol"), PROTOCOLS)
    return found


def _host_ports(container: Json, path: str, seen: set[tuple[Any, ...]]) -> list[Cause]:
    found: list[Cause] = []
    for index, port in enumerate(container.get("ports") or ()):
        if not port.get("hostPort"):
            continue
        key = (port.get("protocol"), port.get("hostIP") or "", port["hostPort"])
        if key in seen:
            text = f"{key[0]}/{key[1]}/{key[2]}"
            found.append(causes.duplicate(f"{path}.ports[{index}].hostPort", text))
        seen.add(key)
    return found


def _environment(container: Json, path: str) -> list[Cause]:
    found: list[Cause] = []
    for index, variable in enumerate(container.get("env") or ()):
        here, name = f"{path}.env[{index}]", str(variable.get("name") or "")
        if not name:
            found.append(required(f"{here}.name"))
        else:
            found += [invalid(f"{here}.name", name, text) for text in names.variable_name(name)]
        source = variable.get("valueFrom")
        if source is None:
            continue
        if not source:
            text = "must specify one of: `configMapKeyRef`, `fieldRef`, `resourceFieldRef` or `secretKeyRef`"
            found.append(invalid(f"{here}.valueFrom", "", text))
        if variable.get("value"):
            found.append(invalid(f"{here}.valueFrom", "", "may not be specified when `value` is not empty"))
        if len(source) > 1:
            found.append(invalid(f"{here}.valueFrom", "", "may not have more than one field specified at a time"))
    return found


def _mounts(mounts: Any, path: str, volumes: set[Any]) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        here, name, target = f"{path}[{index}]", mount.get("name"), mount.get("mountPath")
        if not name:
            found.append(required(f"{here}.name"))
        elif name not in volumes:
            found.append(causes.not_found(f"{here}.name", name))
        if not target:
            found.append(required(f"{here}.mountPath"))
        elif target in seen:
            found.append(invalid(f"{here}.mountPath", target, "must be unique"))
        seen.add(str(target))
    return found


def _resources(resources: Json, path: str) -> list[Cause]:
    found: list[Cause] = []
    limits = resources.get("limits") or {}
    for key in ("limits", "requests"):
        for name, value in sorted((resources.get(key) or {}).items()):
            here = f"{path}.{key}[{name}]"
            found += [invalid(f"{path}.{key}", name, text) for text in names.qualified_name(name)]
            try:
                amount = parse(value)
            except ValueError as wrong:
                found.append(invalid(here, value, str(wrong)))
                continue
            if amount < 0:
                found.append(invalid(here, value, causes.NEGATIVE))
            elif key == "requests" and name in limits and amount > parse(limits[name]):
                text = f"must be less than or equal to {name} limit of {canonical(limits[name])}"
                found.append(invalid(f"{path}.requests", canonical(value), text))
    return found


def _action(handler: Json, path: str, known: tuple[str, ...]) -> list[Cause]:
    """Exactly one of exec, httpGet, tcpSocket, grpc or sleep, and that one usable."""
    chosen = [key for key in known if handler.get(key) is not None]
    if not chosen:
        return [required(path, "must specify a handler type")]
    text = "may not specify more than 1 handler type"
    found: list[Cause] = []
    key, action = chosen[0], handler[chosen[0]]
    if key == "exec" and not action.get("command"):
        found.append(required(f"{path}.exec.command"))
    elif key == "httpGet":
        if not action.get("path"):
            found.append(required(f"{path}.httpGet.path"))
        found += _port_reference(action.get("port"), f"{path}.httpGet.port")
        found += one_of(f"{path}.httpGet.scheme", action.get("scheme"), ("HTTP", "HTTPS"))
    elif key in ("tcpSocket", "grpc"):
        found += _port_reference(action.get("port"), f"{path}.{key}.port")
    return found + [causes.forbidden(f"{path}.{other}", text) for other in chosen[1:]]


def _port_reference(port: Any, path: str) -> list[Cause]:
    texts = names.port_name(port) if isinstance(port, str) else names.port_number(port or 0)
    return [invalid(path, port if port is not None else 0, text) for text in texts]


def _probe(probe: Json, path: str, *, is_readiness: bool) -> list[Cause]:
    found = _action(probe, path, _PROBE_HANDLERS)
    for key in _PROBE_NUMBERS:
        found += causes.non_negative(f"{path}.{key}", probe.get(key))
    if not is_readiness and probe.get("successThreshold") not in (None, 1):
        found.append(invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and is_readiness:
        text = "must not be set for readinessProbes"
        found.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, text))
    elif isinstance(grace, int) and grace <= 0:
        found.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    return found


def _volumes(volumes: Any, path: str) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        here, name = f"{path}[{index}]", str(volume.get("name") or "")
        if not name:
            found.append(required(f"{here}.name"))
            continue
        found += [invalid(f"{here}.name", name, text) for text in names.dns_label(name)]
        if name in seen:
            found.append(causes.duplicate(f"{here}.name", name))
        seen.add(name)
        sources = [key for key in volume if key != "name"]
        for key in sources[1:]:
            found.append(causes.forbidden(f"{here}.{key}", "may not specify more than 1 volume type"))
    return found


def _frozen(spec: Json) -> dict[str, Any]:
    """A PodSpec without what an update may change."""
    free = ("activeDeadlineSeconds", "tolerations", "ephemeralContainers")  # the last by its subresource
    kept = {key: value for key, value in spec.items() if key not in free}
    for group in ("containers", "initContainers"):
        if kept.get(group):
            kept[group] = [{**container, "image": ""} for container in kept[group]]
    return kept


def _update(spec: Json, old: Json) -> list[Cause]:
    for group in ("containers", "initContainers"):
        if len(spec.get(group) or ()) != len(old.get(group) or ()):
            return [causes.forbidden(f"spec.{group}", "pod updates may not add or remove containers")]
    found: list[Cause] = []
    kept = spec.get("tolerations") or []
    if any(toleration not in kept for toleration in old.get("tolerations") or ()):
        text = "existing toleration can not be modified except its tolerationSeconds"
        found.append(causes.forbidden("spec.tolerations", text))
    new_spec, old_spec = _frozen(spec), _frozen(old)
    grace = "terminationGracePeriodSeconds"
    if (old_spec.get(grace) or 0) < 0 and new_spec.get(grace) == 1:
        new_spec[grace] = old_spec[grace]
    if old_spec.get("schedulingGates") and not new_spec.get("schedulingGates"):
        for gated in (new_spec, old_spec):  # gates may only go, and while gated the placement may narrow
            for key in ("schedulingGates", "nodeSelector", "affinity"):
                gated.pop(key, None)
    if not old_spec.get("nodeName"):
        for unbound in (new_spec, old_spec):  # the binding subresource writes it through the same check
            unbound.pop("nodeName", None)
    changed = sorted(k for k in {*new_spec, *old_spec} if new_spec.get(k) != old_spec.get(k))
    if changed:
        lines = [
            f"-\t{key}: {causes.shown(old_spec.get(key))}\n+\t{key}: {causes.shown(new_spec.get(key))}"
            for key in changed
        ]
        found.append(causes.forbidden("spec", _UPDATE + "\n" + "\n".join(lines)))
    return found
