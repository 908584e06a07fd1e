"""Batch inference jobs of a run: one task token waits for all of them, however each ends."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Literal

from imageclust import keys
from imageclust.errors import Conflict, ImageclustError, NotFound, Retryable
from imageclust.models import JSON, digest_of
from imageclust.steps.start_run import run_record
from imageclust.wiring import Services

logger = logging.getLogger(__name__)

_CREATION_SECONDS = 900  # between saving the token and the service knowing the job
_WAIT_SECONDS = 90_000  # the time-out of the states that wait for batch jobs


JobKind = Literal["describe", "caption", "embed"]
"""What jobs are for. Their names begin so, and the rule of their events knows them by that."""


def job_name(kind: JobKind, run_id: str, part: str | int) -> str:
    """Name of a run's batch job for one part of its work: 1 to 63 of ``[a-zA-Z0-9-]``."""
    return f"{kind}-{digest_of([run_id, part])[:24]}"


def start_jobs(
    services: Services,
    state: str,
    *,
    run_id: str,
    token: str,
    starts: Mapping[str, Callable[[], None]],
) -> list[str]:
    """Start the jobs that ``state`` waits for; returns the names of those that could be.

    The token is saved first: an answer may be quick. A job that is refused is left out as long as
    another one can be started; what it was to do is done on demand then. Names of jobs derive
    from the run's id, so a repeat starts nothing anew.

    Raises:
        Conflict: there is none to start.
        Retryable: the service is busy or away; the state is to try again.
        ImageclustError: every one was refused.
    """
    if not starts:
        raise Conflict("there is nothing left for a batch job")
    item: JSON = {
        "pk": keys.TOKENS_PK,
        "sk": f"{run_id}#{state}",
        "token": token,
        "run_id": run_id,
        "jobs": list(starts),
        "saved": time.time(),
    }
    services.table.put(item)
    refused: dict[str, ImageclustError] = {}
    for job, start in starts.items():
        try:
            start()
        except Retryable:
            raise
        except ImageclustError as error:
            logger.warning("Run %s, %s: %s", run_id, job, error)
            refused[job] = error
    started = [job for job in starts if job not in refused]
    if not started:
        raise next(iter(refused.values()))
    if refused:
        services.table.put({**item, "jobs": started})
    return started


def settle_batch_jobs(services: Services) -> JSON:
    """Return the token of every run whose batch jobs have all ended; by their event and the poll.

    Events come late, twice or never, so both callers do the same: look at every job that waits.
    The jobs of a run that is over (cancelled, failed, lost) are stopped.

    Raises:
        ImageclustError: some jobs could not be looked at; those of all other runs were.
    """
    settled = 0
    failed: list[ImageclustError] = []
    for item in services.table.query(keys.TOKENS_PK).items:
        try:
            settled += _settle(services, item)
        except ImageclustError as error:
            logger.warning("Run %s: %s", item["run_id"], error)
            failed.append(error)
            if time.time() - item["saved"] > _WAIT_SECONDS:  # nobody waits for it any more
                services.table.delete(keys.TOKENS_PK, item["sk"])
    if failed:
        raise failed[0]
    return {"settled": settled}


def _settle(services: Services, item: JSON) -> bool:
    """Return the token of one run, if its batch jobs have all ended."""
    fresh = time.time() - item["saved"] < _CREATION_SECONDS
    found = {job: services.state_of_job(job) for job in item["jobs"]}
    unknown = "running" if fresh else "unknown"
    states = {job: unknown if state == "unknown" else state for job, state in found.items()}
    if "running" in states.values():
        if _over(services, item["run_id"]):
            for job in item["jobs"]:
                if states[job] == "running":
                    services.stop_job(job)
        return False
    try:
        if "done" in states.values():
            services.workflows.succeed(item["token"], {"jobs": states})
        else:
            told = ", ".join(f"{job} as {state}" for job, state in states.items())
            services.workflows.fail(
                item["token"], "BatchJobFailed", f"the batch inference ended: {told}"
            )
    except NotFound:
        pass  # the state timed out, the run was cancelled or another caller was quicker
    services.table.delete(keys.TOKENS_PK, item["sk"])
    return True


def _over(services: Services, run_id: str) -> bool:
    run = run_record(services.table, run_id)
    return run is not None and run["state"] != "RUNNING"
