"""What the API server knows about kinds: types, patches, defaults, validation, tables, OpenAPI, protobuf.

Pure functions over plain JSON dicts; nothing here knows the store, a clock or a socket. Only ``defaults.apply``
and ``strict.prune`` work in place (on the copy their caller made); everything else leaves its arguments alone.

A body goes ``strict.mismatch`` (400) -> ``strict.unknown_fields`` (400 or a warning) -> ``strict.prune`` ->
``defaults.apply`` -> ``validation.validate`` (422): the later steps trust the shapes the first one checked.
"""
