"""Sets of fields, as server-side apply keeps them per manager (structured-merge-diff fieldpath, typed).

A path is a tuple of elements in FieldsV1's own spelling: ``f:spec`` a field, ``k:{"name":"c"}`` an item of a list of
maps, ``v:"x"`` an item of a set. Lists are atomic unless the type table says otherwise, maps and structs granular;
what has no type (custom resources) follows the same defaults.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tidegate.lab.apiserver.schema import types
from tidegate.lab.apiserver.schema.patches import clone, same
from tidegate.lab.apiserver.schema.types import Field, Type

Path = tuple[str, ...]
Paths = frozenset[Path]
Json = dict[str, Any]

_KEY_DEFAULTS = {"protocol": "TCP"}  # the only list-map key with a default among the built-in kinds
_UNTYPED = Field("any")


def leaves(obj: Json, kind: str) -> dict[Path, Any]:
    """Every owned path of an object with its value; an item of a list has the value None."""
    found: dict[Path, Any] = {}
    _walk_map(obj, types.of(kind, obj), _UNTYPED, (), found)
    return found


def _walk_map(value: Json, known: Type | None, field: Field, path: Path, found: dict[Path, Any]) -> None:
    for key, item in value.items():
        if item is None:
            continue
        below = known.fields.get(key, _UNTYPED) if known else Field(field.item or "any")
        here = (*path, f"f:{key}")
        if isinstance(item, dict) and item and not _is_atomic(below):
            _walk_map(item, types.find(below.type), below, here, found)
        elif isinstance(item, list) and below.list_type in ("set", "map"):
            _walk_list(item, below, here, found)
        else:
            found[here] = item


def _walk_list(items: list[Any], field: Field, path: Path, found: dict[Path, Any]) -> None:
    for item in items:
        here = (*path, element(item, field))
        found[here] = None
        if isinstance(item, dict):
            _walk_map(item, types.find(field.item), Field(field.item), here, found)


def _is_atomic(field: Field) -> bool:
    if field.is_atomic:
        return True
    known = types.find(field.type)
    return known.is_atomic if known else False


def element(item: Any, field: Field) -> str:
    """The path element of a list's item: its keys, or its value."""
    if field.list_type == "set" or not isinstance(item, dict):
        return "v:" + _compact(item)
    keys = {}
    for key in sorted(field.list_keys):
        value = item.get(key, _KEY_DEFAULTS.get(key))
        if value is not None:
            keys[key] = value
    return "k:" + _compact(keys)


_compact = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode
"""One encoder for all: ``json.dumps`` with options makes one each time, and every list item of every write comes by."""


def changed(old: Mapping[Path, Any], new: Mapping[Path, Any]) -> Paths:
    """Paths added or given another value."""
    return frozenset(path for path, value in new.items() if path not in old or not same(old[path], value))


def encode(paths: Iterable[Path]) -> Json:
    """FieldsV1: nested, ``.`` where a path with others below it is a member itself."""
    root: Json = {}
    for path in sorted(paths):
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node["."] = {}
    return _tidy(root)


def _tidy(node: Json) -> Json:
    """``encode``'s tree without needless dots; its keys came in order."""
    below = {key: _tidy(value) if value else value for key, value in node.items() if key != "."}
    return {".": {}, **below} if "." in node and below else below


def decode(fields: Mapping[str, Any]) -> Paths:
    return frozenset(_decode(fields, ()))


def _decode(fields: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for key, below in fields.items():
        if key == ".":
            yield path
        elif below:
            yield from _decode(below, (*path, key))
        else:
            yield (*path, key)


def shown(path: Path) -> str:
    """``.spec.template.spec.containers[name="c"].image``."""
    text = ""
    for part in path:
        kind, body = part[:2], part[2:]
        if kind == "f:":
            text += f".{body}"
        elif kind == "k:":
            pairs = json.loads(body).items()
            text += "[" + ",".join(f"{key}={_compact(value)}" for key, value in pairs) + "]"
        else:
            text += f"[={body}]"
    return text


def merge(live: Json, applied: Json, kind: str) -> Json:
    """The live object with what was applied laid over it; neither argument is changed."""
    merged: Json = _merge_map(live, applied, types.of(kind, live or applied), _UNTYPED)
    return merged


def _merge_map(live: Json, applied: Json, known: Type | None, field: Field) -> Json:
    merged = {key: clone(value) for key, value in live.items()}
    for key, value in applied.items():
        below = known.fields.get(key, _UNTYPED) if known else Field(field.item or "any")
        before = live.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and not _is_atomic(below):
            merged[key] = _merge_map(before, value, types.find(below.type), below)
        elif isinstance(value, list) and isinstance(before, list) and below.list_type in ("set", "map"):
            merged[key] = _merge_list(before, value, below)
        else:
            merged[key] = clone(value)
    return merged


def _merge_list(live: list[Any], applied: list[Any], field: Field) -> list[Any]:
    wanted = {element(item, field): item for item in applied}
    merged = []
    for item in live:
        over = wanted.pop(element(item, field), None)
        if isinstance(over, dict):
            item = _merge_map(item, over, types.find(field.item), Field(field.item))
        merged.append(clone(item))
    return merged + [clone(item) for item in wanted.values()]


def without(obj: Json, gone: Paths, kind: str) -> Json:
    """The object less these paths; maps that become empty by it go, too."""
    kept: Json = _without_map(obj, _below(gone), types.of(kind, obj), _UNTYPED)
    return kept


def _below(paths: Iterable[Path]) -> dict[str, list[Path]]:
    tree: dict[str, list[Path]] = {}
    for path in paths:
        tree.setdefault(path[0], []).append(path[1:])
    return tree


def _without_map(value: Json, gone: dict[str, list[Path]], known: Type | None, field: Field) -> Json:
    kept: Json = {}
    for key, item in value.items():
        paths = gone.get(f"f:{key}")
        if paths is None:
            kept[key] = item
            continue
        if () in paths:
            continue
        below = known.fields.get(key, _UNTYPED) if known else Field(field.item or "any")
        rest: Any = item
        if isinstance(item, dict):
            rest = _without_map(item, _below(paths), types.find(below.type), below)
        elif isinstance(item, list):
            rest = _without_list(item, _below(paths), below)
        if rest:
            kept[key] = rest
    return kept


def _without_list(items: list[Any], gone: dict[str, list[Path]], field: Field) -> list[Any]:
    kept = []
    for item in items:
        paths = gone.get(element(item, field))
        if paths is None:
            kept.append(item)
        elif () not in paths:
            kept.append(_without_map(item, _below(paths), types.find(field.item), Field(field.item)))
    return kept
