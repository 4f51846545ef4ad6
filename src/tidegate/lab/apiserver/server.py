"""The API server: one exchange in front of the pipeline.

Transport-free: ``kube.wire.serve(server.exchange, ...)`` puts it on a port, tests call it directly, and
``LocalApi`` bypasses it. All state is in memory and ends with the object.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

from tidegate import vtime
from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request, Response, whole
from tidegate.lab.apiserver import bodies, deletions, failures, listing, reviews, routes, subresources, watching
from tidegate.lab.apiserver.access import Access
from tidegate.lab.apiserver.custom.definitions import Definitions
from tidegate.lab.apiserver.deletions import DeleteOptions
from tidegate.lab.apiserver.discovery import Discovery
from tidegate.lab.apiserver.objects import stamp
from tidegate.lab.apiserver.patching import APPLY, MEDIA_TYPES, applied, patched
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.routes import Route
from tidegate.lab.apiserver.rows import built_in
from tidegate.lab.apiserver.schema import patches
from tidegate.lab.apiserver.schema.ownership import Writer
from tidegate.lab.apiserver.shapes import JSON, Plain, shape
from tidegate.lab.apiserver.streams import Backends, Streams
from tidegate.lab.apiserver.verbs import Change, Options, Verbs
from tidegate.lab.apiserver.versions import Version, encode
from tidegate.lab.apiserver.webhooks.admission import Admission, Webhooks
from tidegate.lab.apiserver.webhooks.matching import CONNECT, CONNECTED, Asked, connection
from tidegate.lab.config import Addressing

SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""Priority classes every cluster has (scheduling/v1 SystemPriorityClasses)."""

BOOT_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


class ApiServer:
    """A Kubernetes API over ``exchange``. ``rng`` seeds uids and generated names; ``backends`` reach pods."""

    def __init__(
        self,
        rng: random.Random,
        addressing: Addressing | None = None,
        backends: Backends | None = None,
    ) -> None:
        self.registry = built_in()
        self.rng = rng
        self.verbs = Verbs(self.registry, rng, addressing or Addressing())
        self.backends = backends or Backends()
        self.access = Access(self.registry, self.verbs.store)
        self.webhooks = Webhooks(self.verbs.store, self.registry, rng)
        self._definitions = Definitions(self.verbs)
        self._discovery = Discovery(self.registry)
        self._streams = Streams(self.verbs, self.backends)
        namespaces = self.registry.named("", "namespaces")
        for name in BOOT_NAMESPACES:
            self.verbs.create(namespaces, "", {"metadata": {"name": name}}, Options())
        classes = self.registry.named("scheduling.k8s.io", "priorityclasses")
        for name, value in SYSTEM_PRIORITIES.items():
            self.verbs.create(classes, "", {"metadata": {"name": name}, "value": value}, Options())

    async def exchange(self, request: Request) -> Response:
        """Answer one request. Failures are ``Status`` answers; only bugs raise."""
        try:
            self.access.admit(request)
            return await self._answer(request)
        except ApiError as error:
            return failed(error)

    async def _answer(self, request: Request) -> Response:
        fixed = self._discovery.answer(request)
        if fixed is not None:
            return fixed
        route = routes.parse(self.registry, request.path)
        if route.subresource in CONNECTED and self.webhooks.is_wanted:
            await self._admit_connection(route, request)
        if route.subresource and (answer := await self._streams.answer(route, request)) is not None:
            return answer
        if request.method == "GET" or not self.webhooks.is_wanted:
            response = self._answer_resource(route, request)
        else:
            response = await self._answer_admitted(route, request)
        if route.row.deprecation:
            response.headers = {**response.headers, "warning": f'299 - "{route.row.deprecation}"'}
        return response

    async def _admit_connection(self, route: Route, request: Request) -> None:
        """Ask the webhooks about what is no write: exec, attach, port-forward, proxy."""
        found = route.row.subresource(route.subresource)
        assert found is not None
        obj = {"kind": found.kind, "apiVersion": route.row.resource.api_version, **connection(request)}
        asked = Asked(route.row, CONNECT, *route.place, obj, None, route.subresource)

        def connect(admission: Admission | None) -> None:
            assert admission is not None
            admission.mutated(asked)  # nothing of it can be changed here: what is connected is what was asked for
            admission.check(asked)

        await Admission(self.webhooks, self.access.subject(request.headers)).done(connect)

    async def _answer_admitted(self, route: Route, request: Request) -> Response:
        """Where webhooks may have to be asked: what they warn of is said with the answer, whichever it is."""
        admission = Admission(self.webhooks, self.access.subject(request.headers))
        try:
            response = await admission.done(lambda passing: self._answer_resource(route, request, passing))
        except ApiError as error:
            response = failed(error)
        if admission.warnings:
            told = [response.headers["warning"]] if "warning" in response.headers else []
            response.headers = {**response.headers, "warning": ", ".join([*told, *map(_warning, admission.warnings)])}
        return response

    def _answer_resource(self, route: Route, request: Request, admission: Admission | None = None) -> Response:
        method = request.method
        if method == "GET":
            return self._read(route, request)
        if method == "POST":
            return self._create(route, request, admission)
        if method in ("PUT", "PATCH"):
            return self._change(route, request, admission)
        if method == "DELETE":
            return self._delete(route, request, admission)
        raise failures.method_not_allowed()

    # -- reads

    def _read(self, route: Route, request: Request) -> Response:
        row, query = route.row, dict(request.query)
        require(row, "get")
        written = shape(row, request.headers.get("accept", ""), query.get("includeObject", ""))
        is_watch = bool(query) and bodies.is_true(query.get("watch", ""))
        if route.name and not is_watch:
            version = subresources.read(self.verbs, route)
            return whole(200, written.one(version))
        options = bodies.list_options(query, route.name)
        if is_watch:
            return self._watch(route, written, options)
        return whole(200, written.many(listing.page(self.verbs.store, row, route.namespace, options)))

    def _watch(self, route: Route, written: Plain, options: listing.ListOptions) -> Response:
        headers = {"content-type": JSON}
        try:
            opening = watching.begin(self.verbs.store, route.row, route.namespace, options)
        except ApiError as error:
            if not error.is_expired:
                raise
            # The watch cache answers 200 and says 410 inside the stream (cacher.go newErrWatcher).
            return Response(200, headers, _only(watching.error_line(error)))
        writing = watching.Stream(self.verbs.store, route.row, written.line, self.rng)
        return Response(200, headers, watching.stream(opening, options, writing))

    # -- writes

    def _create(self, route: Route, request: Request, admission: Admission | None) -> Response:
        row = route.row
        require(row, "create")
        obj = bodies.decode(request, keeps_nulls=row.custom is not None)
        options = bodies.write_options(request, admission)
        bodies.check_kind(row, route.subresource, obj, request.body)
        if reviews.is_review(row):
            return whole(201, encode(reviews.answer(row, obj, self.access, self.access.subject(request.headers))))
        if route.subresource:
            version = subresources.create(self.verbs, route, obj, options)
            return whole(201, version.encoded)
        if route.name or (row.resource.namespaced and not route.namespace):
            raise failures.method_not_allowed()
        if options.validation == "Strict":
            bodies.check_repeated(row, request, options)
        bodies.check_fields(row, obj, options)
        if row.conversion is not None:
            obj = row.conversion.to_storage(obj)
        version = self.verbs.create(row, route.namespace, obj, options)
        return self._written(row, request, version, options, code=201)

    def _change(self, route: Route, request: Request, admission: Admission | None) -> Response:
        row = route.row
        require(row, "update" if request.method == "PUT" else "patch")
        options = bodies.write_options(request, admission)
        if not route.name:
            raise failures.method_not_allowed()
        if request.method == "PATCH" and request.headers.get("content-type", "").startswith(APPLY):
            return self._apply(route, request, options)
        change = self._replacement(route, request, options)
        version = subresources.change(self.verbs, route, change, options)
        if route.subresource == "scale":
            return whole(200, version.encoded)
        return self._written(row, request, version, options)

    def _apply(self, route: Route, request: Request, options: Options) -> Response:
        """Server-side apply: creates what is not there."""
        row = route.row
        config = bodies.apply_body(request, options)
        bodies.check_kind(row, route.subresource, config, request.body)
        bodies.check_fields(row, config, options)
        config.setdefault("metadata", {}).setdefault("name", route.name)
        writer = Writer(options.manager, row.resource.api_version, stamp(vtime.now()), route.subresource)
        change = applied(row, config, writer, options, force=bodies.is_true(request.param("force")))
        namespace, name = route.place
        if route.subresource or self.verbs.store.collection(row).get(namespace, name) is not None:
            version = subresources.change(self.verbs, route, change, options)
            return self._written(row, request, version, options)
        version = self.verbs.create(row, route.namespace, change({}), options)
        return self._written(row, request, version, options, code=201)

    def _replacement(self, route: Route, request: Request, options: Options) -> Change:
        """The change a PUT or PATCH asks for, its unknown fields reported."""
        row = route.row
        if request.method == "PATCH":
            kind = request.headers.get("content-type", "").partition(";")[0].strip()
            style = MEDIA_TYPES.get(kind)
            if style is None:
                raise failures.unknown_patch_type()
            apply = patched(row, style, bodies.patch_body(request), route.subresource)
        else:
            obj = bodies.decode(request, keeps_nulls=row.custom is not None)
            bodies.check_kind(row, route.subresource, obj, request.body)
            if row.conversion is not None and row.custom is None:
                obj = row.conversion.to_storage(obj)

            def apply(old: JsonObject) -> JsonObject:
                return obj

        if route.subresource == "scale":
            return apply

        has_nulls = b"null" in request.body and row.custom is None

        def checked(old: JsonObject) -> JsonObject:
            new = apply(old)
            if has_nulls:
                new = bodies.without_nulls(new)
            try:
                bodies.check_fields(row, new, options, old)
            except ApiError as error:
                why = error.message.partition(f"cannot be handled as a {row.kind}: ")[2]
                if request.method != "PATCH" or not why:
                    raise
                raise failures.unusable_patch(shown_patch(request, new), why) from error
            return new

        return checked

    def _written(self, row: Row, request: Request, version: Version, options: Options, code: int = 200) -> Response:
        query = dict(request.query)
        body = shape(row, request.headers.get("accept", ""), query.get("includeObject", "")).one(version)
        if not options.warnings:
            return whole(code, body)
        return whole(code, body, warning=", ".join(map(_warning, options.warnings)))

    # -- deletes

    def _delete(self, route: Route, request: Request, admission: Admission | None) -> Response:
        row = route.row
        options = bodies.write_options(request, admission)
        asked = bodies.delete_options(request, options)
        if not route.name:
            require(row, "deletecollection")
            return self._delete_all(route, request, asked, options)
        require(row, "delete")
        if route.subresource:
            raise failures.method_not_allowed()
        deleted = deletions.delete(self.verbs, row, route.place, asked, options)
        if row.returns_deleted or not deleted.is_gone:
            return self._written(row, request, deleted.version, options)
        return whole(200, encode(_success(row, deleted.version.object["metadata"])))

    def _delete_all(self, route: Route, request: Request, asked: DeleteOptions, options: Options) -> Response:
        row = route.row
        page = listing.page(self.verbs.store, row, route.namespace, bodies.list_options(dict(request.query)))
        if options.admission is not None:
            for version in page.versions:  # all are asked about before any is gone: a second try finds all of them
                deletions.pass_webhooks(row, version, asked, options)
        for version in page.versions:
            metadata = version.object["metadata"]
            place = (metadata.get("namespace", ""), metadata["name"])
            if self.verbs.store.collection(row).get(*place) is not None:
                deletions.delete(self.verbs, row, place, asked, options)
        return whole(200, shape(row, request.headers.get("accept", "")).many(page))


def shown_patch(request: Request, result: JsonObject) -> str:
    """What an unusable patch is blamed with: a strategic one itself, of the others the object they led to."""
    if request.headers.get("content-type", "").startswith("application/strategic"):
        return patches.printed(bodies.patch_body(request))
    return encode(result).decode()


def require(row: Row, verb: str) -> None:
    """405 unless the row has the verb."""
    if verb not in row.verbs:
        raise failures.method_not_allowed()


def failed(error: ApiError) -> Response:
    """A failure as a response; Retry-After only where the Status says so."""
    if error.code == 404 and not error.reason:
        return whole(404, f"{error.message}\n".encode(), "text/plain; charset=utf-8")
    seconds = (error.status.get("details") or {}).get("retryAfterSeconds")
    body = encode(error.status)
    return whole(error.code, body, retry_after=str(seconds)) if seconds else whole(error.code, body)


def _success(row: Row, metadata: JsonObject) -> JsonObject:
    details = {"name": metadata["name"]}
    if row.resource.group:
        details["group"] = row.resource.group
    details |= {"kind": row.resource.plural, "uid": metadata["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _warning(text: str) -> str:
    """As a Warning header has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


async def _only(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk
