"""The three patch grammars of the API: JSON merge patch, JSON patch, strategic merge patch.

All return a new object that shares nothing with its arguments, so that the caller may default it in place.
Wording and status codes follow apiserver/pkg/endpoints/handlers/patch.go: what went wrong inside a JSON
patch is not told to the client there either; ``PatchError.detail`` keeps it for the log.
"""

from __future__ import annotations

from typing import Any

from tidegate.lab.apiserver.schema import types
from tidegate.lab.apiserver.schema.types import Field, Type

REJECTED = "the server rejected our request due to an error in our request"
_REASONS = {400: "BadRequest", 413: "RequestEntityTooLarge", 415: "UnsupportedMediaType", 422: "Invalid"}
_MAX_OPERATIONS = 10_000  # apiserver's maxJSONPatchOperations

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_LIST = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_NO_FIELD = Field("any")


class PatchError(Exception):
    """A patch that cannot be applied: HTTP ``code``, Status ``reason`` and ``message``; ``detail`` says
    what failed.
    """

    def __init__(self, code: int, message: str, detail: str = "") -> None:
        super().__init__(detail or message)
        self.code = code
        self.reason = _REASONS.get(code, "")
        self.message = message
        self.detail = detail or message


def clone(value: Any) -> Any:
    """A deep copy of JSON; several times faster than ``copy.deepcopy``, which must expect cycles."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value


def same(left: Any, right: Any) -> bool:
    """JSON equality: unlike Python's, ``true`` is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


# --- JSON merge patch (RFC 7396) ----------------------------------------------------------------------------


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396: maps merge, null removes, everything else replaces. The patch itself must be a map."""
    if not isinstance(patch, dict):
        raise PatchError(400, "error decoding patch: " + _not_a_map(patch))
    return _merge(target, patch)


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return clone(patch)
    base = target if isinstance(target, dict) else {}
    merged = {key: clone(value) for key, value in base.items() if key not in patch}
    for key, value in patch.items():
        if value is not None:
            merged[key] = _merge(base.get(key), value)
    order = [key for key in base if key in merged] + [key for key in merged if key not in base]
    return {key: merged[key] for key in order}


def _not_a_map(value: Any) -> str:
    kind = {str: "string", list: "array", bool: "bool"}.get(type(value), "number")
    return f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"


# --- JSON patch (RFC 6902) ----------------------------------------------------------------------------------


def json_patch(target: Any, ops: Any) -> Any:
    """RFC 6902; a failed ``test``, a bad path or an unknown operation is a 422, a patch that is no list a
    400.
    """
    if not isinstance(ops, list) or not all(isinstance(op, dict) for op in ops):
        text = "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        raise PatchError(400, text)
    if len(ops) > _MAX_OPERATIONS:
        text = f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(ops)}"
        raise PatchError(413, text)
    document = {"": clone(target)}
    for op in ops:
        _operate(document, op)
    return document[""]


def _operate(document: dict[str, Any], op: dict[str, Any]) -> None:
    name, path = op.get("op"), _tokens(op.get("path"))
    if name == "test":
        found = _look(document, path, missing_is_none=True)
        if not same(found, op.get("value")):
            raise _rejected(f"testing value {op.get('path')} failed")
    elif name == "remove":
        _remove(document, path)
    elif name in ("add", "replace"):
        if "value" not in op:
            raise _rejected(f"missing value of {name} operation")
        _put(document, path, clone(op["value"]), replacing=name == "replace")
    elif name in ("move", "copy"):
        source = _tokens(op.get("from"))
        value = clone(_look(document, source))
        if name == "move":
            _remove(document, source)
        _put(document, path, value, replacing=False)
    else:
        raise _rejected(f"Unexpected kind: {name}")


def _rejected(detail: str) -> PatchError:
    return PatchError(422, REJECTED, detail)


def _tokens(pointer: Any) -> list[str]:
    """A JSON pointer as keys below the document's wrapper (whose only key is ``""``)."""
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise _rejected(f"bad path: {pointer!r}")
    return [""] + [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _index(token: str, size: int) -> int:
    try:
        index = int(token)
    except ValueError:
        raise _rejected(f"not an index: {token!r}") from None
    index = index + size if index < 0 else index
    if not 0 <= index < size:
        raise _rejected(f"index out of bounds: {token}")
    return index


def _child(node: Any, token: str) -> Any:
    if isinstance(node, list):
        return node[_index(token, len(node))]
    if isinstance(node, dict) and token in node:
        return node[token]
    raise _rejected(f"no such key: {token!r}")


def _look(document: Any, path: list[str], *, missing_is_none: bool = False) -> Any:
    node = document
    for depth, token in enumerate(path):
        if missing_is_none and depth == len(path) - 1 and isinstance(node, dict):
            return node.get(token)
        node = _child(node, token)
    return node


def _remove(document: Any, path: list[str]) -> None:
    parent = _look(document, path[:-1])
    _child(parent, path[-1])
    if isinstance(parent, list):
        del parent[_index(path[-1], len(parent))]
    else:
        del parent[path[-1]]


def _put(document: Any, path: list[str], value: Any, *, replacing: bool) -> None:
    parent, last = _look(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value  # evanphx/json-patch v4 replaces what is not there, too (seen on 1.36)
    elif not isinstance(parent, list):
        raise _rejected(f"no container at {path[:-1]}")
    elif replacing:
        parent[_index(last, len(parent))] = value
    else:
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)


# --- strategic merge patch (apimachinery/pkg/util/strategicpatch/patch.go) ----------------------------------


def strategic(target: Any, patch: Any, type_name: str) -> Any:
    """A strategic merge patch on an object of a built-in type (a kind or a name of the type table).

    A type the table does not know merges as JSON does, lists replaced; the API answers 415 for those before.
    """
    if not isinstance(patch, dict):
        raise PatchError(400, _not_a_map(patch))
    known = types.of(type_name, target if isinstance(target, dict) else None)
    return _merge_map(clone(target) if isinstance(target, dict) else {}, clone(patch), known)


def _merge_map(original: dict[str, Any], patch: dict[str, Any], known: Type | None) -> dict[str, Any]:
    """Merge ``patch`` into ``original``; both are private copies and are consumed."""
    if _PATCH in patch:
        directive = patch.pop(_PATCH)
        if directive == "replace":
            return _plain_map(patch)
        if directive == "delete":
            return {}
        if directive != "merge":
            whole = printed({**patch, _PATCH: directive})
            raise PatchError(500, f"unknown patch type: {printed(directive)} in map: {whole}")
    _retain_keys(original, patch)
    _ordered_lists(original, patch, known)
    for key, value in patch.items():
        is_deletion = key.startswith(_DELETE_LIST)
        name = key.removeprefix(_DELETE_LIST)
        if value is None:
            original.pop(name, None)
        elif name not in original or type(original[name]) is not type(value):
            if not is_deletion:
                original[name] = _plain(value)
        elif isinstance(value, dict):
            original[name] = _merge_field_map(original[name], value, _field(known, name))
        elif isinstance(value, list):
            original[name] = _merge_list(original[name], value, _field(known, name), is_deletion)
        else:
            original[name] = value
    return original


def _field(known: Type | None, name: str) -> Field:
    return known.fields.get(name, _NO_FIELD) if known else _NO_FIELD


def _below(field: Field) -> Type | None:
    return types.find(field.item or field.type)


def _merge_field_map(original: dict[str, Any], patch: dict[str, Any], field: Field) -> dict[str, Any]:
    if "replace" in field.strategies:
        return _plain_map(patch)
    if not field.is_map:
        return _merge_map(original, patch, _below(field))
    # A map of structs (none in the table today) would merge by key with each value's own type.
    return _merge_map(original, patch, None)


def _plain(value: Any) -> Any:
    """What a patch adds where nothing was: directives and nulls dropped (removeDirectives,
    discardNullValues).
    """
    if isinstance(value, dict):
        return _plain_map(value)
    if isinstance(value, list):
        items = [item for item in value if not (isinstance(item, dict) and item.get(_PATCH) in ("delete", "replace"))]
        return [_plain(item) for item in items]
    return value


def _plain_map(value: dict[str, Any]) -> dict[str, Any]:
    directives = (_PATCH, _RETAIN)
    return {
        key: _plain(item)
        for key, item in value.items()
        if item is not None and key not in directives and not key.startswith((_DELETE_LIST, _ORDER))
    }


def _retain_keys(original: dict[str, Any], patch: dict[str, Any]) -> None:
    """``$retainKeys: [a, b]``: of the original only these stay, and the patch may set no others (unions)."""
    if _RETAIN not in patch:
        return
    kept = patch.pop(_RETAIN)
    if not isinstance(kept, list):
        raise PatchError(400, "invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and not key.startswith((_DELETE_LIST, _ORDER)) and key not in kept:
            raise PatchError(400, "invalid patch format of retainKeys")
    for key in [key for key in original if key not in kept]:
        del original[key]


def _ordered_lists(original: dict[str, Any], patch: dict[str, Any], known: Type | None) -> None:
    """Lists that come with a ``$setElementOrder``: merge, then order as the client says."""
    for key in [key for key in patch if key.startswith(_ORDER)]:
        order, name = patch.pop(key), key.removeprefix(_ORDER)
        field = _field(known, name)
        if not isinstance(order, list):
            raise PatchError(400, "invalid patch format of setElementOrder list")
        change = patch.pop(name, None)
        gone = patch.pop(_DELETE_LIST + name, None)
        before = original.get(name)
        if gone is not None and isinstance(before, list):
            before = _merge_list(before, gone, field, True)
        if not isinstance(before, list) and not isinstance(change, list):
            continue
        base = before if isinstance(before, list) else []
        merged = _merge_list(clone(base), change, field, False) if isinstance(change, list) else base
        ours = [item for item in merged if _position(order, item, field.merge_key) >= 0]
        theirs = [item for item in merged if _position(order, item, field.merge_key) < 0]
        original[name] = _interleave(theirs, ours, order, base, field.merge_key)


def _merge_list(original: list[Any], patch: list[Any], field: Field, is_deletion: bool) -> list[Any]:
    if is_deletion:
        return [item for item in original if not any(same(item, gone) for gone in patch)]
    if "merge" not in field.strategies:
        return [_plain(item) for item in patch]
    if not any(isinstance(item, dict) for item in [*original, *patch]):
        merged: list[Any] = []
        for item in [*original, *patch]:
            if not any(same(item, seen) for seen in merged):
                merged.append(item)
        ours = [item for item in merged if any(same(item, change) for change in patch)]
        theirs = [item for item in merged if not any(same(item, change) for change in patch)]
        return _interleave(theirs, ours, patch, original, "")
    return _merge_list_of_maps(original, patch, field)


def _merge_list_of_maps(original: list[Any], patch: list[Any], field: Field) -> list[Any]:
    key = field.merge_key
    if not key:
        raise PatchError(500, f"cannot merge lists without merge key for {field.type}")
    original, patch = _special_elements(original, patch, key)
    before = list(original)
    merged = list(original)
    for item in patch:
        at = _position(merged, item, key)
        if at >= 0:
            merged[at] = _merge_map(clone(merged[at]), item, _below(field))
        else:
            merged.append(_plain(item))
    ours = [item for item in merged if _position(patch, item, key) >= 0]
    theirs = [item for item in merged if _position(patch, item, key) < 0]
    return _interleave(theirs, ours, patch, before, key)


def _special_elements(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Carry out ``$patch: delete`` and ``$patch: replace`` elements; hand back what is left to merge."""
    plain: list[Any] = []
    is_replaced = False
    for item in patch:
        if not isinstance(item, dict):
            raise PatchError(400, "invalid JSON document")
        directive = item.get(_PATCH)
        if directive == "replace":
            is_replaced = True
            continue
        if key not in item:
            raise PatchError(500, f"map: {printed(item)} does not contain declared merge key: {key}")
        if directive is None:
            plain.append(item)
        elif directive == "delete":
            original = [kept for kept in original if not same(kept.get(key), item[key])]
        elif directive == "merge":
            plain.append({name: value for name, value in item.items() if name != _PATCH})
        else:
            raise PatchError(500, f"unknown patch type found: {directive}")
    return ([], plain) if is_replaced else (original, plain)


def printed(value: Any) -> str:
    """A value as Go's %v prints it."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{printed(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(printed(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _position(items: list[Any], wanted: Any, key: str) -> int:
    """Where ``items`` holds ``wanted`` (by merge key for maps), or -1."""
    for index, item in enumerate(items):
        if isinstance(item, dict) and isinstance(wanted, dict):
            if key in item and key in wanted and same(item[key], wanted[key]):
                return index
        elif same(item, wanted):
            return index
    return -1


def _interleave(theirs: list[Any], ours: list[Any], order: list[Any], live: list[Any], key: str) -> list[Any]:
    """normalizeElementOrder + mergeSortedSlice: the patch's items in the patch's order, the server's in
    the live order, a server's item goes first only where the live list has both and has it first. So a new
    item of the patch stands before the server's own: that is how the real one behaves.
    """
    ours = sorted(ours, key=lambda item: _position(order, item, key))
    theirs = sorted(theirs, key=lambda item: _position(live, item, key))
    result: list[Any] = []
    left = right = 0
    while left < len(theirs) and right < len(ours):
        here, there = _position(live, theirs[left], key), _position(live, ours[right], key)
        if 0 <= here < there:
            result.append(theirs[left])
            left += 1
        else:
            result.append(ours[right])
            right += 1
    return result + theirs[left:] + ours[right:]
