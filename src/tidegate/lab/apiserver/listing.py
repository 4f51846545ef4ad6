"""List: selectors, resourceVersion semantics and consistent pages.

Semantics of resourceVersion: "" the newest state, "0" any state, N a state not older than N, N with match Exact
that very state. Pages of one list all show the state of its first page, rebuilt from the history; when history no
longer reaches back the answer is 410 (generic/registry/store.go and storage/continue.go).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.selectors import BadSelector, Filter, select
from tidegate.lab.apiserver.store import Store
from tidegate.lab.apiserver.versions import Version


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Query options of list and watch, as sent ("" and None when absent)."""

    labels: str = ""
    fields: str = ""
    resource_version: str = ""
    match: str = ""
    limit: int = 0
    token: str = ""
    timeout_seconds: int | None = None
    allows_bookmarks: bool = False
    sends_initial: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list: versions in key order, the version they are true at, and where the next page starts."""

    versions: list[Version]
    rv: int
    token: str = ""
    remaining: int = 0


def chosen(row: Row, namespace: str, options: ListOptions) -> Filter:
    """The filter a request asks for; 400 when a selector does not parse or a field is not selectable."""
    try:
        return select(row.field_labels, namespace, options.labels, options.fields)
    except BadSelector as error:
        raise failures.bad_request(str(error)) from None


def parse_version(text: str) -> int:
    """A resourceVersion as a number; "" is 0."""
    if not text:
        return 0
    if not text.isdigit():
        why = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        message = f'invalid resource version: resourceVersion: Invalid value: "{text}": {why}'
        raise failures.bad_request(message)
    return int(text)


def page(store: Store, row: Row, namespace: str, options: ListOptions) -> Page:
    """One page of a list, or all of it without ``limit``."""
    _check(options)
    wanted = chosen(row, namespace, options)
    collection = store.collection(row)
    rv, start = store.rv, ""
    if options.token:
        rv, start = _read_token(options.token)
        versions = collection.versions_at(rv, namespace)
        if versions is None or rv > store.rv:
            raise failures.continue_expired()
    else:
        asked = parse_version(options.resource_version)
        if asked > store.rv:
            raise failures.too_large(asked, store.rv)
        if options.match == "Exact":
            rv = asked
            versions = collection.versions_at(rv, namespace)
            if versions is None:
                raise failures.expired(asked, collection.forgotten)
        else:
            versions = list(collection.versions(namespace))
    if not wanted.is_trivial:
        versions = [version for version in versions if wanted.matches(version.object)]
    if start:
        versions = [version for version in versions if _key(version) >= start]
    if options.limit <= 0 or len(versions) <= options.limit:
        return Page(versions, rv)
    rest = versions[options.limit :]
    remaining = 0 if options.labels or options.fields else len(rest)
    return Page(versions[: options.limit], rv, _write_token(rv, _key(rest[0])), remaining)


def _key(version: Version) -> str:
    metadata = version.object["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"


def _write_token(rv: int, start: str) -> str:
    token = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": rv, "start": start})
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, str]:
    try:
        held: JsonObject = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(held["rv"]), str(held["start"])
    except (ValueError, KeyError, TypeError, binascii.Error, msgspec.MsgspecError):
        text = "invalid continue token: continue key is not valid: illegal base64 data"
        raise failures.bad_request(text) from None


def _check(options: ListOptions) -> None:
    """ValidateListOptions for a list (apimachinery pkg/apis/meta/internalversion/validation)."""
    causes: list[tuple[str, str]] = []
    if options.sends_initial is not None:
        causes.append(("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list"))
    if options.match:
        if options.token:
            causes.append(
                ("resourceVersionMatch", "Forbidden: resourceVersionMatch is forbidden when continue is provided")
            )
        if not options.resource_version:
            text = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
            causes.append(("resourceVersionMatch", text))
        if options.match not in ("Exact", "NotOlderThan"):
            text = f'Unsupported value: "{options.match}": supported values: "Exact", "NotOlderThan", ""'
            causes.append(("resourceVersionMatch", text))
        elif options.match == "Exact" and options.resource_version == "0":
            text = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            causes.append(("resourceVersionMatch", text))
    if causes:
        raise failures.invalid_option("ListOptions", causes)
    if options.token and options.resource_version not in ("", "0"):
        raise failures.bad_request("specifying resource version is not allowed when using continue")
