"""Validation of webhook configurations (pkg/apis/admissionregistration/validation, apiserver pkg/util/webhook)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from tidegate.lab.apiserver.schema import names, validation_selectors
from tidegate.lab.apiserver.schema.causes import Cause, duplicate, invalid, not_supported, required

Json = Mapping[str, Any]

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REVIEWS = ("v1", "v1beta1")
_SECONDS_MAX = 30
_FORM = "; desired format: https://host[/path]"
_OTHERS = "is present, must not specify other"
_CONDITIONS_MAX = 64


def configuration(obj: Json, old: Json | None) -> list[Cause]:
    """A MutatingWebhookConfiguration or ValidatingWebhookConfiguration, defaulted."""
    return list(_hooks(obj.get("webhooks") or ()))


def _hooks(hooks: Any) -> Iterator[Cause]:
    seen: list[str] = []
    for index, hook in enumerate(hooks):
        path = f"webhooks[{index}]"
        yield from _hook(hook, path)
        yield from _reviews(hook.get("admissionReviewVersions") or [], f"{path}.admissionReviewVersions")
        name = str(hook.get("name") or "")
        if name and name in seen:
            yield duplicate(f"{path}.name", name)
        seen.append(name)


def _hook(hook: Json, path: str) -> Iterator[Cause]:
    yield from _name(str(hook.get("name") or ""), f"{path}.name")
    for index, rule in enumerate(hook.get("rules") or ()):
        yield from _rule(rule, f"{path}.rules[{index}]")
    yield from _choice(hook, "failurePolicy", ("Fail", "Ignore"), path)
    yield from _choice(hook, "matchPolicy", ("Equivalent", "Exact"), path)
    if hook.get("sideEffects") is None:
        yield required(f"{path}.sideEffects", f"must specify one of {', '.join(_SIDE_EFFECTS)}")
    yield from _choice(hook, "sideEffects", _SIDE_EFFECTS, path)
    seconds = hook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= _SECONDS_MAX:
        why = f"the timeout value must be between 1 and {_SECONDS_MAX} seconds"
        yield invalid(f"{path}.timeoutSeconds", seconds, why)
    for key in ("namespaceSelector", "objectSelector"):
        yield from validation_selectors.validate(hook.get(key), f"{path}.{key}")
    yield from _choice(hook, "reinvocationPolicy", ("IfNeeded", "Never"), path)
    yield from _client(hook.get("clientConfig") or {}, f"{path}.clientConfig")
    yield from _conditions(hook.get("matchConditions") or [], f"{path}.matchConditions")


def _conditions(conditions: list[Json], path: str) -> Iterator[Cause]:
    from tidegate.lab.apiserver.webhooks.conditions import BadCondition, compiled  # late: it stands above

    if len(conditions) > _CONDITIONS_MAX:
        why = f"Too many: {len(conditions)}: must have at most {_CONDITIONS_MAX} items"
        yield Cause(path, "FieldValueTooMany", why)
    seen: list[str] = []
    for index, condition in enumerate(conditions):
        expression, name = str(condition.get("expression") or "").strip(), str(condition.get("name") or "")
        if not expression:
            yield required(f"{path}[{index}].expression")
        else:
            try:
                compiled(expression)
            except BadCondition as error:
                yield invalid(f"{path}[{index}].expression", condition["expression"], str(error))
        if not name:
            yield required(f"{path}[{index}].name")
        for text in names.qualified_name(name) if name else ():
            yield invalid(f"{path}[{index}].name", name, text)
        if name and name in seen:
            yield duplicate(f"{path}[{index}].name", name)
        seen.append(name)


def _name(name: str, path: str) -> Iterator[Cause]:
    if not name:
        yield required(path)
    elif texts := names.dns_subdomain(name):
        yield invalid(path, name, ",".join(texts))
    elif len(name.split(".")) < 3:
        yield invalid(path, name, "should be a domain with at least three segments separated by dots")


def _choice(holder: Json, key: str, options: tuple[str, ...], path: str) -> Iterator[Cause]:
    value = holder.get(key)
    if value is not None and value not in options:
        yield not_supported(f"{path}.{key}", value, options)


def _rule(rule: Json, path: str) -> Iterator[Cause]:
    operations = rule.get("operations") or []
    if not operations:
        yield required(f"{path}.operations")
    if len(operations) > 1 and "*" in operations:
        yield invalid(f"{path}.operations", operations, f"if '*' {_OTHERS} operations")
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            yield not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS)
    for key, noun in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        items = rule.get(key) or []
        if not items:
            yield required(f"{path}.{key}")
        if len(items) > 1 and "*" in items:
            yield invalid(f"{path}.{key}", items, f"if '*' {_OTHERS} {noun}")
        for index, item in enumerate(items):
            if not item and key == "apiVersions":
                yield required(f"{path}.{key}[{index}]")
    yield from _resources(rule.get("resources") or [], f"{path}.resources")
    yield from _choice(rule, "scope", _SCOPES, path)


def _resources(resources: list[str], path: str) -> Iterator[Cause]:
    if not resources:
        yield required(path)
    whole: list[str] = []  # "pods" of "pods/*"
    everywhere: list[str] = []  # "status" of "*/status"
    has_plain = False
    for index, text in enumerate(resources):
        if not text:
            yield required(f"{path}[{index}]")
            continue
        resource, slash, sub = text.partition("/")
        if not slash:
            has_plain = text != "*"
            continue
        if resource in whole:
            yield invalid(f"{path}[{index}]", text, f"if '{resource}/*' is present, must not specify {text}")
        if sub in everywhere:
            yield invalid(f"{path}[{index}]", text, f"if '*/{sub}' is present, must not specify {text}")
        if sub == "*":
            whole.append(resource)
        if resource == "*":
            everywhere.append(sub)
    if len(resources) > 1 and "*/*" in resources:
        yield invalid(path, resources, f"if '*/*' {_OTHERS} resources")
    if "*" in resources and has_plain:
        yield invalid(path, resources, f"if '*' {_OTHERS} resources without subresources")


def _reviews(versions: list[str], path: str) -> Iterator[Cause]:
    if not versions:
        yield required(path, f"must specify one of {', '.join(_REVIEWS)}")
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            yield invalid(f"{path}[{index}]", version, "duplicate version")
    if not any(version in _REVIEWS for version in versions):
        yield invalid(path, versions, f"must include at least one of {', '.join(_REVIEWS)}")


def _client(client: Json, path: str) -> Iterator[Cause]:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        yield required(path, "exactly one of url or service is required")
    elif url is not None:
        yield from _url(str(url), f"{path}.url")
    elif service is not None:
        yield from _service(service, f"{path}.service")


def _url(url: str, path: str) -> Iterator[Cause]:
    parts = urlsplit(url)
    if parts.scheme != "https":
        yield invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}")
    if not parts.netloc:
        yield invalid(path, "", f"host must be specified{_FORM}")
    if parts.username is not None:
        yield invalid(path, parts.netloc.rpartition("@")[0], "user information is not permitted in the URL")
    if parts.fragment:
        yield invalid(path, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        yield invalid(path, parts.query, "query parameters are not permitted in the URL")


def _service(service: Json, path: str) -> Iterator[Cause]:
    # ValidateWebhookService takes (namespace, name) and is called with (name, namespace): 1.36 blames the other one.
    for key, blamed in (("namespace", "name"), ("name", "namespace")):
        if not service.get(key):
            yield required(f"{path}.{blamed}")
    port, where = service.get("port"), str(service.get("path") or "/")
    if texts := names.port_number(port):
        yield invalid(f"{path}.port", port, "port is not valid: " + ", ".join(texts))
    if where == "/":
        return
    if where == "//":
        yield invalid(f"{path}.path", where, "segment[0] may not be empty")
        return
    if not where.startswith("/"):
        yield invalid(f"{path}.path", where, "must start with a '/'")
    for index, step in enumerate(where[1:].removesuffix("/").split("/")):
        if not step:
            yield invalid(f"{path}.path", where, f"segment[{index}] may not be empty")
            continue
        for text in names.dns_subdomain(step):
            yield invalid(f"{path}.path", where, f"segment[{index}]: {text}")
