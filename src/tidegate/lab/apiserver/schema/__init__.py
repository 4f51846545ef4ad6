"""What the API server knows about kinds: types, patches, defaults, validation, tables, OpenAPI, protobuf.

Pure functions over plain JSON dicts; nothing here knows the store, a clock or a socket. Only ``defaults``
works in place (on the copy its caller made); everything else leaves its arguments alone.
"""
