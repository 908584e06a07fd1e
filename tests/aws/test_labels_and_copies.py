"""Exemplars through Rekognition and confirmed copies, on the AWS adapters."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from imageclust import keys
from imageclust.models import parse_json_lines
from imageclust.steps import browse

from local.demo import FAMILIES
from tests.aws.conftest import Cloud, configure, run_to_end
from tests.conftest import jpeg
from tests.standins.fake_rekognition import FakeRekognition

EACH = 30
CONFIG = {"embedder": "builtin", "describer": "deterministic", "clusters": 2, "method": "kmeans"}


@pytest.fixture
def rekognition() -> FakeRekognition:
    return FakeRekognition(throttle_share=0.05)


def test_exemplars_ask_rekognition_for_a_few_and_a_copy_follows(
    cloud: Cloud, rekognition: FakeRekognition, make_photos: Callable[..., Path]
) -> None:
    services = cloud.services
    photos = make_photos(families=2, each=EACH)
    # With detail of its own: of one that repeats itself a smaller copy is not confirmed.
    first = FAMILIES["city"](np.random.default_rng(0), 384, 288)
    (photos / "large.jpg").write_bytes(jpeg(first))
    small = cv2.resize(first, (192, 144), interpolation=cv2.INTER_AREA)
    (photos / "small.jpg").write_bytes(jpeg(small))
    cloud.upload(photos, "holiday")
    configure(services, "holiday", {})
    item = run_to_end(cloud, {**CONFIG, "labels": "exemplars", "duplicates": "confirmed"})
    told = item["labels"]
    assert item["images"]["to_label"] == 0
    assert told["mode"] == "exemplars"
    assert told["labelled"] == rekognition.calls - rekognition.throttled <= 0.4 * 2 * EACH
    assert told["agreement"]["images"] > 0
    clusters = services.table.query(keys.run_pk(item["run_id"]), prefix="cluster#").items
    assert all(cluster["labels"] for cluster in clusters)

    file = services.table.get(keys.run_pk(item["run_id"]), keys.file_sk("duplicate", "small.jpg"))
    assert file is not None
    assert file["duplicate_of"] == "large.jpg"
    assert services.store.size(f"s3://data/exports/{item['run_id']}/similar.csv")


def test_flagged_pictures_are_marked_and_held_back(
    cloud: Cloud, rekognition: FakeRekognition, make_photos: Callable[..., Path]
) -> None:
    services = cloud.services
    photos = make_photos(families=2, each=5)
    for number in range(2):
        magenta = np.full((120, 160, 3), (250, 0, 240 + 10 * number), np.uint8)
        (photos / f"magenta {number}.jpg").write_bytes(jpeg(magenta))
    rekognition.unfit = lambda shown: shown.mean() > 150 and shown[..., 1].mean() < 20
    unfit = [path.read_bytes() for path in photos.glob("magenta*")]
    cloud.upload(photos, "holiday")
    configure(services, "holiday", {})
    asked = {"moderation": "on", "image_properties": "on", "labels": "full", "max_labels": 2}
    item = run_to_end(cloud, {**CONFIG, **asked, "captions": "all"})
    flagged = {hashlib.sha256(data).hexdigest() for data in unfit}

    assert item["labels"]["flagged"] == 2
    assert item["captions"]["wanted"] == 10, "nobody is asked about flagged pictures"
    assert item["counts"]["seen"] == item["counts"]["clustered"] == 12
    exports = f"s3://data/exports/{item['run_id']}/"
    rows = parse_json_lines(services.store.read(exports + "images.jsonl"))
    assert {row["image_id"] for row in rows if row.get("flagged") == ["Weapons"]} == flagged
    assert all(row["properties"]["Quality"]["Sharpness"] for row in rows)
    assert all(len(row["labels"]) <= 2 for row in rows)
    page = services.store.read(exports + "index.html").decode()
    assert all(row["image_id"] in page for row in rows if row["image_id"] not in flagged)
    assert not any(image_id in page for image_id in flagged)
    assert "2 files not shown here" in page
    clusters = services.table.query(keys.run_pk(item["run_id"]), prefix="cluster#").items
    # One cluster is of flagged pictures alone: it has a size and a name, and shows nothing.
    assert sorted(bool(cluster["exemplars"]) for cluster in clusters) == [False, True]
    assert not any(flagged & set(cluster["exemplars"]) for cluster in clusters)
    assert sum(cluster["size"] for cluster in clusters) == 12
    for image_id in flagged:
        shown = browse.get_image(services, image_id)
        assert shown.flagged == ["Weapons"]
        assert shown.caption is None
        assert shown.properties is not None
    shard = item["cost"]["stages"]["labels"]["units"]
    assert shard["rekognition_moderation"] == shard["rekognition_properties"] == 12
