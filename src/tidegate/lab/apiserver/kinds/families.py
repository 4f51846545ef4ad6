"""IP families of Services: which a Service has, on a cluster that has both (registry/core/service/storage/alloc.go).

Works in place on a Service being written; what it returns is what is wrong with it.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.schema.causes import Cause, duplicate, invalid, not_supported

FAMILIES = ("IPv4", "IPv6")
POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_POLICY = "spec.ipFamilyPolicy"


def family_of(address: str) -> str:
    """ "IPv4" or "IPv6"; "" for text that is no address."""
    try:
        return f"IPv{ipaddress.ip_address(address).version}"
    except ValueError:
        return ""


def settle(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    """Decide ``ipFamilyPolicy`` and ``ipFamilies``, and which ``clusterIPs`` stay (initIPFamilyFields)."""
    spec, before = obj["spec"], (old or {}).get("spec") or {}
    _normalize(spec, before)
    if _is_preference_kept(spec, before):
        return []
    if not spec.get("ipFamilyPolicy"):
        is_selectorless = spec.get("clusterIP") == "None" and not spec.get("selector")
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or (
            "RequireDualStack" if is_selectorless else "SingleStack"
        )
    wrong = _malformed(spec)
    if wrong:
        return wrong
    wrong = [*_reduced(spec, before), *_multiplied(spec)]
    _infer_families(spec)
    if not wrong:
        _complete_families(spec)
    return wrong


def _normalize(spec: JsonObject, before: JsonObject) -> None:
    """``clusterIP`` alone speaks for ``clusterIPs`` (normalizeClusterIPs)."""
    primary, addresses = spec.get("clusterIP") or "", spec.get("clusterIPs") or []
    if primary and (not addresses or (before and addresses == before.get("clusterIPs") and primary != addresses[0])):
        addresses = [primary]
    elif addresses and not primary and not before:
        spec["clusterIP"] = addresses[0]
    spec["clusterIPs"] = list(addresses)


def _is_preference_kept(spec: JsonObject, before: JsonObject) -> bool:
    """A PreferDualStack Service is not moved by what its cluster has become."""
    keys = ("type", "ipFamilyPolicy", "clusterIPs", "ipFamilies")
    is_same = all(spec.get(key) == before.get(key) for key in keys)
    return bool(before) and is_same and spec.get("ipFamilyPolicy") == "PreferDualStack"


def _malformed(spec: JsonObject) -> list[Cause]:
    """What no cluster could make sense of (ValidateServiceClusterIPsRelatedFields)."""
    found: list[Cause] = []
    families, addresses = spec.get("ipFamilies") or [], spec["clusterIPs"]
    for index, family in enumerate(families):
        if family not in FAMILIES:
            found.append(not_supported(f"spec.ipFamilies[{index}]", family, FAMILIES))
        if family in families[:index]:
            found.append(duplicate(f"spec.ipFamilies[{index}]", family))
    if spec["ipFamilyPolicy"] not in POLICIES:
        found.append(not_supported(_POLICY, spec["ipFamilyPolicy"], POLICIES))
    if len(addresses) > 2:
        found.append(invalid("spec.clusterIPs", addresses, "may only hold up to 2 values"))
    own = [family_of(address) for address in addresses]
    if len(own) > 1 and len(set(own)) < 2:
        found.append(invalid("spec.clusterIPs", addresses, "may specify no more than one IP for each IP family"))
    for index, (family, has) in enumerate(zip(families, own, strict=False)):
        if has and has != family:
            why = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            found.append(invalid(f"spec.clusterIPs[{index}]", addresses[index], why))
    return found


def _reduced(spec: JsonObject, before: JsonObject) -> list[Cause]:
    """SingleStack says enough to release the second of each; anything else releases nothing."""
    found: list[Cause] = []
    for key, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        had, has = before.get(key) or [], spec.get(key) or []
        if not before:
            continue
        if spec["ipFamilyPolicy"] != "SingleStack":
            if has and len(has) < len(had):
                why = f"must be 'SingleStack' to release the secondary {what}"
                found.append(invalid(_POLICY, spec["ipFamilyPolicy"], why))
        elif has == had:
            spec[key] = has[:1]
    return found


def _multiplied(spec: JsonObject) -> list[Cause]:
    if spec["ipFamilyPolicy"] != "SingleStack":
        return []
    return [
        invalid(
            _POLICY,
            "SingleStack",
            f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified",
        )
        for key, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families"))
        if len(spec.get(key) or []) == 2
    ]


def _infer_families(spec: JsonObject) -> None:
    families: list[Any] = list(spec.get("ipFamilies") or [])
    for address in spec["clusterIPs"][len(families) :]:
        family = family_of(address)
        if family:
            families.append(family)
    spec["ipFamilies"] = families


def _complete_families(spec: JsonObject) -> None:
    families = spec["ipFamilies"] or ["IPv4"]
    if len(families) == 1 and spec["ipFamilyPolicy"] != "SingleStack":
        families = [*families, "IPv6" if families[0] == "IPv4" else "IPv4"]
    spec["ipFamilies"] = families
