"""What a function brings from the model bucket: what it reads, and no more."""

from pathlib import Path

import pytest
from imageclust import keys
from imageclust.wiring import Services, _fetch_models


@pytest.mark.parametrize(
    ("name", "weights"), [("two", {"two.onnx"}), ("auto", {"one.onnx", "two.onnx"})]
)
def test_cards_labels_and_the_weights_asked_for(
    services: Services, tmp_path: Path, name: str, weights: set[str]
) -> None:
    bucket = services.settings.data_bucket
    for file in ("one.onnx", "one.json", "classes.txt", "labels.json",
                 "two.onnx", "two.json", "two.text.onnx", "two.tokenizer.json"):  # fmt: skip
        services.store.write(keys.join_uri(bucket, keys.MODELS_PREFIX + file), file.encode())
    folder = tmp_path / "models"
    _fetch_models(services.store, bucket, folder, name)
    common = {"one.json", "two.json", "classes.txt", "labels.json"}
    assert {path.name for path in folder.iterdir()} == common | weights
