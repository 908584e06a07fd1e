"""Starting the batch inference jobs of a run: what a refusal and a busy service do."""

from collections.abc import Callable

import pytest
from imageclust import keys
from imageclust.errors import Conflict, InvalidInput, Throttled
from imageclust.steps.batch_jobs import start_jobs
from imageclust.wiring import Services


class Service:
    """Starts jobs by name, unless ``raises`` holds an error for one."""

    def __init__(self, **raises: Exception) -> None:
        self.raises = raises
        self.started: list[str] = []

    def starts(self, *names: str) -> dict[str, Callable[[], None]]:
        return {name: lambda name=name: self._start(name) for name in names}

    def _start(self, name: str) -> None:
        if name in self.raises:
            raise self.raises[name]
        self.started.append(name)


def start(services: Services, starts: dict[str, Callable[[], None]], token: str = "t") -> list[str]:
    return start_jobs(services, "EmbedInBatch", run_id="r", token=token, starts=starts)


def waiting(services: Services) -> list[tuple[str, list[str]]]:
    return [(i["token"], i["jobs"]) for i in services.table.query(keys.TOKENS_PK).items]


def test_one_token_waits_for_the_jobs_that_were_not_refused(services: Services) -> None:
    service = Service(b=InvalidInput("no such model"))
    assert start(services, service.starts("a", "b", "c")) == ["a", "c"] == service.started
    assert waiting(services) == [("t", ["a", "c"])]


def test_a_busy_service_is_asked_again_by_the_next_attempt(services: Services) -> None:
    service = Service(b=Throttled("later"))
    with pytest.raises(Throttled):
        start(services, service.starts("a", "b", "c"))
    service.raises.clear()
    assert start(services, service.starts("a", "b", "c"), "newer") == ["a", "b", "c"]
    assert waiting(services) == [("newer", ["a", "b", "c"])]


def test_without_any_job_the_state_fails(services: Services) -> None:
    with pytest.raises(Conflict):
        start(services, {})
    assert waiting(services) == []
    with pytest.raises(InvalidInput, match="first"):
        start(services, Service(a=InvalidInput("first"), b=InvalidInput("2")).starts("a", "b"))
