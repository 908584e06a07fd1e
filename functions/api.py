"""The HTTP API, /v1: one function behind API Gateway, and the same one under `imageclust serve`.

Requests are validated here; everything else is in ``imageclust.steps``. Every failure becomes an
RFC 9457 problem in one place, ``_problem_of``.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import (
    RequestUnsupportedContentType,
    RequestValidationError,
)
from aws_lambda_powertools.event_handler.openapi.models import APIKey, APIKeyIn
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Path, Query
from imageclust.errors import AlreadyRunning, Conflict, InvalidInput, NotFound, Retryable
from imageclust.models import RunConfig
from imageclust.steps import browse, estimate_run, ingest, start_run
from imageclust.steps.browse import (
    ClusterView,
    CollectionView,
    FileStatus,
    FileView,
    ImageView,
    Listing,
    MemberView,
    RunView,
)
from imageclust.wiring import services
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

logger = logging.getLogger(__name__)

MOST_UPLOADS = 500
RETRY_AFTER_SECONDS = 5
JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def _settings(value: object) -> RunConfig:
    if isinstance(value, RunConfig):
        return value
    if not isinstance(value, Mapping):
        raise InvalidInput("config must be an object of settings")
    return RunConfig.from_json(value)


Settings = Annotated[RunConfig, BeforeValidator(_settings)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewCollection(_Request):
    """A collection to make; ``config`` are the settings of the runs that uploads start."""

    name: str = Field(description="1 to 40 lower-case letters, digits and hyphens")
    title: str | None = Field(default=None, max_length=200)
    config: Settings = Field(default_factory=RunConfig)


class UploadFile(_Request):
    """A file to upload: its name in the collection, media type, and size in bytes."""

    name: str = Field(min_length=1, description="relative path; folders are separated by /")
    content_type: str = Field(min_length=1)
    size: int = Field(ge=1)


class NewUploads(_Request):
    """Files to upload."""

    files: list[UploadFile] = Field(min_length=1, max_length=MOST_UPLOADS)


class NewRun(_Request):
    """A run to start; settings that are left out have their defaults."""

    config: Settings = Field(default_factory=RunConfig)


class NewEstimate(_Request):
    """What to estimate: a collection, or so many distinct images of which nothing is stored."""

    collection: str | None = Field(default=None, max_length=40)
    images: int | None = Field(default=None, ge=0, le=100_000_000)
    config: Settings = Field(default_factory=RunConfig)


class StageEstimate(BaseModel):
    """What one stage does and costs, in US dollars."""

    stage: str
    what: str
    usd: float


class RunEstimate(BaseModel):
    """What a run would cost, in US dollars. ``config`` is what stays within ``max_cost_usd``.

    ``stored`` counts what earlier runs left, which is taken off. ``units`` are quantities by stage
    and price figure. ``notes`` say what was assumed and what the cap takes away.
    """

    images: int
    clusters: int
    region: str
    as_of: str
    usd: float
    stages: list[StageEstimate]
    units: dict[str, dict[str, float]]
    notes: list[str]
    files: int | None
    stored: dict[str, int] | None
    config: dict[str, Any]


class Uploads(BaseModel):
    """Where to post each file, in order: multipart/form-data, ``fields`` first, ``file`` last."""

    uploads: list[ingest.Offer]


class Problem(BaseModel):
    """An RFC 9457 problem.

    ``errors`` says which parts of a request are wrong, ``running_run`` which run is in the way.
    """

    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None
    running_run: str | None = None


Name = Annotated[str, Path(max_length=40, description="a collection")]
RunId = Annotated[str, Path(max_length=80)]
ClusterId = Annotated[str, Path(max_length=80)]
ImageId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file")]
Limit = Annotated[int, Query(ge=1, le=1000, description="most items on a page")]
Cursor = Annotated[
    str | None, Query(min_length=1, max_length=4000, description="`next` of the page before")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="the same key starts one run only, however often it is sent",
    ),
]

app = APIGatewayRestResolver(enable_validation=True, response_validation_error_http_code=500)


@app.post("/v1/collections", status_code=201, summary="Make a collection", tags=["collections"])
def create_collection(collection: NewCollection) -> Response[CollectionView]:
    all_services = services()
    ingest.create_collection(
        all_services,
        collection.name,
        now=datetime.now(UTC),
        config=collection.config,
        title=collection.title,
    )
    made = browse.get_collection(all_services, collection.name)
    return _at(f"/v1/collections/{made.name}", made, HTTPStatus.CREATED)


@app.get("/v1/collections", summary="List the collections by name", tags=["collections"])
def list_collections(limit: Limit = 100, cursor: Cursor = None) -> Listing[CollectionView]:
    return browse.list_collections(services(), limit=limit, cursor=cursor)


@app.get(
    "/v1/collections/<name>",
    summary="Show a collection: the run it shows, the run under way, what uploads start",
    tags=["collections"],
)
def get_collection(name: Name) -> CollectionView:
    return browse.get_collection(services(), name)


@app.post(
    "/v1/collections/<name>/uploads",
    summary="Get a form for each file to upload; a run starts when uploads fall quiet",
    tags=["collections"],
)
def offer_uploads(name: Name, uploads: NewUploads) -> Uploads:
    files = [ingest.UploadRequest(f.name, f.content_type, f.size) for f in uploads.files]
    return Uploads(uploads=ingest.offer_uploads(services(), name, files))


@app.post(
    "/v1/collections/<name>/runs",
    status_code=202,
    summary="Start a run; one at a time for each collection",
    tags=["runs"],
)
def create_run(
    name: Name,
    run: Annotated[NewRun | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[RunView]:
    all_services = services()
    run_id = start_run.start_run(
        all_services,
        collection=name,
        config=run.config if run else RunConfig(),
        trigger="api",
        now=datetime.now(UTC),
        idempotency_key=idempotency_key,
    )
    started = browse.get_run(all_services, run_id)
    return _at(f"/v1/runs/{run_id}", started, HTTPStatus.ACCEPTED)


@app.post(
    "/v1/estimate",
    summary="What a run would cost, stage by stage; nothing is started",
    tags=["runs"],
)
def create_estimate(asked: NewEstimate) -> RunEstimate:
    found = estimate_run.estimate_run(
        services(), config=asked.config, images=asked.images, collection=asked.collection
    )
    return RunEstimate.model_validate(found.to_json())


@app.get(
    "/v1/collections/<name>/runs",
    summary="List the runs of a collection, newest first",
    tags=["runs"],
)
def list_runs(name: Name, limit: Limit = 50, cursor: Cursor = None) -> Listing[RunView]:
    return browse.list_runs(services(), name, limit=limit, cursor=cursor)


@app.get(
    "/v1/runs/<run_id>",
    summary="Show a run: state, progress, counts, exports, and for a failed one why and what to do",
    tags=["runs"],
)
def get_run(run_id: RunId) -> RunView:
    return browse.get_run(services(), run_id)


@app.post(
    "/v1/runs/<run_id>/cancel",
    summary="Stop a run; what it stored is kept and used again by the next one",
    tags=["runs"],
)
def cancel_run(run_id: RunId) -> RunView:
    all_services = services()
    start_run.cancel_run(all_services, run_id=run_id, now=datetime.now(UTC))
    return browse.get_run(all_services, run_id)


@app.get("/v1/runs/<run_id>/clusters", summary="List the clusters of a run", tags=["clusters"])
def list_clusters(run_id: RunId, limit: Limit = 100, cursor: Cursor = None) -> Listing[ClusterView]:
    return browse.list_clusters(services(), run_id, limit=limit, cursor=cursor)


@app.get("/v1/runs/<run_id>/clusters/<cluster_id>", summary="Show a cluster", tags=["clusters"])
def get_cluster(run_id: RunId, cluster_id: ClusterId) -> ClusterView:
    return browse.get_cluster(services(), run_id, cluster_id)


@app.get(
    "/v1/runs/<run_id>/clusters/<cluster_id>/members",
    summary="List the images of a cluster, the most typical first",
    tags=["clusters"],
)
def list_members(
    run_id: RunId, cluster_id: ClusterId, limit: Limit = 100, cursor: Cursor = None
) -> Listing[MemberView]:
    return browse.list_members(services(), run_id, cluster_id, limit=limit, cursor=cursor)


@app.get(
    "/v1/runs/<run_id>/outliers",
    summary="List the images of a run that no cluster holds",
    tags=["clusters"],
)
def list_outliers(run_id: RunId, limit: Limit = 100, cursor: Cursor = None) -> Listing[MemberView]:
    return browse.list_outliers(services(), run_id, limit=limit, cursor=cursor)


@app.get(
    "/v1/runs/<run_id>/files",
    summary="List the files of a run by what became of them; rejected ones with the reason",
    tags=["clusters"],
)
def list_files(
    run_id: RunId, status: FileStatus, limit: Limit = 100, cursor: Cursor = None
) -> Listing[FileView]:
    return browse.list_files(services(), run_id, status, limit=limit, cursor=cursor)


@app.get(
    "/v1/images/<image_id>",
    summary="Show an image: what is known of it, and where each run put it",
    tags=["images"],
)
def get_image(image_id: ImageId) -> ImageView:
    return browse.get_image(services(), image_id)


@app.get("/v1/openapi.json", include_in_schema=False)
def get_openapi() -> Response[str]:
    return Response(200, JSON_TYPE + "; charset=utf-8", json.dumps(document()))


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return app.resolve(event, context)


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document; ``docs/openapi.json`` is a copy of it."""
    key = {"name": "x-api-key", "in": APIKeyIn.header}
    made: dict[str, Any] = json.loads(
        app.get_openapi_json_schema(
            title="imageclust",
            version="1",
            openapi_version="3.1.0",
            description="Photos in, named clusters out. Lists come in pages: give `next` back as "
            "`cursor`. Failures are RFC 9457 problems; 503 ones may be tried again.",
            security_schemes={"apiKey": APIKey.model_validate(key)},
            security=[{"apiKey": []}],
        )
    )
    # The resolver documents its own error bodies; ours are problems, the same for every route.
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for operations in made["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            kept = {code: answers[code] for code in answers if code.startswith("2")}
            told = {"description": "A problem", "content": {PROBLEM_TYPE: problem}}
            operation["responses"] = {**kept, "default": told}
            operation["operationId"] = operation["operationId"].split("_v1_")[0]
    schemas = made["components"]["schemas"]
    for theirs in ("HTTPValidationError", "ValidationError", "ResponseValidationError"):
        schemas.pop(theirs, None)
    schemas["Problem"] = Problem.model_json_schema()
    return made


def _refuse_unknown(
    resolver: APIGatewayRestResolver, next_middleware: Callable[..., Response[Any]]
) -> Response[Any]:
    """A misspelt query parameter is an error and not a default."""
    route = resolver.context["_route"]
    if route.func.__module__ == __name__:
        known = sorted(str(field.alias) for field in route.dependant.query_params)
        given = resolver.current_event.resolved_query_string_parameters
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            told = f"the known ones are {', '.join(known)}" if known else "there are none"
            raise InvalidInput(f"Unknown query parameter '{unknown[:100]}'; {told}.")
    return next_middleware(resolver)


app.use(middlewares=[_refuse_unknown])


def _answer_failure(error: Exception) -> Response[str]:
    problem = _problem_of(error)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if problem.status == 503 else {}
    body = problem.model_dump_json(exclude_none=True)
    return Response(problem.status, PROBLEM_TYPE, body, headers)


app.exception_handler(Exception)(_answer_failure)


def _problem_of(error: Exception) -> Problem:
    """Every failure as HTTP: the only place that knows both."""
    match error:
        case RequestValidationError() if not _sent_a_form():
            return _invalid_request(error)
        case RequestValidationError() | RequestUnsupportedContentType():
            return _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON.")
        case UnicodeDecodeError():
            return _problem(HTTPStatus.BAD_REQUEST, "The body must be JSON in UTF-8.")
        case NotFoundError():
            return _problem(HTTPStatus.NOT_FOUND, "There is no such address or method here.")
        case NotFound():
            return _problem(HTTPStatus.NOT_FOUND, str(error))
        case InvalidInput():
            return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        case AlreadyRunning():
            return _problem(HTTPStatus.CONFLICT, str(error), running_run=error.run_id)
        case Conflict():
            return _problem(HTTPStatus.CONFLICT, str(error))
        case Retryable():
            logger.warning("Try again later: %s", error)
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "Busy just now; try again.")
    request = getattr(app.lambda_context, "aws_request_id", "")
    logger.error("Request %s failed", request, exc_info=error)
    detail = f"The request failed on our side; its id is {request}."
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _sent_a_form() -> bool:
    """What curl says of a body unless told; the resolver reads it as the fields of a form."""
    event = app.current_event
    sent = event.headers.get("content-type") or ""
    return bool(event.body) and sent.partition(";")[0].strip().lower() in _FORMS


def _invalid_request(error: RequestValidationError) -> Problem:
    """Where the request is wrong, without repeating what it said."""
    wrong = [
        {"where": ".".join(str(part) for part in found["loc"]), "what": str(found["msg"])}
        for found in error.errors()
    ]
    malformed = any(found["type"] == "json_invalid" for found in error.errors())
    status = HTTPStatus.BAD_REQUEST if malformed else HTTPStatus.UNPROCESSABLE_ENTITY
    detail = "; ".join(f"{part['where']}: {part['what']}" for part in wrong[:5])
    return _problem(status, detail, errors=wrong[:100])


def _problem(status: HTTPStatus, detail: str, **more: Any) -> Problem:
    return Problem(title=status.phrase, status=status.value, detail=detail, **more)


def _at(path: str, body: Any, status: HTTPStatus) -> Response[Any]:
    """An answer with the address of what was made; behind API Gateway the stage comes first."""
    event = app.current_event
    stage = event.request_context.path.removesuffix(event.path)
    return Response(status.value, JSON_TYPE, body, {"Location": stage + path})


if __name__ == "__main__":
    print(json.dumps(document(), indent=2))
