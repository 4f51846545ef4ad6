"""Stand-ins for parts of ``schema`` that are still being written. Goes away with the last of them."""
# mypy: ignore-errors
# ruff: noqa

from __future__ import annotations

import importlib
import types as _types

_BASE = "tidegate.lab.apiserver.schema."


def _part(name: str, **stand_ins):
    try:
        return importlib.import_module(_BASE + name)
    except ModuleNotFoundError:
        return _types.SimpleNamespace(**stand_ins)


def _no_table(kind, objects, now, options):
    rows = [{"cells": [o["metadata"]["name"], ""], "object": o} for o in objects]
    columns = [
        {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
        {"name": "Age", "type": "string", "format": "", "description": "", "priority": 0},
    ]
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": columns, "rows": rows}


strict = _part("strict", unknown_fields=lambda kind, obj: [])
protobuf = _part("protobuf", decode=lambda body: {})
tables = _part("tables", table=_no_table, Options=lambda *a: a)
openapi = _part("openapi", index=lambda groups: {"paths": {}}, document=lambda place, rows: {})
