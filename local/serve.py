"""``imageclust serve``: the API, the watched folder and the timers, until Ctrl-C."""

import errno
import fcntl
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from imageclust import keys
from imageclust.errors import InvalidInput, Permanent
from imageclust.models import JSON
from imageclust.steps.start_run import look_again, recover
from imageclust.wiring import Services, use
from waitress import wasyncore
from waitress.server import create_server

from functions import ingest, start_run
from local.gateway import Gateway, LocalContext
from local.home import failures_logged
from local.watcher import Watcher

logger = logging.getLogger(__name__)

PAUSE = 0.25
RETRY = timedelta(minutes=1)


@runtime_checkable
class Timers(Protocol):
    """What the local scheduler can do beside scheduling."""

    def fire_due(self, now: datetime, fire: Callable[[JSON], object]) -> int: ...


def serve(
    services: Services,
    *,
    home: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    stop: threading.Event | None = None,
    tell: Callable[[str], object] | None = None,
) -> None:
    """Serve until Ctrl-C, SIGTERM or ``stop``. Runs that were interrupted go on first.

    Raises InvalidInput when the port is taken, Permanent when another server has the folder.
    """
    stop, tell = stop or threading.Event(), tell or _tell
    use(services)
    with (
        _hold(home),
        _sockets(services, home, host, port) as sockets,
        _on_signals(stop),
        failures_logged(home),
    ):
        recover(services, now=datetime.now(UTC))
        work = threading.Thread(target=_work, args=(services, home, stop), name="watcher")
        work.start()
        tell(f"imageclust serves http://{_shown(host)}:{port}/ and watches {home / 'uploads'}")
        try:
            while not stop.is_set():
                wasyncore.loop(timeout=PAUSE, count=1, map=sockets)
            tell("stopping; runs that are under way go on when you start it again")
        finally:
            stop.set()
            work.join()


def _work(services: Services, home: Path, stop: threading.Event) -> None:
    """The thread that watches the folder and fires the timers."""
    watcher = Watcher(
        home / "uploads",
        bucket=services.settings.uploads_bucket,
        store=services.store,
        send=lambda event: ingest.handler(event, _context("ingest")),
        last_run=lambda collection: _last_run(services, collection),
    )
    timers = services.scheduler
    if not isinstance(timers, Timers):
        raise TypeError("serve needs the local scheduler")
    turns: list[Callable[[], object]] = [
        watcher.poll_if_due,
        lambda: timers.fire_due(datetime.now(UTC), lambda payload: _fire(services, payload)),
    ]
    while not stop.is_set():
        for turn in turns:
            try:
                turn()
            except Exception:  # the edge: one failure does not end the watch
                logger.exception("The watch goes on after a failure")
                time.sleep(PAUSE)
        stop.wait(PAUSE)


def _fire(services: Services, payload: JSON) -> None:
    try:
        start_run.handler(payload, _context("start_run"))
    except Exception:  # the edge: as Lambda does, try again later
        logger.exception("No run was started for '%s'", payload["collection"])
        look_again(services, payload["collection"], datetime.now(UTC) + RETRY)


def _last_run(services: Services, collection: str) -> float | None:
    """When the collection's newest run was started, in seconds since 1970."""
    newest = services.table.query(
        keys.collection_pk(collection), prefix=keys.run_sk(""), limit=1, newest_first=True
    ).items
    return datetime.fromisoformat(newest[0]["created"]).timestamp() if newest else None


@contextmanager
def _sockets(services: Services, home: Path, host: str, port: int) -> Iterator[dict[int, Any]]:
    gateway = Gateway(services, home=home, host=host)
    sockets: dict[int, Any] = {}
    try:
        server = create_server(
            gateway,
            sockets,
            host=host,
            port=port,
            threads=8,
            ident="imageclust",
            max_request_body_size=services.settings.max_upload_bytes + 65_536,
        )
    except (OSError, ValueError) as error:
        wasyncore.close_all(sockets)
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise InvalidInput(
                f"{_shown(host)}:{port} is in use by another program: choose one with --port"
            ) from error
        raise InvalidInput(f"cannot listen on {_shown(host)}:{port}: {error}") from error
    try:
        yield sockets
    finally:
        server.task_dispatcher.shutdown()
        wasyncore.close_all(sockets)


@contextmanager
def _hold(home: Path) -> Iterator[None]:
    """The state folder for one server; the system lets go of it when the process dies."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serve.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Permanent(f"another imageclust serves {home} already") from None
        yield


@contextmanager
def _on_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set ``stop``, also where a shell started us with Ctrl-C ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _context(function: str) -> LocalContext:
    return LocalContext(aws_request_id=f"local-{time.time_ns()}", function_name=function)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
