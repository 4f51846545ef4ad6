"""Tables: what ``kubectl get`` prints is made by the server, a row per object (meta.k8s.io/v1 Table).

Columns and cells follow kubernetes/pkg/printers/internalversion/printers.go as 1.36 printed them. A kind nobody
described gets NAME and AGE, as a custom resource does. Groups of kinds live in ``tables_*.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidegate.lab.apiserver.schema import tables_misc, tables_network, tables_pods, tables_workloads
from tidegate.lab.apiserver.schema.human import age
from tidegate.lab.apiserver.schema.tables_columns import Json, Printer, columns


@dataclass(frozen=True, slots=True)
class Options:
    """``include`` is includeObject: "Metadata" (the default), "Object" or "None"; ``version`` the Table's own."""

    include: str = "Metadata"
    version: str = "v1"


_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"

_PRINTERS: dict[str, Printer] = {
    **tables_pods.PRINTERS,
    **tables_workloads.PRINTERS,
    **tables_network.PRINTERS,
    **tables_misc.PRINTERS,
}

_PLAIN = Printer("Name|Age", lambda obj, now: [obj["metadata"].get("name", ""), age(obj, now)])


def table(kind: str, objects: Sequence[Json], now: datetime, options: Options | None = None) -> dict[str, Any]:
    """A Table of ``objects`` as they look at ``now``; its ``metadata`` is the caller's to fill."""
    options = options or Options()
    printer = _PRINTERS.get(kind, _PLAIN)
    return framed(columns(printer.layout), [_row(printer, obj, now, options) for obj in objects], options)


def framed(definitions: list[Json], rows: list[Json], options: Options) -> dict[str, Any]:
    """A Table of these columns and rows."""
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{options.version}",
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": rows,
    }


def row(cells: list[Any], obj: Json, options: Options) -> dict[str, Any]:
    """One row, with as much of its object as was asked for."""
    return {"cells": cells, "object": _object(obj, options)}


def _row(printer: Printer, obj: Json, now: datetime, options: Options) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": printer.cells(obj, now)}
    if printer.conditions is not None:
        found = printer.conditions(obj)
        if found:
            row["conditions"] = found
    row["object"] = _object(obj, options)
    return row


def _object(obj: Json, options: Options) -> Json | None:
    if options.include == "None":
        return None
    if options.include == "Object":
        return obj
    version = f"meta.k8s.io/{options.version}"
    return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": _internal(obj["metadata"])}


def _internal(metadata: Json) -> Json:
    """Rows are made of the server's own form of an object, where a DaemonSet's template generation is a field."""
    annotations = metadata.get("annotations") or {}
    if _TEMPLATE_GENERATION not in annotations:
        return metadata
    kept = {key: value for key, value in annotations.items() if key != _TEMPLATE_GENERATION}
    rest = {key: value for key, value in metadata.items() if key != "annotations"}
    return {**rest, "annotations": kept} if kept else rest
