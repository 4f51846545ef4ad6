"""What a command line, or a file, asks a release for."""

from __future__ import annotations

import sys
from typing import Any

import click

from tidegate.cli.target import Duration
from tidegate.kube.client import KubeClient
from tidegate.release.scene import REVISION_LABEL
from tidegate.release.spec import Spec, decode_spec


class Unclear(ValueError):
    """The command line says too little, or contradicts itself."""


def wish_of(workload: tuple[str, str] | None, given: dict[str, Any]) -> dict[str, Any]:
    """A spec's wire form, its Service perhaps still to be found. Raises ``Unclear``."""
    document = _read(given["filename"]) if given["filename"] else None
    if document is not None and document.get("kind") == "Release":
        return dict(document.get("spec") or {})
    asked: dict[str, Any] = {"strategy": given["strategy"] or "rolling"}
    if document is not None:
        if document.get("kind") != "Deployment":
            raise Unclear(f"{given['filename']} holds a {document.get('kind')}: it has to be a Deployment or a Release")
        asked["template"] = (document.get("spec") or {}).get("template")
        asked["workload"] = workload[1] if workload is not None else (document.get("metadata") or {}).get("name", "")
    elif workload is None:
        raise Unclear("name a workload (deploy/NAME), or a file with -f")
    else:
        asked["workload"] = workload[1]
    if given["images"]:
        asked["images"] = dict(_image(text) for text in given["images"])
    if given["restart"]:
        from tidegate import vtime

        asked["restart"] = vtime.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    if document is None and not given["images"] and not given["restart"]:
        raise Unclear("nothing to release: give --image CONTAINER=IMAGE, -f FILE or --restart")
    asked |= {
        "ungated": given["ungated"],
        "onUnverified": given["on_unverified"],
        "progressSeconds": given["progress"],
    }
    section = _section(asked["strategy"], given)
    name = ((document or {}).get("metadata") or {}).get("name")
    if asked["strategy"] == "bluegreen" and name not in (None, asked["workload"]):
        section["name"] = name
    if section:
        asked[asked["strategy"]] = section
    return asked


async def spec_of(client: KubeClient, namespace: str, wish: dict[str, Any]) -> Spec:
    """The spec, with the Service that selects the workload where only one does and none was named.

    Raises ``Invalid`` with the field's path, ``Unclear``, ``KubeError``.
    """
    from tidegate.client.release.command import About, services_of

    strategy = wish.get("strategy", "rolling")
    section = wish.get(strategy) or {}
    if strategy != "rolling" and isinstance(section, dict) and not section.get("service"):
        about = About(namespace, str(wish.get("workload")))
        names = await services_of(client, about, str(section.get("by") or REVISION_LABEL))
        if len(names) > 1 or (not names and strategy != "rainbow"):  # work may come by other ways than a Service
            many = f"{', '.join(f'svc/{one}' for one in names)} select its pods: name one with --service"
            none = "no Service selects its pods: make one, or name one with --service"
            raise Unclear(f"{strategy} moves a Service, and {many if names else none}")
        wish = {**wish, strategy: {**section, **({"service": names[0]} if names else {})}}
    return decode_spec(wish)


def _section(strategy: str, given: dict[str, Any]) -> dict[str, Any]:
    """The strategy's own part; an option of another strategy is an error, not a silence."""
    known: dict[str, dict[str, Any]] = {
        "rolling": {},
        "bluegreen": {
            "service": given["service"],
            "preview": given["preview"],
            "promote": "manual" if given["manual"] else None,
            "keepSeconds": given["keep"],
            "by": given["by"],
            "together": given["together"] or None,
        },
        "canary": {"service": given["service"], "steps": _steps(given["steps"]), **_route(given["route"])},
        "rainbow": {"service": given["service"], "cap": given["cap"], "activity": given["activity"]},
    }
    options = {
        "preview": "preview", "promote": "manual", "keepSeconds": "keep", "by": "by", "together": "together",
        "steps": "steps", "route": "route", "cap": "cap", "activity": "activity", "service": "service",
    }  # fmt: skip
    own = known[strategy]
    if strategy == "canary" and not given["steps"]:
        raise Unclear("a canary needs --steps, such as 10:5m,50:promote,100")
    for key, option in options.items():
        if given[option] and key not in own:
            raise Unclear(f"--{option} says nothing to strategy {strategy}")
    return {key: value for key, value in own.items() if value not in ("", None, [])}


_ROUTERS = {
    "httproute": "httproute",
    "httproutes": "httproute",
    "traefikservice": "traefik",
    "traefikservices": "traefik",
}


def _route(text: str) -> dict[str, str]:
    """``httproute/web`` -> the router and the object's name."""
    kind, slash, name = text.partition("/")
    if text and (kind.partition(".")[0].lower() not in _ROUTERS or not slash or not name):
        raise Unclear(f"--route: {text!r} is no object of weights: write httproute/NAME or traefikservice/NAME")
    return {"router": _ROUTERS.get(kind.partition(".")[0].lower(), ""), "route": name}


def _steps(text: str) -> list[dict[str, Any]]:
    """``10:5m,50:promote,100`` -> steps. A pause of ``promote`` lasts until somebody says so."""
    found = []
    for part in filter(None, text.split(",")):
        weight, _, pause = part.partition(":")
        if not weight.strip().rstrip("%").isdigit():
            raise Unclear(f"--steps: {part!r} is no step: write WEIGHT, WEIGHT:5m or WEIGHT:promote")
        step: dict[str, Any] = {"weight": int(weight.strip().rstrip("%"))}
        if pause == "promote":
            step["pauseSeconds"] = None
        elif pause:
            try:
                step["pauseSeconds"] = Duration().convert(pause, None, None)
            except click.UsageError as error:
                raise Unclear(f"--steps: {error.format_message()}") from error
        found.append(step)
    return found


def _image(text: str) -> tuple[str, str]:
    name, equals, image = text.partition("=")
    if not equals or not name or not image:
        raise Unclear(f"--image: {text!r} says not which container: write CONTAINER=IMAGE")
    return name, image


def _read(path: str) -> dict[str, Any]:
    """The first object of a YAML or JSON file that is a Deployment or a Release."""
    import yaml

    try:
        text = sys.stdin.read() if path == "-" else open(path, encoding="utf-8").read()  # noqa: SIM115
        documents = [one for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    except OSError as error:
        raise Unclear(f"-f: {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Unclear(f"-f: {path}: {' '.join(str(error).split())}") from error
    wanted = [one for one in documents if one.get("kind") in ("Deployment", "Release")]
    if len(wanted) != 1:
        raise Unclear(f"-f: {path} holds {len(wanted)} Deployments and Releases: it has to be one")
    return wanted[0]
