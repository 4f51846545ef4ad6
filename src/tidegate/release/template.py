"""Pod templates: what is asked for, and which revision a template is.

``fingerprint`` names a template by what its author wrote. The API server adds defaults, the Deployment controller a
hash, Tidegate a gate and labels: none of these makes another revision, so a template read back has the name it was sent
under.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from copy import deepcopy
from fractions import Fraction
from typing import Any

import msgspec

from tidegate.drain.gating import GATE_TOKEN, GRACE_SECONDS, gate_patch, is_gate, is_plain_sleep
from tidegate.model.names import PREPARED_REVISION
from tidegate.model.workload import HASH_LABEL
from tidegate.release.scene import REVISION_LABEL, WORKLOAD_LABEL
from tidegate.release.spec import Spec

RESTARTED = "tidegate.dev/restarted"
"""On a template: what ``Spec.restart`` says."""
_OURS = (HASH_LABEL, REVISION_LABEL, WORKLOAD_LABEL)
_NOTES = (GATE_TOKEN, PREPARED_REVISION)
DIGITS = 10

_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "terminationMessagePath": ("/dev/termination-log",),
    "terminationMessagePolicy": ("File",),
    "imagePullPolicy": ("Always", "IfNotPresent"),
    "restartPolicy": ("Always",),
    "dnsPolicy": ("ClusterFirst",),
    "schedulerName": ("default-scheduler",),
    "protocol": ("TCP",),
    "scheme": ("HTTP",),
    "timeoutSeconds": (1, 0),
    "periodSeconds": (10, 0),
    "successThreshold": (1, 0),
    "failureThreshold": (3, 0),
    "initialDelaySeconds": (0,),
    "hostPort": (0,),
    "apiVersion": ("v1",),
    "defaultMode": (420,),
    "expirationSeconds": (3600,),
    "volumeMode": ("Filesystem",),
    "iscsiInterface": ("default",),
    "pool": ("rbd",),
    "user": ("admin",),
    "keyring": ("/etc/ceph/keyring",),
    "hostNetwork": (False,),
    "hostPID": (False,),
    "hostIPC": (False,),
    "stdin": (False,),
    "stdinOnce": (False,),
    "tty": (False,),
    "readOnly": (False,),
}
"""What the API server fills in, or leaves out (core/v1 defaults.go, omitempty; 1.36): left out wherever it says no more
than that. tests/realcluster/test_templates.py asks a real one."""
_FREE = ("labels", "annotations", "matchLabels", "nodeSelector", "volumeAttributes")
"""Maps whose keys are their author's: nothing is filled in there."""
_AMOUNTS, _AMOUNT = ("limits", "requests", "overhead"), ("sizeLimit", "divisor")
"""Maps of quantities, and quantities: the server writes ``1000m`` as ``1``, ``1024Mi`` as ``1Gi``."""
_QUANTITY = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")
_SUFFIXES = {
    **{one: Fraction(1000) ** power for power, one in zip((-3, -2, -1, 1, 2, 3, 4, 5, 6), "numkMGTPE", strict=True)},
    **{f"{one}i": Fraction(1024) ** power for power, one in enumerate("KMGTPE", 1)},
}


def wanted(spec: Spec, base: Mapping[str, Any]) -> dict[str, Any]:
    """The template that ``spec`` asks for, ``base`` being the one its workload has now; no gate is put in yet.

    Raises ``ValueError`` for an image of a container that is not there.
    """
    if spec.template is not None:
        return deepcopy(spec.template)
    template = deepcopy(dict(base))
    containers = {
        one["name"]: one for one in (*template["spec"]["containers"], *template["spec"].get("initContainers", ()))
    }
    for name, image in spec.images.items():
        if name not in containers:
            known = ", ".join(sorted(containers))
            raise ValueError(f"$.spec.images: there is no container {name!r}, the template has {known}")
        containers[name]["image"] = image
    if spec.restart:
        metadata = template.setdefault("metadata", {})
        metadata["annotations"] = {**(metadata.get("annotations") or {}), RESTARTED: spec.restart}
    return template


def gated(template: Mapping[str, Any], token: str = "") -> dict[str, Any]:
    """The template with the gate in every container. Raises ``drain.gating.CannotBeGated``."""
    patch = gate_patch({"spec": {"template": template}}, token).patch
    if not patch:
        return deepcopy(dict(template))
    found: dict[str, Any] = _merged(template, patch["spec"]["template"])
    return found


def labelled(template: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """The template with more labels."""
    found = deepcopy(dict(template))
    metadata = found.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    return found


def fingerprint(template: Mapping[str, Any]) -> str:
    """The name of a template: ten hexadecimal digits of what its author wrote."""
    return _named(msgspec.json.encode(template))


@functools.lru_cache(maxsize=512)
def _named(template: bytes) -> str:
    """A release asks for the same few names sixteen times, and each took 0.15 ms (``python -m bench operator``)."""
    text = json.dumps(_plain(_authored(msgspec.json.decode(template))), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def images_of(template: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: str(one.get("image", "")) for one in (template.get("spec") or {}).get("containers") or ()}


def is_gated(template: Mapping[str, Any]) -> bool:
    """Whether every container has the gate."""
    notes = (template.get("metadata") or {}).get("annotations") or {}
    token = notes.get(GATE_TOKEN, "")
    containers = (template.get("spec") or {}).get("containers") or ()
    hooks = [(one["name"], (one.get("lifecycle") or {}).get("preStop") or {}) for one in containers]
    return bool(hooks) and all(is_gate(name, hook, token) for name, hook in hooks)


def _authored(found: dict[str, Any]) -> dict[str, Any]:
    """Without what others than its author put in, which is taken out of ``found``."""
    metadata = found.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key not in _OURS}
    notes = {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in _NOTES}
    found["metadata"] = {"labels": labels, "annotations": notes}
    spec = found.get("spec") or {}
    token = ((metadata.get("annotations")) or {}).get(GATE_TOKEN, "")
    for one in spec.get("containers") or ():
        lifecycle = one.get("lifecycle") or {}
        hook = lifecycle.get("preStop") or {}
        # A gate takes the place of a plain sleep, so of both forms none tells revisions apart.
        if is_gate(one["name"], hook, token) or is_plain_sleep(hook):
            one["lifecycle"] = {key: value for key, value in lifecycle.items() if key != "preStop"}
    # The gate raises the grace period to this at least.
    spec["terminationGracePeriodSeconds"] = max(int(spec.get("terminationGracePeriodSeconds") or 30), GRACE_SECONDS)
    account = spec.pop("serviceAccount", "")  # the deprecated twin: the server writes each beside the other
    if account:
        spec.setdefault("serviceAccountName", account)
    return found


def _plain(value: Any, key: str = "") -> Any:
    """Without defaults and without what is empty."""
    if key in _AMOUNT:
        return _quantity(value)
    if isinstance(value, Mapping) and key in _FREE:
        return dict(value)
    if isinstance(value, Mapping) and key in _AMOUNTS:
        return {name: _quantity(one) for name, one in value.items()}
    if isinstance(value, Mapping):
        found = {name: _plain(one, name) for name, one in value.items()}
        if key == "httpGet" and found.get("path") == "/":
            del found["path"]
        return {
            name: one
            for name, one in found.items()
            if one not in (None, "", [], {}) and one not in _DEFAULTS.get(name, ())
        }
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _quantity(value: Any) -> str:
    """An amount as a number, however it is written; "" for none, as the server writes 0 where a divisor is left out."""
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        return str(value)
    number, suffix = found.groups(default="")
    amount = Fraction(number) * _SUFFIXES[suffix] if suffix in _SUFFIXES else Fraction(number + suffix)
    return str(amount) if amount else ""


def _merged(base: Any, patch: Any) -> Any:
    """A strategic merge, as far as the gate's patch needs it: containers by name, null removes."""
    if isinstance(patch, Mapping):
        found = deepcopy(dict(base)) if isinstance(base, Mapping) else {}
        for key, value in patch.items():
            if value is None:
                found.pop(key, None)
            elif key == "containers":
                changes = {one["name"]: one for one in value}
                found[key] = [_merged(one, changes.get(one["name"], {})) for one in found.get(key, ())]
            else:
                found[key] = _merged(found.get(key), value)
        return found
    return deepcopy(patch)
