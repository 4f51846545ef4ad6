"""Write the API server's type table from the JSON schemas in the wheel ``kubernetes-validate``.

Run it with a Python that has the wheel (a throw-away venv: it is 108 MB, Apache-2.0, and no dependency of
ours):

    python tools/generate_types.py src/tidegate/lab/apiserver/schema/data

Two files: ``types.json.gz`` (what every request may need: fields, types, merge keys, list types, required)
and ``descriptions.json.gz`` (prose, read only for ``kubectl explain``). Format: see ``schema/types.py``.
"""

from __future__ import annotations

import gzip
import json
import pathlib
import sys
from typing import Any

RELEASE = "v1.37.0"
PREFIX = "#/$defs/"

ROOTS = """
core.v1: Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim
core.v1: Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
apps.v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
batch.v1: CronJob Job
autoscaling.v1: HorizontalPodAutoscaler Scale
autoscaling.v2: HorizontalPodAutoscaler
policy.v1: Eviction PodDisruptionBudget
discovery.v1: EndpointSlice
events.v1: Event
coordination.v1: Lease
networking.v1: Ingress IngressClass NetworkPolicy
rbac.v1: ClusterRole ClusterRoleBinding Role RoleBinding
scheduling.v1: PriorityClass
storage.v1: CSIDriver CSINode StorageClass VolumeAttachment
node.v1: RuntimeClass
admissionregistration.v1: MutatingWebhookConfiguration ValidatingWebhookConfiguration
authentication.v1: SelfSubjectReview TokenRequest TokenReview
authorization.v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
apiextensions.v1: CustomResourceDefinition
apiregistration.v1: APIService
meta.v1: DeleteOptions Status
"""

# What the swagger writes as prose or as a bare object, and what it means.
SCALARS = {
    "intstr.IntOrString": "IntOrString",
    "resource.Quantity": "Quantity",
    "meta.v1.Time": "Time",
    "meta.v1.MicroTime": "MicroTime",
    "meta.v1.FieldsV1": "any",
    "meta.v1.Patch": "any",
    "runtime.RawExtension": "any",
    "apiextensions.v1.JSON": "any",
    "apiextensions.v1.JSONSchemaPropsOrArray": "any",
    "apiextensions.v1.JSONSchemaPropsOrBool": "any",
    "apiextensions.v1.JSONSchemaPropsOrStringArray": "any",
}
PRIMITIVES = {
    ("string", None): "string",
    ("string", "byte"): "bytes",
    ("boolean", None): "boolean",
    ("integer", "int32"): "int32",
    ("integer", "int64"): "int64",
    ("number", "double"): "number",
    ("object", None): "any",
}


def short(name: str) -> str:
    """``io.k8s.api.core.v1.Pod`` -> ``core.v1.Pod``: the last three parts, two for the unversioned
    packages.
    """
    parts = name.split(".")
    return ".".join(parts[-2:] if parts[-2] in ("intstr", "resource", "runtime", "version") else parts[-3:])


def encode(schema: dict[str, Any]) -> str:
    """A property's type as one word: ``string``, ``[]core.v1.Container``, ``{}Quantity``,
    ``core.v1.PodSpec``.
    """
    if "$ref" in schema:
        name = short(schema["$ref"].removeprefix(PREFIX))
        return SCALARS.get(name, name)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        return "[]" + encode(schema["items"])
    if kind == "object" and "additionalProperties" in schema:
        return "{}" + encode(schema["additionalProperties"])
    return PRIMITIVES[kind, schema.get("format")]


def options(schema: dict[str, Any]) -> dict[str, Any]:
    """The merge rules of one property: m merge key, s patch strategy, l list type, k list-map keys, a
    atomic map.
    """
    found = {
        "m": schema.get("x-kubernetes-patch-merge-key"),
        "s": schema.get("x-kubernetes-patch-strategy"),
        "l": schema.get("x-kubernetes-list-type"),
        "k": schema.get("x-kubernetes-list-map-keys"),
        "a": schema.get("x-kubernetes-map-type"),
    }
    return {key: value for key, value in found.items() if value}


def references(word: str) -> str:
    """The type a word refers to, without list and map marks; "" for scalars."""
    word = word.replace("[]", "").replace("{}", "")
    return word if "." in word else ""


def row(definition: dict[str, Any]) -> dict[str, Any]:
    """One type of the table: f fields, r required, a atomic map, g group-version-kinds."""
    fields: dict[str, Any] = {}
    for name, schema in definition.get("properties", {}).items():
        word, rules = encode(schema), options(schema)
        fields[name] = [word, rules] if rules else word
    entry: dict[str, Any] = {"f": fields}
    if definition.get("required"):
        entry["r"] = definition["required"]
    if definition.get("x-kubernetes-map-type"):
        entry["a"] = definition["x-kubernetes-map-type"]
    return entry


def closure(definitions: dict[str, Any], roots: list[str]) -> dict[str, Any]:
    """Every type reachable from the roots, by name, sorted."""
    table: dict[str, Any] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in table:
            continue
        table[name] = row(definitions[name])
        for value in table[name]["f"].values():
            word = references(value if isinstance(value, str) else value[0])
            if word:
                waiting.append(word)
    return dict(sorted(table.items()))


def write(path: pathlib.Path, content: object) -> None:
    """JSON, sorted as given, gzipped without a time stamp so that a second run writes the same bytes."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    path.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{path}: {path.stat().st_size:,} bytes ({len(text):,} unpacked)")


def main() -> None:
    import kubernetes_validate

    home = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"{RELEASE}-local"
    raw = json.loads((home / "_definitions.json").read_text())["$defs"]
    definitions = {short(name): schema for name, schema in raw.items()}
    if len(definitions) != len(raw):
        raise SystemExit("short type names collide")
    roots, kinds = [], {}
    for line in ROOTS.strip().splitlines():
        package, names = line.split(": ")
        for name in names.split():
            roots.append(f"{package}.{name}")
            for gvk in definitions[f"{package}.{name}"].get("x-kubernetes-group-version-kind", []):
                if gvk["version"] == package.split(".")[1] and gvk["kind"] == name:
                    kinds[f"{package}.{name}"] = [gvk["group"], gvk["version"], gvk["kind"]]
                    break
    table = closure(definitions, roots)
    prose = {
        name: [
            definitions[name].get("description", ""),
            {key: value.get("description", "") for key, value in definitions[name].get("properties", {}).items()},
        ]
        for name in table
    }
    folder = pathlib.Path(sys.argv[1])
    write(folder / "types.json.gz", {"release": RELEASE, "kinds": kinds, "types": table})
    write(folder / "descriptions.json.gz", prose)
    print(f"{len(kinds)} kinds, {len(table)} types")


if __name__ == "__main__":
    main()
