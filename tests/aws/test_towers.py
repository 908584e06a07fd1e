"""A model of pictures and words from the model bucket: its pictures embed, its text stays there."""

from pathlib import Path

import boto3
import numpy as np
import pytest
from imageclust import keys
from imageclust.embedding import ModelRegistry, open_embedder
from imageclust.errors import InvalidInput
from imageclust.images import decode_image
from imageclust.steps.search import search_image, search_text

from functions import start_run
from tests.aws.conftest import Cloud, configure
from tests.conftest import jpeg
from tests.standins.tiny_towers import make_towers

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


def test_the_image_tower_embeds_and_the_text_tower_is_left(cloud: Cloud, tmp_path: Path) -> None:
    given = tmp_path / "given"
    make_towers(given)
    for path in sorted(given.iterdir()):
        boto3.client("s3").upload_file(str(path), "data", f"{keys.MODELS_PREFIX}{path.name}")
    photos = tmp_path / "photos"
    rng = np.random.default_rng(1)
    for colour, value in COLOURS.items():
        (photos / colour).mkdir(parents=True)
        for number in range(6):
            noise = rng.integers(-15, 16, (40, 50, 3))
            drawn = np.clip(np.array(value) + noise, 0, 255).astype(np.uint8)
            (photos / colour / f"{number}.jpg").write_bytes(jpeg(drawn))
    configure(
        cloud.services,
        "colours",
        {
            "embedder": "auto",  # brings every model: what is left is left on purpose
            "labels": "off",
            "describer": "deterministic",
            "clusters": 3,
            "method": "kmeans",
        },
    )
    cloud.upload(photos, "colours")
    cloud.drain()
    run_id = start_run.handler(cloud.due()[0], None)["run_id"]

    item = cloud.execute(run_id)

    assert item["state"] == "SUCCEEDED"
    assert item["counts"]["clustered"] == 18
    embedder = open_embedder("tiny_towers", registry=ModelRegistry(given))
    assert item["models"]["embedder"] == embedder.key
    fetched = {path.name for path in (tmp_path / "imageclust-models").iterdir()}
    assert fetched == {"tiny_towers.json", "tiny_towers.onnx"}

    data = (photos / "green" / "2.jpg").read_bytes()
    hits = search_image(cloud.services, "colours", data, top=6)
    assert {Path(hit.path).parent.name for hit in hits} == {"green"}
    assert hits[0].path == "green/2.jpg"
    stored = cloud.services.index.query(
        keys.index_name("colours", embedder.key),
        embedder.embed([decode_image(data, min_side=embedder.min_side).pixels])[0],
        top_k=1,
    )
    # float16 in the shard
    assert stored[0].distance == pytest.approx(0, abs=1e-4)
    with pytest.raises(InvalidInput, match=r"tiny_towers\.text\.onnx .* missing"):
        search_text(cloud.services, "colours", "green", top=1)
