"""Every state's handler over real local services answers in the shape of its contract."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imageclust import keys, wiring
from imageclust.clustering.methods import SharedWork
from imageclust.errors import Conflict, InvalidInput, NotFound
from imageclust.models import RunConfig
from imageclust.steps import publish_run, search_progress
from imageclust.steps import start_run as runs
from imageclust.steps.ingest import create_collection
from imageclust.wiring import Services

from functions import cluster, publish
from local.workflows import workflow_file
from tests.functions.test_api import call as call_api

CONTRACTS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((workflow_file().parent / "contracts").glob("*.json"))
}
CONFIG = {"embedder": "builtin", "clusters": 3}


def call(state: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Call the handler of a state; what it gets and gives must be spelled as in the contract."""
    contract = CONTRACTS[state]
    assert set(payload) == set(contract["input"]), state
    module = importlib.import_module(f"functions.{contract['function']}")
    answer: dict[str, Any] = module.handler(json.loads(json.dumps(payload)), None)
    assert set(json.loads(json.dumps(answer))) == set(contract["output"]), state
    return answer


@pytest.fixture
def request_of_a_run(
    services: Services, make_photos: Callable[..., Path], tmp_path: Path
) -> dict[str, Any]:
    """A run's item and claim as start_run leaves them, with the execution still to come."""
    photos = make_photos(families=3, each=5)
    (tmp_path / "home" / "uploads" / "rooms").symlink_to(photos)
    create_collection(services, "rooms", now=datetime.now(UTC))
    run_id = runs.run_id_for("rooms", datetime.now(UTC), "test")
    request = {
        "run_id": run_id,
        "collection": "rooms",
        "config": RunConfig.from_json(CONFIG).to_json(),
        "trigger": "api",
    }
    told = {**request, "created": "2026-11-22T09:00:00.000+00:00"}
    services.table.put(
        {
            "pk": keys.collection_pk("rooms"),
            "sk": keys.run_sk(run_id),
            "state": "RUNNING",
            **told,
        }
    )
    return request


def items_of(services: Services, address: dict[str, str]) -> list[Any]:
    data = services.store.read(keys.join_uri(address["bucket"], address["key"]))
    return [json.loads(line) for line in data.splitlines()]


def test_the_states_one_after_the_other(
    services: Services, request_of_a_run: dict[str, Any]
) -> None:
    request = request_of_a_run
    base = {name: request[name] for name in ("run_id", "collection", "config")}
    plan = call("PlanRun", request)
    assert plan["images"] == {"seen": 15, "distinct": 15, "to_embed": 15, "to_label": 0}
    batch = {
        "run_id": request["run_id"],
        "collection": "rooms",
        "model": plan["embed"]["model"],
        "labeler": plan["embed"]["labeler"],
    }
    items = items_of(services, plan["embed"]["manifest"])
    done = call("Embed", {"BatchInput": batch, "Items": items})
    assert done["embedded"] == 15
    again = call("Embed", {"BatchInput": batch, "Items": items})
    assert again["reused"] == 15
    assert call_api("GET", f"/v1/runs/{request['run_id']}")[1]["progress"] == {
        "done": ["PlanRun"], **plan["images"], "embedded": 15, "labelled": 0,
    }  # fmt: skip
    clusters = call("ClusterImages", {**base, "plan": plan})
    assert clusters["clusters"] == 3
    assert call("ClusterImages", {**base, "plan": plan}) == clusters
    drawn = call("DrawMap", {"run_id": request["run_id"], "clusters": clusters})
    assert drawn == {"method": "tsne", "why": ""}
    assert call("DrawMap", {"run_id": request["run_id"], "clusters": clusters}) == drawn
    names = call("DescribeClusters", {**base, "plan": plan, "clusters": clusters})
    assert call("DescribeClusters", {**base, "plan": plan, "clusters": clusters}) == names
    told = {
        **base,
        "plan": plan,
        "clusters": clusters,
        "map": drawn,
        "names": names,
        "seconds": {"PlanRun": 1.0},
        "written": {},
    }
    published = call("PublishRun", told)
    assert published["counts"]["clustered"] == 15
    assert call("PublishRun", told) == published, "a repeat after a crash publishes the same"


def before_publishing(services: Services, request: dict[str, Any]) -> dict[str, Any]:
    """Input of PublishRun, once every state before it is done."""
    told = {name: request[name] for name in ("run_id", "collection", "config")}
    told["plan"] = call("PlanRun", request)
    batch = {"run_id": request["run_id"], "collection": "rooms", "labeler": ""}
    batch["model"] = told["plan"]["embed"]["model"]
    items = items_of(services, told["plan"]["embed"]["manifest"])
    call("Embed", {"BatchInput": batch, "Items": items})
    told["clusters"] = call("ClusterImages", told)
    told["map"] = {"method": "pca", "why": ""}
    told["names"] = call("DescribeClusters", {k: v for k, v in told.items() if k != "map"})
    return told | {"seconds": {}, "written": {}}


@pytest.mark.parametrize("killed_in", [None, 0, 1])
def test_clustering_in_turns_gives_what_one_turn_gives(
    services: Services,
    request_of_a_run: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    killed_in: int | None,
) -> None:
    request = request_of_a_run
    base = {name: request[name] for name in ("run_id", "collection", "config")}
    base["config"] = {**base["config"], "method": "auto", "search_seconds": 3600}
    plan = call("PlanRun", {**request, "config": base["config"]})
    batch = {"run_id": request["run_id"], "collection": "rooms", "labeler": ""}
    batch["model"] = plan["embed"]["model"]
    call("Embed", {"BatchInput": batch, "Items": items_of(services, plan["embed"]["manifest"])})
    told = {**base, "plan": plan}

    def documents(answer: dict[str, Any]) -> dict[str, bytes]:
        found = list(services.store.list(answer["bucket"], "clusters/"))
        assert not [item for item in found if "/progress/" in item.uri], "nothing is left"
        return {item.uri: services.store.read(item.uri) for item in found}

    at_once = call("ClusterImages", told)
    whole = documents(at_once)
    for uri in whole:
        services.store.delete(uri)

    short = replace(services, settings=replace(services.settings, cluster_seconds=-1))
    wiring.use(short)
    if killed_in is not None:
        # Written as soon as it is known, then the process dies in the middle of a setting.
        monkeypatch.setattr(search_progress, "_EVERY_S", 0.0)
        run, runs = SharedWork.run, []

        def dying(self: SharedWork, method: str, settings: Any) -> Any:
            if len(runs) == killed_in:
                raise KeyboardInterrupt
            runs.append(method)
            return run(self, method, settings)

        monkeypatch.setattr(SharedWork, "run", dying)
        wiring.use(services)
        with pytest.raises(KeyboardInterrupt):
            cluster.handler(told, None)
        monkeypatch.setattr(SharedWork, "run", run)
        wiring.use(short)
    turns = []
    while not (answer := cluster.handler(told, None))["complete"]:
        turns.append((answer["tried"], answer["of"]))
    wiring.use(services)
    assert turns == [(done, 3) for done in range(1 + (killed_in or 0), 3)]
    assert answer == at_once
    assert documents(answer) == whole


def test_publishing_in_turns_gives_what_one_turn_gives(
    services: Services, request_of_a_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, run_id = before_publishing(services, request_of_a_run), request_of_a_run["run_id"]
    items = items_of(services, told["plan"]["embed"]["manifest"])

    def published() -> tuple[list[Any], dict[str, bytes], list[str]]:
        pks = [keys.run_pk(run_id), *(keys.member_pk(run_id, f"c000{n}", 0) for n in (1, 2, 3))]
        pks += [keys.image_pk(item["image_id"]) for item in items]
        exports = services.store.list("data", keys.export_key(run_id, ""))
        index = keys.index_name("rooms", told["plan"]["embedder"])
        near = services.index.query(index, vectors[0], top_k=100)
        return (
            [item for pk in pks for item in services.table.query(pk).items],
            {
                item.uri: services.store.read(item.uri)
                for item in exports
                if not item.uri.endswith(("run.json", "index.html"))  # they tell seconds
            },
            [match.id for match in near],
        )

    folder = services.store.path(f"s3://data/{told['clusters']['prefix']}embeddings.npy")
    vectors = np.load(folder)
    monkeypatch.setattr(publish_run, "_ITEMS", 7)
    monkeypatch.setattr(publish_run, "_VECTORS", 4)
    wiring.use(replace(services, settings=replace(services.settings, publish_seconds=-1)))
    turns = []
    while not (answer := publish.handler({**told, "written": [{}, *turns][-1]}, None))["complete"]:
        collection = services.table.get(keys.COLLECTIONS_PK, "rooms") or {}
        assert "current_run" not in collection, "readers see nothing of it yet"
        turns.append(answer["written"])
    assert [turn["items"] for turn in turns[:3]] == [7, 14, 21]
    assert [turn["vectors"] for turn in turns[-3:]] == [4, 8, 12]
    in_turns = published()
    before_the_update = {name: value for name, value in told.items() if name != "written"}
    assert publish.handler(before_the_update, None) == answer, "that workflow has no second turn"
    wiring.use(services)
    assert call("PublishRun", told) == answer
    assert published() == in_turns
    assert len(in_turns[2]) == 15
    assert in_turns[1][f"s3://data/exports/{run_id}/embeddings.npy"] == folder.read_bytes()


@pytest.mark.parametrize("ended", ["published", "cancelled"])
def test_a_late_call_removes_nothing_that_a_newer_run_indexed(
    services: Services, request_of_a_run: dict[str, Any], ended: str
) -> None:
    told = before_publishing(services, request_of_a_run)
    index = keys.index_name("rooms", told["plan"]["embedder"])
    vectors = np.load(services.store.path(f"s3://data/{told['clusters']['prefix']}embeddings.npy"))
    services.index.create(index, vectors.shape[1])
    services.index.put(index, ["gone"], vectors[:1], [{}])

    def indexed() -> set[str]:
        return {match.id for match in services.index.query(index, vectors[0], top_k=100)}

    if ended == "published":
        call("PublishRun", told)
        assert "gone" not in indexed(), "it left the collection before this run"
    else:
        runs.cancel_run(services, run_id=told["run_id"], now=datetime.now(UTC))
    services.index.put(index, ["newer"], vectors[:1], [{}])  # the collection was let go
    if ended == "published":
        call("PublishRun", told)
    else:
        with pytest.raises(Conflict):
            call("PublishRun", told)
    assert "newer" in indexed()


def test_an_image_that_lost_its_vector_shifts_no_other_in_the_index(
    services: Services, request_of_a_run: dict[str, Any]
) -> None:
    told = before_publishing(services, request_of_a_run)
    index = keys.index_name("rooms", told["plan"]["embedder"])
    lost = min(item["image_id"] for item in items_of(services, told["plan"]["embed"]["manifest"]))
    pointer = {"pk": keys.vector_pk(told["plan"]["embedder"], lost), "sk": keys.POINTER_SK}
    # Another run embedded the same file at the same time, and its function crashed.
    services.table.put({**pointer, "rejected": {"kind": "crashed", "reason": "It is damaged."}})
    with pytest.raises(Conflict, match=r"1 image .*It is damaged.*start the run again"):
        call("PublishRun", told)
    with pytest.raises(NotFound):
        services.index.query(index, np.ones(1, np.float32), top_k=1)


def test_on_one_machine_no_run_waits_for_a_batch_job(
    services: Services, request_of_a_run: dict[str, Any]
) -> None:
    request = request_of_a_run
    base = {name: request[name] for name in ("run_id", "collection", "config")}
    plan = call("PlanRun", request)
    batch = {"run_id": request["run_id"], "collection": "rooms", "labeler": ""}
    batch["model"] = plan["embed"]["model"]
    call("Embed", {"BatchInput": batch, "Items": items_of(services, plan["embed"]["manifest"])})
    base["config"] = {**base["config"], "describe": "batch"}
    clusters = call("ClusterImages", {**base, "plan": plan})
    assert clusters["batch"] == []


def test_a_failure_is_stored_with_advice(
    services: Services, request_of_a_run: dict[str, Any]
) -> None:
    request = request_of_a_run
    failure = CONTRACTS["RecordFailure"]["input"]["failure"]
    told = {"run_id": request["run_id"], "collection": "rooms", "failure": failure}
    answer = call("RecordFailure", {**told, "seconds": {"PlanRun": 1.0}})
    assert answer["state"] == "INVALID"
    item = services.table.get(keys.collection_pk("rooms"), keys.run_sk(request["run_id"]))
    assert item is not None
    assert item["failure"]["state"] == "ClusterImages"
    assert item["failure"]["cause"] == "123 images, but 3 clusters of at least 50 need 150"
    assert item["failure"]["advice"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {"clusters": "many"}}, "clusters must be a whole number"),
        ({"config": {"klusters": 3}}, "unknown setting 'klusters'"),
        ({"collection": "No Such Name"}, "cannot name a collection"),
    ],
)
def test_an_execution_with_bad_input_says_what_is_wrong(
    services: Services, changes: dict[str, Any], said: str
) -> None:
    from functions import plan_run

    request = {"run_id": "r", "collection": "rooms", "config": {}, **changes}
    with pytest.raises(InvalidInput, match=said):
        plan_run.handler(request, None)
