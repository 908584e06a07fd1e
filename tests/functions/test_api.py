"""The API function with events as API Gateway sends them; HTTP is tested with the local server."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from imageclust import keys, wiring
from imageclust.errors import CorruptData, Throttled
from imageclust.models import JSON, RunConfig
from imageclust.steps.start_run import finish_run
from imageclust.wiring import Services, local_services

from functions import api
from local.gateway import LocalContext, proxy_event
from tests.functions.test_start_run import Executions

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
IMAGE = "ab" * 32


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = local_services(tmp_path, workflows=lambda _: Executions())
    wiring.use(made)
    yield made
    made.close()


def call(
    method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    """Status, body, and headers of one call; problems are checked to be problems."""
    path, _, query = target.partition("?")
    environ = {"QUERY_STRING": query, "CONTENT_TYPE": "application/json"}
    for name, value in (headers or {}).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    data = (
        body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    )
    event = proxy_event(environ, method=method, path=path, body=data)
    answer = api.handler(event, LocalContext(aws_request_id="request-1"))
    found = {name: values[0] for name, values in answer["multiValueHeaders"].items()}
    told = json.loads(answer["body"])
    if answer["statusCode"] >= 400:
        assert found["Content-Type"] == "application/problem+json"
        assert told["status"] == answer["statusCode"]
        assert told["title"]
        assert told["detail"]
    return answer["statusCode"], told, found


def make(name: str = "holiday", **more: Any) -> JSON:
    status, told, _ = call("POST", "/v1/collections", {"name": name, **more})
    assert status == 201, told
    return dict(told)


def test_an_estimate_starts_nothing(services: Services) -> None:
    make()
    asked = {"images": 10_000, "config": {"max_cost_usd": 2}}
    status, told, _ = call("POST", "/v1/estimate", asked)
    assert (status, told["usd"], told["region"]) == (200, 0, "local")
    paid = replace(services, settings=replace(services.settings, paid=True))
    wiring.use(paid)
    status, told, _ = call("POST", "/v1/estimate", asked)
    assert status == 200
    assert told["config"]["labels"] == "exemplars"
    assert 0 < told["usd"] <= 2
    assert sum(stage["usd"] for stage in told["stages"]) == pytest.approx(told["usd"], abs=1e-5)
    status, told, _ = call("POST", "/v1/estimate", {"collection": "holiday"})
    assert (status, told["files"], told["images"]) == (200, 0, 0)
    assert told["stored"] == {"vectors": 0, "labels": 0}
    assert call("POST", "/v1/estimate", {"collection": "nope"})[0] == 404
    assert call("POST", "/v1/estimate", {})[0] == 422
    assert call("POST", "/v1/estimate", {"images": -1})[0] == 422
    dear = {"images": 10_000_000, "config": {"max_cost_usd": 1}}
    assert "max_cost_usd" in call("POST", "/v1/estimate", dear)[1]["detail"]
    assert call("GET", "/v1/collections/holiday/runs")[1]["items"] == []


def test_a_collection_is_made_shown_and_listed(services: Services) -> None:
    status, told, headers = call("POST", "/v1/collections", {"name": "b", "title": "<b>"})
    assert (status, headers["Location"]) == (201, "/v1/collections/b")
    assert told["config"] == RunConfig().to_json()
    make("a", config={"clusters": 4})
    assert call("GET", "/v1/collections/a")[1]["config"]["clusters"] == 4
    status, told, _ = call("GET", "/v1/collections?limit=1")
    assert [item["name"] for item in told["items"]] == ["a"]
    status, told, _ = call("GET", f"/v1/collections?limit=1&cursor={told['next']}")
    assert ([item["name"] for item in told["items"]], told["next"]) == (["b"], None)


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "words"),
    [
        ("GET", "/v1/nothing", None, 404, "no such address"),
        ("DELETE", "/v1/collections/holiday", None, 404, "no such address"),
        ("GET", "/v1/collections/nobody", None, 404, "no collection 'nobody'"),
        ("GET", "/v1/collections/nobody/runs", None, 404, "no collection 'nobody'"),
        ("GET", "/v1/runs/what", None, 404, "no run 'what'"),
        ("GET", "/v1/runs/holiday-20260101T000000-00000000", None, 404, "no run"),
        ("POST", "/v1/runs/holiday-20260101T000000-00000000/cancel", None, 404, "no run"),
        ("GET", "/v1/runs/holiday-20260101T000000-00000000/clusters", None, 404, "no run"),
        ("GET", "/v1/images/" + "0" * 64, None, 404, "no image"),
        ("GET", "/v1/images/XYZ", None, 422, "image_id"),
        ("GET", "/v1/collections?limit=0", None, 422, "limit"),
        ("GET", "/v1/collections?limit=many", None, 422, "limit"),
        ("GET", "/v1/collections?page=2", None, 422, "'page'; the known ones are cursor, limit"),
        ("GET", "/v1/collections/holiday?x=1", None, 422, "there are none"),
        ("GET", "/v1/collections?limit=1&limit=2", None, 422, "query.limit"),
        ("GET", "/v1/collections?cursor=abc", None, 422, "cursor is broken"),
        ("GET", "/v1/runs/holiday-20260101T000000-00000000/files?status=x", None, 422, "status"),
        ("POST", "/v1/collections", b"{", 400, "JSON"),
        ("POST", "/v1/collections", b"\xff", 400, "UTF-8"),
        ("POST", "/v1/collections", {}, 422, "name"),
        ("POST", "/v1/collections", {"name": "Big One"}, 422, "cannot name a collection"),
        ("POST", "/v1/collections", {"name": "a", "colour": 1}, 422, "colour"),
        ("POST", "/v1/collections", {"name": "holiday"}, 409, "already"),
        ("POST", "/v1/collections", {"name": "a", "config": {"k": 3}}, 422, "unknown setting 'k'"),
        ("POST", "/v1/collections", {"name": "a", "config": [1]}, 422, "object"),
        ("POST", "/v1/collections/holiday/runs", {"config": {"min_size": 9, "max_size": 3}}, 422,
         "min_size 9 is above max_size 3"),
        ("POST", "/v1/collections/holiday/runs", {"config": {"clusters": "many"}}, 422, "clusters"),
        ("POST", "/v1/collections/nobody/runs", {}, 404, "no collection"),
        ("POST", "/v1/collections/holiday/uploads", {"files": []}, 422, "files"),
    ],
)  # fmt: skip
def test_bad_requests_get_a_clear_problem(
    *, services: Services, method: str, target: str, body: Any, status: int, words: str
) -> None:
    make()
    got, told, _ = call(method, target, body)
    assert (got, words in told["detail"]) == (status, True), told


@pytest.mark.parametrize("sent", ["text/csv", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_json_is_refused(services: Services, sent: str) -> None:
    event = proxy_event(
        {"CONTENT_TYPE": sent}, method="POST", path="/v1/collections", body=b'{"name": "x"}'
    )
    assert api.handler(event, LocalContext(aws_request_id="r"))["statusCode"] == 415


def test_uploads_are_offered_as_forms(services: Services) -> None:
    make()
    files = [
        {"name": "été/a b.jpg", "content_type": "image/jpeg", "size": 10},
        {"name": "-x.png", "content_type": "image/png", "size": 20},
    ]
    status, told, _ = call("POST", "/v1/collections/holiday/uploads", {"files": files})
    assert status == 200
    first, second = told["uploads"]
    assert first["name"] == "été/a b.jpg"
    assert first["fields"]["key"] == "holiday/été/a b.jpg"
    assert first["url"].endswith("/objects/uploads/holiday/%C3%A9t%C3%A9/a%20b.jpg")
    assert second["fields"]["max-bytes"] == "20"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../x.jpg"}, "relative path"),
        ({"name": "/x.jpg"}, "relative path"),
        ({"name": "a//x.jpg"}, "relative path"),
        ({"name": "a\\x.jpg"}, "backslash"),
        ({"name": "a\nx.jpg"}, "control"),
        ({"name": ".hidden/x.jpg"}, "hidden"),
        ({"name": "x" * 300}, "longer"),
        ({"name": "x/" * 500 + "x"}, "longer"),
        ({"content_type": "text/html"}, "only images"),
        ({"content_type": "image/svg+xml"}, "only images"),
        ({"size": 0}, "size"),
        ({"size": 268_435_457}, "a file may have 1 to 268435456"),
        ({"size": "7"}, "size"),
    ],
)
def test_uploads_that_cannot_be_are_refused(services: Services, change: JSON, words: str) -> None:
    make()
    file = {"name": "x.jpg", "content_type": "image/jpeg", "size": 1, **change}
    status, told, _ = call("POST", "/v1/collections/holiday/uploads", {"files": [file]})
    assert (status, words in told["detail"]) == (422, True), told


def test_a_run_is_started_once_for_each_key(services: Services) -> None:
    make()
    body = {"config": {"clusters": 3}}
    runs = "/v1/collections/holiday/runs"
    status, run, headers = call("POST", runs, body, {"Idempotency-Key": "k1"})
    assert (status, run["state"], run["trigger"]) == (202, "RUNNING", "api")
    assert run["config"]["clusters"] == 3
    assert headers["Location"] == f"/v1/runs/{run['run_id']}"
    assert call("POST", runs, body, {"Idempotency-Key": "k1"})[1] == run
    status, told, _ = call("POST", runs, body, {"Idempotency-Key": "k2"})
    assert (status, told["running_run"]) == (409, run["run_id"])
    status, told, _ = call("POST", runs, {}, {"Idempotency-Key": "k1"})
    assert (status, "another configuration" in told["detail"]) == (409, True)
    status, told, _ = call("POST", f"/v1/runs/{run['run_id']}/cancel")
    assert (status, told["state"]) == (200, "CANCELLED")
    assert call("POST", runs)[0] == 202  # a body is not needed


def test_the_location_keeps_the_stage_of_the_deployment(services: Services) -> None:
    body = json.dumps({"name": "a"}).encode()
    event = proxy_event({}, method="POST", path="/v1/collections", body=body)
    event["requestContext"] |= {"stage": "prod", "path": "/prod/v1/collections"}
    answer = api.handler(event, LocalContext(aws_request_id="r"))
    assert answer["multiValueHeaders"]["Location"] == ["/prod/v1/collections/a"]


def test_runs_are_listed_newest_first(services: Services) -> None:
    make()
    made = []
    for number in range(3):
        run = call("POST", "/v1/collections/holiday/runs", {}, {"Idempotency-Key": str(number)})[1]
        state = "FAILED" if number == 1 else "SUCCEEDED"
        failure = {"state": "PlanRun", "error": "E", "cause": "because", "advice": "do"}
        changes = {"failure": failure} if state == "FAILED" else {"counts": {"seen": 4}}
        finish_run(services, "holiday", run["run_id"], state=state, changes=changes)
        made.append(run["run_id"])
    told = call("GET", "/v1/collections/holiday/runs?limit=2")[1]
    more = call("GET", f"/v1/collections/holiday/runs?limit=2&cursor={told['next']}")[1]
    listed = [item["run_id"] for item in told["items"] + more["items"]]
    assert listed == sorted(made, reverse=True)
    assert call("GET", f"/v1/runs/{made[1]}")[1]["failure"]["advice"] == "do"
    assert call("GET", f"/v1/runs/{made[2]}")[1]["counts"] == {"seen": 4}
    assert call("GET", "/v1/collections/holiday")[1]["current_run"] == max(made[0], made[2])


def publish(services: Services, *, members: int) -> str:
    """A run with one cluster, in the table as PublishRun leaves it."""
    make()
    run_id = str(call("POST", "/v1/collections/holiday/runs", {})[1]["run_id"])
    rows: list[JSON] = [
        {
            "pk": keys.run_pk(run_id), "sk": keys.cluster_sk("c0001"), "cluster_id": "c0001",
            "title": "Beach", "phrase": "p", "description": "d", "size": members,
            "labels": ["Sand"], "exemplars": [IMAGE], "cohesion": 0.5,
        },
        {
            "pk": keys.run_pk(run_id), "sk": keys.file_sk("rejected", "bad\udcff.jpg"),
            "path": "bad\udcff.jpg", "status": "rejected", "reason": "it is empty",
        },
        {
            "pk": keys.member_pk(run_id, keys.OUTLIERS, 0), "sk": keys.member_sk(0),
            "image_id": IMAGE, "path": "odd.jpg", "rank": 0, "margin": 0.1, "status": "outlier",
        },
        {
            "pk": keys.image_pk(IMAGE), "sk": keys.IMAGE_SK, "image_id": IMAGE, "width": 8,
            "height": 6, "format": "JPEG", "labels": [], "facts": "f00d",
        },
        {
            "pk": keys.image_pk(IMAGE), "sk": keys.run_sk(run_id), "cluster_id": "c0001",
            "rank": 0, "status": "clustered",
        },
    ]  # fmt: skip
    rows += [
        {
            "pk": keys.member_pk(run_id, "c0001", rank), "sk": keys.member_sk(rank),
            "image_id": f"{rank:064x}", "path": f"{rank}.jpg", "rank": rank, "margin": 0.2,
            "status": "clustered",
        }
        for rank in range(members)
    ]  # fmt: skip
    services.table.put_many(rows)
    prefix = keys.export_key(run_id, "")
    uri = keys.join_uri(services.settings.data_bucket, prefix + "index.html")
    services.store.write(uri, b"<p>hello</p>")
    changes = {"exports": prefix, "clusters": 1, "seconds": {"PlanRun": 0.5}}
    finish_run(services, "holiday", run_id, state="SUCCEEDED", changes=changes)
    return run_id


def test_a_published_run_can_be_browsed(services: Services) -> None:
    run_id = publish(services, members=3)
    run = call("GET", f"/v1/runs/{run_id}")[1]
    assert run["state"] == "SUCCEEDED"
    assert run["exports"]["index.html"].endswith(f"/objects/data/exports/{run_id}/index.html")
    (cluster,) = call("GET", f"/v1/runs/{run_id}/clusters")[1]["items"]
    assert (cluster["title"], cluster["size"]) == ("Beach", 3)
    assert cluster["exemplars"][0]["thumbnail"].endswith(f"/thumbnails/ab/{IMAGE}.webp")
    assert call("GET", f"/v1/runs/{run_id}/clusters/c0001")[1] == cluster
    assert call("GET", f"/v1/runs/{run_id}/clusters/c0002")[0] == 404
    outliers = call("GET", f"/v1/runs/{run_id}/outliers")[1]["items"]
    assert [found["path"] for found in outliers] == ["odd.jpg"]
    (rejected,) = call("GET", f"/v1/runs/{run_id}/files?status=rejected")[1]["items"]
    assert (rejected["path"], rejected["reason"]) == ("bad\\xff.jpg", "it is empty")
    image = call("GET", f"/v1/images/{IMAGE}")[1]
    assert (image["width"], image["format"]) == (8, "JPEG")
    (place,) = image["places"]
    assert (place["run_id"], place["cluster_id"]) == (run_id, "c0001")
    assert place["collection"] == "holiday"


@pytest.mark.parametrize("limit", [1000, 999, 7])
def test_members_are_paged_over_their_partitions(
    services: Services, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MEMBERS_A_SHARD", 500)
    members = 1500 if limit > 7 else 20
    run_id = publish(services, members=members)
    target = f"/v1/runs/{run_id}/clusters/c0001/members?limit={limit}"
    page = call("GET", target)[1]
    ranks = [found["rank"] for found in page["items"]]
    while page["next"]:
        page = call("GET", f"{target}&cursor={page['next']}")[1]
        assert page["items"]
        ranks += [found["rank"] for found in page["items"]]
    assert ranks == list(range(members))
    assert call("GET", target + "&cursor=W10")[0] == 422


class _Failing:
    """A table that fails in a given way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status"),
    [(Throttled("key=secret"), 503), (CorruptData("key=secret"), 500), (OSError("secret"), 500)],
)
def test_failures_tell_nothing_of_the_inside(
    services: Services, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    wiring.use(replace(services, table=_Failing(error)))
    got, told, headers = call("GET", "/v1/collections")
    assert got == status
    assert "secret" not in json.dumps(told)
    assert ("Retry-After" in headers) == (status == 503)
    assert "secret" in caplog.text  # for whoever operates it
    assert ("request-1" in told["detail"]) == (status == 500)


def test_a_stored_item_that_makes_no_answer_is_our_fault(services: Services) -> None:
    make()
    services.table.update(keys.COLLECTIONS_PK, "holiday", {"title": {"not": "text"}})
    assert call("GET", "/v1/collections/holiday")[0] == 500


def test_the_document_is_the_committed_one(services: Services) -> None:
    """After a change: python -m functions.api > docs/openapi.json"""
    assert json.loads(DOCUMENT.read_text()) == api.document()
    assert call("GET", "/v1/openapi.json")[1] == api.document()


def test_the_manual_names_every_route() -> None:
    manual = (DOCUMENT.parent / "api.md").read_text()
    told = set(re.findall(r"^\| `(GET|POST) (/v1\S+)`", manual, re.MULTILINE))
    paths = api.document()["paths"]
    assert told == {(method.upper(), path) for path in paths for method in paths[path]}


def test_the_document_names_every_route_and_its_problems() -> None:
    document = api.document()
    assert document["openapi"].startswith("3.1")
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations) == 15
    problem = {"$ref": "#/components/schemas/Problem"}
    for op in operations:
        told = op["responses"]["default"]["content"]["application/problem+json"]
        assert told["schema"] == problem
        assert op["summary"][0].isupper()
    settings = document["components"]["schemas"]["RunConfig"]["properties"]
    assert settings["method"]["default"] == "auto"
