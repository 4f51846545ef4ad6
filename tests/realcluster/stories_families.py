"""Stories of dual stack: which addresses and families a Service is given, and what is refused."""

from __future__ import annotations

from typing import Any

from tests.realcluster.objects import service
from tests.realcluster.twin import MERGE, Side


async def dual_stack(side: Side) -> None:
    """Every way to ask for one family or both, at first and later."""
    for name, spec in (
        ("plain", {}),
        ("six", {"ipFamilies": ["IPv6"]}),
        ("both", {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
        ("turned", {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack"}),
        ("prefers", {"ipFamilyPolicy": "PreferDualStack"}),
        ("headless", {"clusterIP": "None"}),
        ("bare", {"clusterIP": "None", "selector": None}),
        ("headless-both", {"clusterIP": "None", "ipFamilyPolicy": "RequireDualStack"}),
    ):
        await side.ask("POST", "services", service(name, **spec))
    changes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("plain", {"ipFamilyPolicy": "PreferDualStack"}),
        ("plain", {"ipFamilyPolicy": "RequireDualStack"}),
        ("plain", {"ipFamilies": ["IPv4"]}),
        ("plain", {"ipFamilyPolicy": "SingleStack"}),
        ("both", {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}),
        ("turned", {"sessionAffinity": "ClientIP"}),
        ("prefers", {"type": "NodePort"}),
        ("prefers", {"type": "ExternalName", "externalName": "example.org", "clusterIP": "", "clusterIPs": None}),
    )
    for name, spec in changes:
        await side.ask("PATCH", f"services/{name}", {"spec": spec}, kind=MERGE)
    wrong: tuple[dict[str, Any], ...] = (
        {"ipFamilies": ["IPv4", "IPv6"]},
        {"ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": "RequireDualStack"},
        {"ipFamilies": ["IPv5"]},
        {"ipFamilyPolicy": "Both"},
        {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6", "IPv4"]},
    )
    for spec in wrong:
        await side.ask("POST", "services", service("wrong", **spec))


STORIES = (dual_stack,)
