"""The local server over real HTTP: API, uploads, downloads, refusals, and the watched folder."""

import http.client
import io
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from imageclust import keys, wiring
from imageclust.errors import InvalidInput, Permanent
from imageclust.steps.ingest import create_collection
from imageclust.steps.start_run import run_id_for
from imageclust.wiring import Services

from local.gateway import receive_form
from local.home import open_services
from local.serve import serve
from tests.conftest import PATIENCE, jpeg, picture

BOUNDARY = "----a-boundary"


class Server:
    """A running server, and calls to it over HTTP."""

    def __init__(self, home: Path, port: int, services: Services) -> None:
        self.home, self.port, self.services = home, port, services

    def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes, dict[str, str]]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, target, data, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def json(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        status, data, _ = self.call(method, target, body, headers)
        return status, json.loads(data)

    def offer(self, name: str, size: int, collection: str = "holiday") -> dict[str, Any]:
        file = {"name": name, "content_type": "image/jpeg", "size": size}
        target = f"/v1/collections/{collection}/uploads"
        status, told = self.json("POST", target, {"files": [file]})
        assert status == 200, told
        return dict(told["uploads"][0])

    def upload(self, offer: dict[str, Any], data: bytes) -> tuple[int, bytes]:
        prefix = f"http://127.0.0.1:{self.port}"
        assert offer["url"].startswith(prefix)
        body, kind = form(offer["fields"], data)
        target = offer["url"].removeprefix(prefix)
        return self.call("POST", target, body, {"Content-Type": kind})[:2]


def form(fields: dict[str, str], data: bytes) -> tuple[bytes, str]:
    """multipart/form-data as browsers and clients write it."""
    lines = b""
    for name, value in fields.items():
        lines += (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        ).encode()
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return (
        lines + head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode(),
        f"multipart/form-data; boundary={BOUNDARY}",
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f"nothing after {PATIENCE} s")


def serve_somewhere(home: Path, stop: threading.Event) -> tuple[Server, threading.Thread]:
    """A server in a thread, at a port that nobody took between our look and its start."""
    while True:
        port = free_port()
        services = open_services(home, base_url=f"http://127.0.0.1:{port}")
        told: queue.SimpleQueue[str] = queue.SimpleQueue()
        thread = threading.Thread(target=_serve, args=(services, home, port, stop, told.put))
        thread.start()
        if "cannot listen" not in told.get(timeout=PATIENCE):
            return Server(home, port, services), thread
        thread.join()
        services.close()


def _serve(
    services: Services,
    home: Path,
    port: int,
    stop: threading.Event,
    tell: Callable[[str], object],
) -> None:
    try:
        serve(services, home=home, port=port, stop=stop, tell=tell)
    except InvalidInput as taken:
        tell(str(taken))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    stop = threading.Event()
    served, thread = serve_somewhere(tmp_path / "home", stop)
    try:
        yield served
    finally:
        stop.set()
        thread.join(PATIENCE)
        until(lambda: not [t for t in threading.enumerate() if re.search(r"-\d{8}T", t.name)])
        served.services.close()
    assert not thread.is_alive()


@pytest.fixture
def holiday(server: Server) -> Server:
    assert server.json("POST", "/v1/collections", {"name": "holiday"})[0] == 201
    return server


def test_the_api_answers_over_http(server: Server) -> None:
    status, told = server.json("POST", "/v1/collections", {"name": "holiday", "title": "Été"})
    assert (status, told["title"]) == (201, "Été")
    assert server.json("GET", "/v1/collections/holiday")[1]["title"] == "Été"
    assert server.json("GET", "/v1/collections?limit=x")[0] == 422
    status, _, headers = server.call("GET", "/v1/nothing")
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert headers["x-content-type-options"] == "nosniff"
    assert server.call("POST", "/v1/collections", b"x" * 7_000_000)[0] == 413
    assert server.call("GET", "/nothing")[0] == 404
    assert server.call("DELETE", "/")[0] == 405


def test_calls_may_come_at_the_same_time(holiday: Server) -> None:
    answers: list[int] = []

    def ask() -> None:
        for _ in range(10):
            answers.append(holiday.call("GET", "/v1/collections/holiday")[0])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 60


def test_an_upload_arrives_and_can_be_fetched(holiday: Server) -> None:
    data = os.urandom(1_000_000) + b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n\r\n"
    offer = holiday.offer("été/a b.jpg", len(data))
    assert holiday.upload(offer, data) == (204, b"")
    assert (holiday.home / "uploads/holiday/été/a b.jpg").read_bytes() == data
    assert list((holiday.home / "incoming").iterdir()) == []
    path = "/objects/uploads/holiday/%C3%A9t%C3%A9/a%20b.jpg"
    status, got, headers = holiday.call("GET", path)
    assert (status, got, headers["content-type"]) == (200, data, "image/jpeg")
    status, got, headers = holiday.call("HEAD", path)
    assert (status, got, headers["content-length"]) == (200, b"", str(len(data)))


def test_uploads_that_break_the_rules_leave_nothing(holiday: Server) -> None:
    offer = holiday.offer("x.jpg", 10)
    assert holiday.upload(offer, b"x" * 11)[0] == 422
    assert holiday.upload(offer, b"")[0] == 422
    other = {**offer, "fields": {**offer["fields"], "key": "holiday/y.jpg"}}
    assert holiday.upload(other, b"x")[0] == 422
    base = offer["url"].rpartition("/objects/")[0]
    for key in ("uploads/holiday/../../x.jpg", "uploads/holiday/%2e%2e/x.jpg", "data/models/x.jpg",
                "uploads/x.jpg", "uploads/holiday/.x.jpg", "uploads/nobody/x.jpg"):  # fmt: skip
        wrong = {"url": f"{base}/objects/{key}", "fields": {**offer["fields"], "key": key}}
        assert holiday.upload(wrong, b"x")[0] in (404, 422), key
    status, _, _ = holiday.call(
        "POST", "/objects/uploads/holiday/x.jpg", b"{}", {"Content-Type": "application/json"}
    )
    assert status == 422
    body, kind = form(offer["fields"], b"x" * 5)
    cut = holiday.call("POST", "/objects/uploads/holiday/x.jpg", body[:-20], {"Content-Type": kind})
    assert cut[0] == 422
    assert not (holiday.home / "uploads/holiday").exists()
    assert list((holiday.home / "incoming").iterdir()) == []


def test_nothing_is_written_into_a_folder_of_the_users(holiday: Server, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (holiday.home / "uploads/holiday").symlink_to(photos)
    status, told = holiday.upload(holiday.offer("x.jpg", 1), b"x")
    assert (status, b"nothing is written there" in told) == (409, True)
    assert list(photos.iterdir()) == []


def test_uploads_are_never_shown_as_pages(holiday: Server) -> None:
    for name in ("x.html", "x.svg", "x", "x.jpg.js"):
        holiday.upload(holiday.offer(name, 20), b"<script>1</script>")
        status, _, headers = holiday.call("GET", f"/objects/uploads/holiday/{name}")
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        assert headers["content-disposition"].startswith("attachment")
        assert headers["x-content-type-options"] == "nosniff"


def test_only_thumbnails_and_exports_of_the_data_are_shown(server: Server) -> None:
    store = server.services.store
    r = run_id_for("holiday", datetime.now(UTC), "r")
    item = {"pk": keys.collection_pk("holiday"), "sk": keys.run_sk(r)}
    server.services.table.put({**item, "run_id": r, "state": "SUCCEEDED"})
    store.write(f"s3://data/exports/{r}/index.html", b"<p>", content_type="text/html")
    store.write("s3://data/models/m.json", b"{}")
    store.write(f"s3://data/{keys.thumbnail_key('ab' * 32)}", b"RIFF")
    status, _, headers = server.call("GET", f"/gallery/{r}/index.html")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["content-security-policy"]
    status, body, headers = server.call("GET", f"/gallery/{r}/thumbnails/{'ab' * 32}.webp")
    assert (status, body, headers["content-type"]) == (200, b"RIFF", "image/webp")
    assert server.call("GET", f"/gallery/{r}")[2]["location"] == f"/gallery/{r}/index.html"
    assert server.call("GET", f"/objects/data/exports/{r}/index.html")[0] == 200
    for path in ("data/models/m.json", "data/exports/../models/m.json", "data/exports/none.html",
                 "data", "etc/passwd", "data/exports/%2e%2e/%2e%2e/imageclust.sqlite"):  # fmt: skip
        assert server.call("GET", f"/objects/{path}")[0] in (404, 422), path
    assert server.call("GET", "/gallery/../imageclust.sqlite")[0] in (404, 422)
    assert server.call("GET", f"/gallery/{r}/../../models/m.json")[0] in (404, 422)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "a@b"])
def test_foreign_host_names_are_refused(server: Server, host: str) -> None:
    assert server.call("GET", "/", headers={"Host": host})[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost:99", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_names_of_this_machine_are_answered(server: Server, host: str) -> None:
    assert server.call("GET", "/", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_cannot_make_a_browser_post(server: Server, headers: dict[str, str]) -> None:
    assert server.call("POST", "/v1/collections", {"name": "x"}, headers)[0] == 403
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert server.call("POST", "/v1/collections", {"name": "x"}, own)[0] == 201


def test_a_dropped_folder_becomes_a_run_and_a_gallery(server: Server, tmp_path: Path) -> None:
    """The whole way: files in uploads/NAME → quiet period → workflow → API and gallery."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    for family in range(2):
        for seed in range(4):
            pixels = picture(seed, family=family)
            (folder / f"{family} {seed}.jpg").write_bytes(jpeg(pixels))
    (folder / "notes.txt").write_text("not an image")
    # At once: between two files a slow machine could be quiet for long enough.
    folder.rename(server.home / "uploads" / "holiday")

    def finished() -> Any:
        status, told = server.json("GET", "/v1/collections/holiday/runs")
        over = status == 200 and [run for run in told["items"] if run["state"] != "RUNNING"]
        return over and over[0]

    run = until(finished)
    assert run["state"] == "SUCCEEDED", run["failure"]
    assert run["trigger"] == "upload"
    counts = run["counts"]
    assert (counts["seen"], counts["rejected"]) == (9, 1)
    run_id = run["run_id"]
    clusters = server.json("GET", f"/v1/runs/{run_id}/clusters")[1]["items"]
    assert sum(cluster["size"] for cluster in clusters) == counts["clustered"]
    target = f"/v1/runs/{run_id}/clusters/{clusters[0]['cluster_id']}/members"
    member = server.json("GET", target)[1]["items"][0]
    local = member["thumbnail"].removeprefix(f"http://127.0.0.1:{server.port}")
    assert server.call("GET", local)[2]["content-type"] == "image/webp"
    image = server.json("GET", f"/v1/images/{member['image_id']}")[1]
    assert image["places"][0]["run_id"] == run_id
    (rejected,) = server.json("GET", f"/v1/runs/{run_id}/files?status=rejected")[1]["items"]
    assert (rejected["path"], bool(rejected["reason"])) == ("notes.txt", True)
    page = server.call("GET", "/")[1].decode()
    assert f"/gallery/{run_id}/index.html" in page
    gallery = server.call("GET", f"/gallery/{run_id}/index.html")[1].decode()
    picture_of = re.search(r'src="(thumbnails/[0-9a-f]{64}\.webp)"', gallery)
    assert picture_of
    assert server.call("GET", f"/gallery/{run_id}/{picture_of[1]}")[0] == 200


def test_the_start_page_escapes_what_people_wrote(server: Server) -> None:
    assert b"No collections yet" in server.call("GET", "/")[1]
    server.json("POST", "/v1/collections", {"name": "x", "title": "<script>alert(1)</script>"})
    page = server.call("GET", "/")[1].decode()
    assert "&lt;script&gt;" in page
    assert "<script" not in page


def test_the_folder_and_the_port_are_held_by_one_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="another imageclust serves"):
        serve(server.services, home=server.home, port=free_port())
    with pytest.raises(InvalidInput, match=r"in use by another program: choose one with --port"):
        serve(server.services, home=tmp_path / "other", port=server.port)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_forms_are_read_in_any_pieces(chunk: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(chunk, size or chunk))

    data = b"\r\n" * 50 + b"\r\n--" + BOUNDARY.encode()[:-2] + os.urandom(500)
    body, kind = form({"key": "k", "max-bytes": "9"}, data)
    sink = io.BytesIO()
    environ = {"CONTENT_TYPE": kind, "wsgi.input": Slow(b"preamble\r\n" + body)}
    assert receive_form(environ, sink, limit=len(data)) == {"key": "k", "max-bytes": "9"}
    assert sink.getvalue() == data
    environ["wsgi.input"] = Slow(body)
    with pytest.raises(InvalidInput, match="above the limit"):
        receive_form(environ, io.BytesIO(), limit=len(data) - 1)


def test_ctrl_c_stops_cleanly_and_a_start_goes_on(tmp_path: Path) -> None:
    """A process of its own: the claimed run of a killed process is started at the next start."""
    home = tmp_path / "home"
    services = open_services(home)
    wiring.use(services)
    create_collection(services, "holiday", now=datetime.now(UTC))
    run_id = "holiday-20260101T000000-0123abcd"
    request = {"run_id": run_id, "collection": "holiday", "config": {}, "trigger": "api"}
    claim = {
        "running_run": run_id,
        "running_request": request,
        "running_since": "2026-01-01T00:00:00.000+00:00",
    }
    services.table.update(keys.COLLECTIONS_PK, "holiday", claim)
    services.close()
    code, told = 1, "cannot listen"
    while code and "cannot listen" in told:  # somebody took the port before us
        code, told, run = interrupted_server(home, services, run_id)
    assert run["state"] == "INVALID"  # it ran: there are no photos
    assert code == 0
    assert "http://127.0.0.1:" in told
    assert "Traceback" not in told


def interrupted_server(home: Path, services: Services, run_id: str) -> tuple[int, str, Any]:
    """Exit code and messages of ``serve``, which gets Ctrl-C once the run is over, and the run."""
    port = free_port()
    code = (
        "import sys; from local.cli import main; "
        f"sys.exit(main(['serve', '--home', {str(home)!r}, '--port', '{port}']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        server = Server(home, port, services)

        def over() -> Any:
            if process.poll() is not None:
                return {"state": "the server ended"}
            try:
                told = server.json("GET", f"/v1/runs/{run_id}")[1]
            except (OSError, ValueError, http.client.HTTPException):
                return None
            return told.get("state") not in (None, "RUNNING") and told

        try:
            run = until(over)
            process.send_signal(signal.SIGINT)
            ended = process.wait(PATIENCE)
        finally:
            process.kill()
        assert process.stderr
        return ended, process.stderr.read().decode(), run
