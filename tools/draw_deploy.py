"""``make deploy``: the Helm chart and the kustomize base, made of the very objects that ``tidegate install`` applies.

A chart's template is an object with four kinds of values left open: images, the operator's replicas, each container's
resources, and whether the namespace is made. Nothing else is a template, so nothing else can differ.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

from tidegate import __version__
from tidegate.agent.manifests import Installation
from tidegate.agent.roles import Piece
from tidegate.cli.install import comment, yaml_of
from tidegate.cli.parts import PARTS, pieces_of
from tidegate.model.names import OPERATOR, SYSTEM_NAMESPACE

DEPLOY = Path(__file__).parent.parent / "deploy"
CHART, BASE = "helm/tidegate", "kustomize/base"
IMAGE = f"tidegate:{__version__}"
_IMAGE, _OPERATOR_IMAGE, _REPLICAS, _RESOURCES = "OPEN-IMAGE", "OPEN-OPERATOR-IMAGE", "OPEN-REPLICAS", "OPEN-RESOURCES-"
_HEAD = "# Drawn by `make deploy` from the objects of `tidegate install --print`: change those.\n"
_CHART = f"""apiVersion: v2
name: tidegate
description: Pods end only after every observer of their endpoints has let go; releases that lose no request.
type: application
version: {__version__}
appVersion: {__version__}
kubeVersion: ">=1.28.0-0"
"""
_VALUES_HEAD = f"""{_HEAD}
# Everything stands in namespace {SYSTEM_NAMESPACE}: its parts look for each other there. Give the chart's own record
# another one, for the chart makes this: helm install tidegate deploy/helm/tidegate --namespace default
#
# Where a CNI assigns pods' addresses by itself (Node objects have no spec.podCIDRs), or pods have IPv6 addresses:
# tidegate install --pod-cidr ... (docs/operating.md); this chart has no value for it.

# No image is published: build one (Dockerfile).
image: {IMAGE}
# Of operator and coordinator; empty for the same.
operatorImage: ""
# Of the operator.
replicas: 2
# With the labels that Pod Security needs here. Off: it is there, and has them.
createNamespace: true
"""
_NOTES = """Tidegate is in namespace tidegate-system. No pod has a gate by that alone:

  kubectl label namespace NAMESPACE tidegate.dev/gate=enabled
  kubectl -n NAMESPACE rollout restart deployment

  tidegate doctor

Before `helm uninstall`: `tidegate uninstall --dry-run` names what still needs the gate's holders, and in which order
things go (the webhook first). Helm leaves the definitions of Release, Drain and Observer.
"""
_KUSTOMIZATION = f"""{_HEAD}
# A base: set the image in an overlay of your own, as in
#   resources: [../base]
#   images: [{{name: tidegate, newName: registry.example/tidegate, newTag: "1"}}]
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
"""


def drawn() -> dict[str, str]:
    """Path below deploy/ -> text."""
    found = {f"{CHART}/Chart.yaml": _CHART, f"{CHART}/templates/NOTES.txt": _NOTES}
    closed = _by_part(pieces_of(Installation(IMAGE)))
    for part, pieces in closed.items():
        text = _HEAD + "".join(_document(one) for one in pieces)
        found[f"{BASE}/{part}.yaml"] = text
        if part == "crds":
            found[f"{CHART}/crds/crds.yaml"] = text
    found[f"{BASE}/kustomization.yaml"] = _KUSTOMIZATION + "".join(f"- {part}.yaml\n" for part in closed)
    resources: dict[str, Any] = {}
    chosen = tuple(one for one in PARTS if one != "crds")
    for part, pieces in _by_part(pieces_of(Installation(_IMAGE, operator_image=_OPERATOR_IMAGE), chosen)).items():
        text = "".join(_document(_opened(one, resources)) for one in pieces)
        found[f"{CHART}/templates/{part}.yaml"] = _HEAD + _guarded(part, _templated(text))
    found[f"{CHART}/values.yaml"] = _VALUES_HEAD + yaml_of({"resources": resources})
    return found


def _by_part(pieces: list[Piece]) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for one in pieces:
        found.setdefault(one.part, []).append(one)
    return found


def _document(piece: Piece) -> str:
    return f"---\n{comment(piece.why) if piece.why else ''}{yaml_of(piece.manifest)}"


def _opened(piece: Piece, resources: dict[str, Any]) -> Piece:
    """With marks where a value is to stand; the values of before go into ``resources``."""
    manifest = copy.deepcopy(piece.manifest)
    if manifest["kind"] not in ("Deployment", "DaemonSet"):
        return piece
    if manifest["metadata"]["name"] == OPERATOR:
        manifest["spec"]["replicas"] = _REPLICAS
    for container in manifest["spec"]["template"]["spec"]["containers"]:
        resources[container["name"]] = container["resources"]
        container["resources"] = _RESOURCES + container["name"]
    return Piece(piece.part, manifest, piece.why)


def _templated(text: str) -> str:
    text = re.sub(rf"\b{_OPERATOR_IMAGE}\b", "{{ default .Values.image .Values.operatorImage | quote }}", text)
    text = re.sub(rf"\b{_IMAGE}\b", "{{ .Values.image | quote }}", text)
    text = text.replace(_REPLICAS, "{{ .Values.replicas }}")
    return re.sub(
        rf"^( *)resources: {_RESOURCES}(\w+)$",
        lambda found: (
            f"{found[1]}resources:\n{found[1]}  {{{{- toYaml .Values.resources.{found[2]} | nindent "
            f"{len(found[1]) + 2} }}}}"
        ),
        text,
        flags=re.MULTILINE,
    )


def _guarded(part: str, text: str) -> str:
    return f"{{{{- if .Values.createNamespace }}}}\n{text}{{{{- end }}}}\n" if part == "namespace" else text


def main() -> int:
    found = drawn()
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and str(path.relative_to(DEPLOY)) not in found:
            path.unlink()
    for name, text in found.items():
        path = DEPLOY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    print(f"deploy: {len(found)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
