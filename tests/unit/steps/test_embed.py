"""Embed and Label: what becomes of an image that takes its function down."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imageclust import keys
from imageclust.errors import RejectedImage
from imageclust.labels import Label
from imageclust.models import JSON, ImageRef, RunConfig
from imageclust.ports import Labelled
from imageclust.steps import start_run as runs
from imageclust.steps.embed import EmbedBatch, embed_batch
from imageclust.steps.gather import gather, read_answers
from imageclust.steps.ingest import ensure_collection
from imageclust.steps.pictures import failure_as_rejection, store_labels
from imageclust.wiring import Services

from functions import embed
from local.runner import StateError
from local.workflows import LocalWorkflows
from tests.conftest import jpeg, picture


def payload(services: Services, *names: str, **more: Any) -> JSON:
    """What the Distributed Map hands to Embed for files of one collection."""
    items = []
    for number, name in enumerate(names):
        data = jpeg(picture(number))
        uri = keys.join_uri("uploads", f"c/{name}")
        services.store.write(uri, data)
        items.append({"image_id": hashlib.sha256(data).hexdigest(), "uri": uri, "size": len(data)})
    batch = {"run_id": "r", "collection": "c", "model": "builtin/default", "labeler": ""}
    return {"BatchInput": batch, "Items": items, **more}


CRASH = {"error": "Runtime.ExitError", "cause": "signal: segmentation fault"}


@pytest.mark.parametrize(
    ("error", "cause", "kind"),
    [
        ("Runtime.ExitError", "signal: killed", "crashed"),
        ("Lambda.Unknown", "", "crashed"),
        ("MemoryError", "", "crashed"),
        ("Lambda.Unknown", "Task timed out after 240.00 seconds", "timeout"),
        ("Sandbox.Timedout", "", "timeout"),
        ("States.Timeout", "", "timeout"),
    ],
)
def test_the_error_of_the_workflow_tells_the_kind(error: str, cause: str, kind: str) -> None:
    rejection = failure_as_rejection({"error": error, "cause": cause})
    assert rejection.kind == kind
    assert rejection.reason.endswith(".")


def test_an_image_that_took_the_function_down_is_rejected_and_stays_so(services: Services) -> None:
    event = payload(services, "a.jpg", failed=CRASH)
    said = embed.handler(event, None)
    assert said == {"shard": "", "embedded": 0, "rejected": 1, "reused": 0}
    image_id, key = event["Items"][0]["image_id"], services.open_embedder("builtin", "default").key
    found = gather(services, [image_id], key, run="r")
    assert "crashed" in found.rejected[image_id]
    del event["failed"]
    assert embed.handler(event, None)["reused"] == 1, "not tried again"


def test_a_stored_vector_outlives_a_late_rejection(services: Services) -> None:
    event = payload(services, "a.jpg")
    assert embed.handler(event, None)["embedded"] == 1
    assert embed.handler({**event, "failed": CRASH}, None)["reused"] == 1
    key = services.open_embedder("builtin", "default").key
    assert not gather(services, [event["Items"][0]["image_id"]], key, run="r").rejected


def test_a_function_that_cannot_embed_anything_blames_no_image(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = services.open_embedder("builtin", "default")

    def broken(_images: object) -> None:
        raise MemoryError

    monkeypatch.setattr(embedder, "embed", broken)
    event = payload(services, "a.jpg", failed=CRASH)
    with pytest.raises(MemoryError):
        embed.handler(event, None)
    pointer = (keys.vector_pk(embedder.key, event["Items"][0]["image_id"]), keys.POINTER_SK)
    assert not services.table.get_many([pointer])


def test_nothing_is_lost_when_one_image_kills_every_function_that_reads_it(
    services: Services,
    tmp_path: Path,
    make_photos: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = make_photos(families=2, each=5)
    (photos / "killer.jpg").write_bytes(jpeg(picture(77)))
    (tmp_path / "home" / "uploads" / "c").symlink_to(photos)
    handler = embed.handler

    def dying(event: JSON, context: object) -> JSON:
        if "failed" not in event and any("killer" in item["uri"] for item in event["Items"]):
            raise StateError("Runtime.ExitError", "signal: segmentation fault")
        return handler(event, context)

    monkeypatch.setattr(embed, "handler", dying)
    now = datetime.now(UTC)
    ensure_collection(services, "c", now=now)
    config = RunConfig(embedder="builtin", labels="off", clusters=2)
    run_id = runs.start_run(services, collection="c", config=config, trigger="cli", now=now)
    assert isinstance(services.workflows, LocalWorkflows)
    assert services.workflows.wait(run_id).status == "SUCCEEDED"
    run = services.table.get(keys.collection_pk("c"), keys.run_sk(run_id))
    assert run is not None
    assert run["counts"] == {
        "seen": 11, "clustered": 10, "outliers": 0, "duplicates": 0, "rejected": 1,
    }  # fmt: skip
    (file,) = services.table.query(keys.run_pk(run_id), prefix="file#rejected#").items
    assert file["path"] == "killer.jpg"
    assert "crashed" in file["reason"]


def test_a_fault_of_the_store_is_not_a_property_of_the_image(services: Services) -> None:
    batch = EmbedBatch.from_json(payload(services, "a.jpg", "b.jpg"))
    services.store.path(batch.images[1].uri).unlink()
    assert embed_batch(services, batch)["rejected"] == 1
    services.store.write(batch.images[1].uri, jpeg(picture(1)))
    assert embed_batch(services, batch) == {
        "shard": keys.shard_id([batch.images[1].image_id]),
        "embedded": 1, "rejected": 0, "reused": 1,
    }  # fmt: skip


def test_runs_that_embed_the_same_at_once_do_not_mix_their_vectors(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither finds anything stored; one of them cannot read a file that the other read."""
    batch = EmbedBatch.from_json(payload(services, "a.jpg", "b.jpg", "c.jpg"))
    monkeypatch.setattr(
        "imageclust.steps.embed.without_vectors", lambda _services, images, _key: list(images)
    )
    ids = [image.image_id for image in batch.images]
    key = services.open_embedder("builtin", "default").key
    assert embed_batch(services, batch)["embedded"] == 3
    before = gather(services, ids, key, run="r").vectors
    services.store.path(batch.images[0].uri).unlink()
    assert embed_batch(services, batch)["embedded"] == 2
    np.testing.assert_array_equal(gather(services, ids, key, run="r").vectors, before)


def test_runs_that_label_the_same_at_once_do_not_lose_labels(services: Services) -> None:
    """One of them is refused a picture that the other got labels for."""
    images = [ImageRef(name * 64, f"s3://uploads/c/{name}.jpg", 1) for name in "ab"]
    sand = Labelled(labels=(Label("Sand", 90.0),))
    for second in (sand, Labelled(error="throttled")):
        store_labels(services, "labeler", images, [None, None], [sand, second])
    assert set(read_answers(services, ["a" * 64, "b" * 64], "labeler").labels) == {
        "a" * 64,
        "b" * 64,
    }


def test_a_file_that_changed_since_the_plan_poisons_nothing(services: Services) -> None:
    batch = EmbedBatch.from_json(payload(services, "a.jpg", "b.jpg"))
    services.store.write(batch.images[1].uri, jpeg(picture(5)))
    assert embed_batch(services, batch)["rejected"] == 1
    key = services.open_embedder("builtin", "default").key
    found = gather(services, [image.image_id for image in batch.images], key, run="r")
    assert found.image_ids == (batch.images[0].image_id,)
    told = "the file changed while the run was reading it; run again to retry"
    assert found.rejected == {batch.images[1].image_id: told}
    services.store.write(batch.images[1].uri, jpeg(picture(1)))
    assert embed_batch(services, batch)["embedded"] == 1, "asked for again"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("removed", "the file was removed while the run was reading it; run again to retry"),
        ("locked", "cannot be read: Permission denied; run again to retry"),
        ("linked", "which does not exist; run again to retry"),
    ],
)
def test_a_file_that_cannot_be_read_any_more_has_the_reason_in_this_run_only(
    services: Services, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    batch = EmbedBatch.from_json(payload(services, "a.jpg", "b.jpg"))
    path = services.store.path(batch.images[1].uri)
    if fault == "locked":
        read = Path.read_bytes

        def refuse(self: Path) -> bytes:
            if self == path:
                raise PermissionError(13, "Permission denied")
            return read(self)

        monkeypatch.setattr(Path, "read_bytes", refuse)
    else:
        path.unlink()
        if fault == "linked":
            path.symlink_to("gone.jpg")
    assert embed_batch(services, batch)["rejected"] == 1
    monkeypatch.undo()
    key = services.open_embedder("builtin", "default").key
    ids = [image.image_id for image in batch.images]
    (reason,) = gather(services, ids, key, run="r").rejected.values()
    assert reason.endswith(told)
    (reason,) = gather(services, ids, key, run="another").rejected.values()
    assert reason == "it could not be embedded this time; run again to retry"
    path.unlink(missing_ok=True)
    services.store.write(batch.images[1].uri, jpeg(picture(1)))
    assert embed_batch(services, batch)["embedded"] == 1, "asked for again"
    assert not gather(services, ids, key, run="r").rejected


def test_a_picture_that_the_embedder_refuses_is_rejected(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = services.open_embedder("builtin", "default")
    embed_all = embedder.embed

    def refusing(images: list[Any]) -> Any:
        rows = embed_all(images)
        rows[1] = np.nan
        return rows

    monkeypatch.setattr(embedder, "embed", refusing)
    batch = EmbedBatch.from_json(payload(services, "a.jpg", "b.jpg", "c.jpg"))
    said = embed_batch(services, batch)
    assert (said["embedded"], said["rejected"]) == (2, 1)
    found = gather(services, [image.image_id for image in batch.images], embedder.key, run="r")
    assert list(found.rejected) == [batch.images[1].image_id]
    assert np.isfinite(found.vectors).all()


def test_vectors_are_float16_rows_with_a_sidecar(services: Services) -> None:
    batch = EmbedBatch.from_json(payload(services, "a.jpg", "b.jpg", "c.jpg"))
    shard = embed_batch(services, batch)["shard"]
    key = services.open_embedder("builtin", "default").key
    rows = np.load(services.store.path(keys.join_uri("data", keys.vector_key(key, shard))))
    assert rows.dtype == np.float16
    assert rows.shape[0] == 3
    sidecar = services.store.read(keys.join_uri("data", keys.sidecar_key(key, shard)))
    assert [json.loads(line)["row"] for line in sidecar.splitlines()] == [0, 1, 2]


def test_importing_the_handler_loads_nothing_heavy() -> None:
    code = (
        "import sys, functions.embed; "
        "print([m for m in ('onnxruntime', 'cv2', 'scipy', 'boto3', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_rejections_travel_between_processes() -> None:
    assert RejectedImage("crashed", "x").__reduce__()[1] == ("crashed", "x")
