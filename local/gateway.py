"""HTTP on this machine: API Gateway's part for the API function, and S3's part for files.

``/v1/…`` becomes the event that an API Gateway REST API sends, and goes to ``functions.api``.
``/objects/BUCKET/KEY`` takes the form posts and downloads that presigned S3 addresses stand for.
``/gallery/RUN/…`` shows the exported gallery, ``/`` what there is.

Only this machine's own pages are served: foreign Host names (DNS rebinding) and requests that other
sites make a browser send are refused, and nothing that was uploaded is ever shown as HTML.
"""

import base64
import ipaddress
import json
import logging
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, quote, urlsplit
from uuid import uuid4

from imageclust import keys
from imageclust.errors import Conflict, InvalidInput, NotFound, Permanent
from imageclust.models import JSON
from imageclust.steps.browse import results_of
from imageclust.steps.ingest import check_upload_name
from imageclust.wiring import Services
from jinja2 import Environment, PackageLoader, StrictUndefined

from functions import api

logger = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

LARGEST_CALL = 6_000_000
"""Bytes of a request to the API: Lambda takes no more."""

_CHUNK = 1 << 18
_LARGEST_FIELD = 16_384
_IMAGES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".heic": "image/heic",
    ".avif": "image/avif",
}
_EXPORTS = {
    **_IMAGES,
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv; charset=utf-8",
}
_SHOWN = ("thumbnails/", "exports/")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}\.webp")
_SAFETY = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy",
     "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
     "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
]  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """One HTTP response; ``body`` is sent piece by piece."""

    status: int
    body: Iterable[bytes] = ()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LocalContext:
    """What a handler may ask of its Lambda context."""

    aws_request_id: str
    function_name: str = "api"
    invoked_function_arn: str = "local"
    memory_limit_in_mb: int = 1024

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


class Gateway:
    """The WSGI application.

    Args:
        services: the local services; their settings name the buckets and the size limit.
        home: the state folder, where ``uploads`` lies.
        host: the address that the server listens on; requests may call it by this name.
    """

    def __init__(self, services: Services, *, home: Path, host: str) -> None:
        self._services = services
        self._uploads = home / "uploads"
        self._incoming = home / "incoming"
        self._names = {host.lower(), "localhost", socket.gethostname().lower()}
        # The resolver keeps the request in class attributes: one at a time, as in Lambda.
        self._one_at_a_time = threading.Lock()
        pages = Environment(
            loader=PackageLoader("local", "pages"), autoescape=True, undefined=StrictUndefined
        )
        self._start_page = pages.get_template("start.html.j2")

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            answer = self._answer(environ)
        except NotFound as error:
            answer = _problem(HTTPStatus.NOT_FOUND, str(error))
        except InvalidInput as error:
            answer = _problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except Conflict as error:
            answer = _problem(HTTPStatus.CONFLICT, str(error))
        except Exception:  # the edge: the server goes on
            logger.exception("A request failed")
            answer = _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "See the server's messages.")
        status = HTTPStatus(answer.status)
        start_response(f"{status.value} {status.phrase}", [*answer.headers, *_SAFETY])
        if environ["REQUEST_METHOD"] == "HEAD":
            if isinstance(answer.body, _Pieces):
                answer.body.close()
            return ()
        return answer.body

    def _answer(self, environ: Environ) -> Answer:
        method, path = environ["REQUEST_METHOD"], _decoded(environ["PATH_INFO"])
        refusal = self._refusal(environ, method)
        if refusal:
            return _problem(HTTPStatus.FORBIDDEN, refusal)
        if path == "/v1" or path.startswith("/v1/"):
            return self._call_api(environ, method, path)
        bucket, _, key = path.removeprefix("/objects/").partition("/")
        if path.startswith("/objects/") and method == "POST":
            return self._take_upload(environ, bucket, key)
        if method not in ("GET", "HEAD"):
            return _problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} has no meaning here.")
        if path == "/":
            return _page(self._start_page.render(collections=self._overview()))
        if path.startswith("/objects/"):
            return self._send_object(bucket, key)
        if path.startswith("/gallery/"):
            return self._send_gallery(path.removeprefix("/gallery/"))
        raise NotFound(f"There is nothing at {path}.")

    def _refusal(self, environ: Environ, method: str) -> str:
        """Why the request may not come from a page or program of this machine; else ''."""
        host = environ.get("HTTP_HOST", "")
        if not self._is_ours(host):
            return f"This server does not answer to the name '{host[:100]}'."
        if method in ("GET", "HEAD", "OPTIONS"):
            return ""
        origin = environ.get("HTTP_ORIGIN")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none"):
            return "Requests from other sites are refused."
        return ""

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        try:
            # A rebound name is a name: an address literal cannot be one.
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    # --- the API

    def _call_api(self, environ: Environ, method: str, path: str) -> Answer:
        body = environ["wsgi.input"].read(LARGEST_CALL + 1)
        if len(body) > LARGEST_CALL:
            return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is above 6 MB.")
        event = proxy_event(environ, method=method, path=path, body=body)
        context = LocalContext(aws_request_id=event["requestContext"]["requestId"])
        with self._one_at_a_time:
            result = api.handler(event, context)
        headers = [(name, str(value)) for name, value in (result.get("headers") or {}).items()]
        for name, values in (result.get("multiValueHeaders") or {}).items():
            headers += [(name, str(value)) for value in values]
        text = result.get("body") or ""
        data = base64.b64decode(text) if result.get("isBase64Encoded") else text.encode()
        return Answer(result["statusCode"], [data], (*headers, _length(len(data))))

    # --- files

    def _send_object(self, bucket: str, key: str) -> Answer:
        settings = self._services.settings
        if bucket == settings.data_bucket and key.startswith(_SHOWN):
            return self._send(keys.join_uri(bucket, key), _EXPORTS)
        if bucket == settings.uploads_bucket:
            return self._send(keys.join_uri(bucket, key), _IMAGES)
        raise NotFound(f"There is no object at /objects/{bucket}/{key}.")

    def _send_gallery(self, path: str) -> Answer:
        run_id, _, name = path.partition("/")
        if not name:
            return Answer(302, headers=(("Location", f"/gallery/{quote(run_id)}/index.html"),))
        folder, _, file = name.rpartition("/")
        key = keys.export_key(results_of(self._services, run_id), name)
        if folder == "thumbnails" and _IMAGE_ID.fullmatch(file):
            key = keys.thumbnail_key(file.removesuffix(".webp"))
        return self._send(keys.join_uri(self._services.settings.data_bucket, key), _EXPORTS)

    def _send(self, uri: str, types: dict[str, str]) -> Answer:
        """A file, with a type we vouch for or else as a download."""
        file = self._services.store.path(uri)
        kind = types.get(file.suffix.lower())
        stream = file.open("rb")
        headers = [_length(os.fstat(stream.fileno()).st_size)]
        headers.append(("Content-Type", kind or "application/octet-stream"))
        if kind is None:
            headers.append(("Content-Disposition", f"attachment; filename*=UTF-8''{_quoted(file)}"))
        return Answer(200, _Pieces(stream), tuple(headers))

    def _take_upload(self, environ: Environ, bucket: str, key: str) -> Answer:
        """One form post, as S3 takes it: fields, then the file, straight to disk."""
        settings = self._services.settings
        collection, _, name = key.partition("/")
        if bucket != settings.uploads_bucket or not name:
            raise NotFound(f"Nothing can be uploaded to /objects/{bucket}/{key}.")
        target = self._target(collection, check_upload_name(name))
        self._incoming.mkdir(exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=self._incoming)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                fields = receive_form(environ, sink, limit=settings.max_upload_bytes)
                sink.flush()
                os.fsync(sink.fileno())
            _check_form(fields, key, size=os.stat(partial).st_size)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, target)
        except OSError as error:
            raise Permanent(f"{name} could not be stored: {error.strerror}.") from error
        finally:
            Path(partial).unlink(missing_ok=True)
        return Answer(204)

    def _target(self, collection: str, name: str) -> Path:
        if self._services.table.get(keys.COLLECTIONS_PK, collection) is None:
            raise NotFound(f"There is no collection '{collection}'.")
        target = self._uploads.joinpath(collection, *name.split("/"))
        wanted = self._uploads.resolve() / target.parent.relative_to(self._uploads)
        if target.parent.resolve() != wanted:
            raise Conflict(
                f"'{collection}' shows a folder of yours, and nothing is written there: "
                "copy the file into that folder yourself."
            )
        if target.is_dir():
            raise Conflict(f"'{name}' is a folder of '{collection}'.")
        return target

    # --- the start page

    def _overview(self) -> list[JSON]:
        """Every collection with its newest runs."""
        table = self._services.table
        collections = []
        for item in table.query(keys.COLLECTIONS_PK).items:
            runs = table.query(
                keys.collection_pk(item["sk"]), prefix=keys.run_sk(""), limit=5, newest_first=True
            )
            collections.append(
                {
                    "name": item["sk"],
                    "title": item.get("title") or item["sk"],
                    "runs": [
                        {
                            "run_id": run["run_id"],
                            "state": run["state"],
                            "created": run.get("created", ""),
                            "counts": run.get("counts") or {},
                            "clusters": run.get("clusters"),
                            "cause": (run.get("failure") or {}).get("cause", ""),
                        }
                        for run in runs.items
                    ],
                }
            )
        return collections


def proxy_event(environ: Environ, *, method: str, path: str, body: bytes) -> JSON:
    """The event of an API Gateway REST API with proxy integration."""
    headers = {
        name[5:].replace("_", "-").title(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").title()] = environ[name]
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True):
        query.setdefault(name, []).append(value)
    try:
        text, encoded = body.decode(), False
    except UnicodeDecodeError:
        text, encoded = base64.b64encode(body).decode(), True
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "httpMethod": method,
            "identity": {"sourceIp": environ.get("REMOTE_ADDR", "")},
            "path": path,
            "protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
            "requestId": str(uuid4()),
            "resourcePath": "/{proxy+}",
            "stage": "local",
        },
        "body": text if body else None,
        "isBase64Encoded": encoded,
    }


def receive_form(environ: Environ, sink: IO[bytes], *, limit: int) -> dict[str, str]:
    """Read multipart/form-data; the part ``file`` goes to ``sink``, the others are returned.

    Memory stays flat. Raises InvalidInput for a form that is no such form, has no file, or whose
    file has more than ``limit`` bytes.
    """
    boundary = _boundary(environ.get("CONTENT_TYPE", ""))
    reader = _Reader(environ["wsgi.input"])
    mark = b"\r\n--" + boundary
    for _ in reader.until(mark):
        pass
    fields: dict[str, str] = {}
    found = False
    while b"".join(_at_most(reader.until(b"\r\n"), _LARGEST_FIELD)).strip() != b"--":
        head = b"".join(_at_most(reader.until(b"\r\n\r\n"), _LARGEST_FIELD))
        name = BytesHeaderParser().parsebytes(head).get_param("name", header="content-disposition")
        if name == "file" and not found:
            for piece in _at_most(reader.until(mark), limit):
                sink.write(piece)
            found = True
        else:
            value = b"".join(_at_most(reader.until(mark), _LARGEST_FIELD))
            fields[str(name)] = value.decode(errors="replace")
    if not found:
        raise InvalidInput("The form has no part named 'file'.")
    return fields


class _Reader:
    """A stream read up to marks, with a small buffer."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = b"\r\n"  # the first mark may open the body

    def until(self, mark: bytes) -> Iterator[bytes]:
        """The bytes before the next ``mark``, in pieces; the mark is consumed."""
        keep = len(mark) - 1
        while (at := self._buffer.find(mark)) < 0:
            piece, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
            if piece:
                yield piece
            chunk = self._stream.read(_CHUNK)
            if not chunk:
                raise InvalidInput("The form ends too early.")
            self._buffer += chunk
        piece, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
        yield piece


class _Pieces:
    """A file sent piece by piece and closed by the server."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._stream.read(_CHUNK):
            yield piece

    def close(self) -> None:
        self._stream.close()


def _at_most(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limit:
            raise InvalidInput(f"A part of the form is above the limit of {limit} bytes.")
        yield piece


def _boundary(content_type: str) -> bytes:
    message = BytesHeaderParser().parsebytes(b"Content-Type: " + content_type.encode("latin-1"))
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/form-data" or not boundary:
        raise InvalidInput("An upload is a form post: multipart/form-data with a boundary.")
    return boundary.encode("latin-1")


def _check_form(fields: dict[str, str], key: str, *, size: int) -> None:
    """The fields are the ones that the upload link gave out."""
    if fields.get("key") != key:
        raise InvalidInput("The field 'key' is missing or names another file.")
    most = fields.get("max-bytes", "")
    if not most.isdecimal():
        raise InvalidInput("The field 'max-bytes' is missing.")
    if not 1 <= size <= int(most):
        raise InvalidInput(f"The file has {size} bytes, but 1 to {most} were announced.")


def _problem(status: HTTPStatus, detail: str) -> Answer:
    told = {"title": status.phrase, "status": status.value, "detail": detail}
    body = json.dumps(told).encode()
    headers = (("Content-Type", api.PROBLEM_TYPE), _length(len(body)))
    return Answer(status.value, [body], headers)


def _page(text: str) -> Answer:
    body = text.encode()
    headers = (("Content-Type", "text/html; charset=utf-8"), _length(len(body)))
    return Answer(200, [body], (*headers, ("Cache-Control", "no-store")))


def _length(size: int) -> tuple[str, str]:
    return "Content-Length", str(size)


def _decoded(path: str) -> str:
    """WSGI's latin-1 text of a path as the UTF-8 that it is; other bytes as surrogates."""
    return path.encode("latin-1").decode(errors="surrogateescape")


def _quoted(file: Path) -> str:
    return quote(os.fsencode(file.name))
