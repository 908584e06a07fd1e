import csv
import io
import json

import numpy as np
import pytest
from imageclust import keys
from imageclust.duplicates import Thresholds
from imageclust.labels import Label
from imageclust.models import RunConfig
from imageclust.steps.cluster_images import _label_weight
from imageclust.steps.copies import Copies, _thresholds, find_copies, similar_csv
from imageclust.steps.exemplar_labels import Chosen, choose_exemplars, spread_over
from imageclust.steps.gather import Gathered
from imageclust.wiring import Services


def gathered(n: int, *, d: int = 8, seed: int = 0) -> Gathered:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = tuple(f"{row:064x}" for row in range(n))
    fact = {"width": 9, "height": 9, "fingerprint": {"phash": "0" * 16, "sharpness": 0.5}}
    return Gathered(ids, {}, lambda: vectors, lambda: dict.fromkeys(ids, fact))


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        ({"label_weight": 0.3}, 0.3),
        ({"label_weight": 0.3, "labels": "exemplars"}, 0.3),
        ({"label_weight": 0.0}, 0.0),
        ({"labels": "exemplars"}, 0.0),
    ],
)
def test_weight_of_the_labels(given: dict[str, object], weight: float) -> None:
    assert _label_weight(RunConfig.from_json(given)) == weight


def test_images_own_labels_count_by_default() -> None:
    assert 0 < _label_weight(RunConfig()) < 0.5


def test_copies_survive_their_json() -> None:
    copies = Copies({"b": "a"}, (("a", "c", 0.91),), compared=3, cosine_floor=0.8)
    assert Copies.from_json(json.loads(json.dumps(copies.to_json()))) == copies


def test_copies_without_thumbnails_are_not_confirmed(services: Services) -> None:
    """Equal vectors and hashes, and no picture to look at: nothing is called a copy."""
    found = gathered(4)
    alike = np.repeat(found.vectors[:1], 4, axis=0)
    same = Gathered(found.image_ids, {}, lambda: alike, lambda: found.facts)
    assert (
        find_copies(services, same, "some-model", sizes=dict.fromkeys(found.image_ids, 1)).keepers
        == {}
    )


def test_copies_are_found_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gathered(3)
    first = find_copies(services, found, "some-model", sizes=dict.fromkeys(found.image_ids, 1))
    monkeypatch.setattr("imageclust.steps.copies._find", None)
    assert (
        find_copies(services, found, "some-model", sizes=dict.fromkeys(found.image_ids, 1)) == first
    )


def test_the_builtin_descriptor_has_thresholds_of_its_own() -> None:
    assert _thresholds(5000, "mobilenet") == Thresholds.for_size(5000)
    builtin = _thresholds(5000, "builtin-v2")
    assert 0.99 < builtin.cosine < builtin.similar < 1
    assert builtin.structure == Thresholds.for_size(5000).structure


def test_similar_csv_is_in_order_and_reads_back() -> None:
    paths = {"a": "z\r.jpg", "b": 'b,"q".jpg', "c": "c.jpg"}
    text = similar_csv([("a", "b", 0.8), ("c", "a", 0.9), ("c", "b", 0.8)], paths).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [
        ["path_a", "path_b", "score"],
        ["c.jpg", "z\r.jpg", "0.9"],
        ['b,"q".jpg', "c.jpg", "0.8"],
        ['b,"q".jpg', "z\r.jpg", "0.8"],
    ]


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_chosen_images_are_few_and_kept_apart(services: Services, n: int) -> None:
    found = gathered(n)
    chosen = choose_exemplars(services, found, "some-model", seed=0)
    assert chosen.exemplars
    assert not set(chosen.exemplars) & set(chosen.sample)
    assert set(chosen.image_ids) <= set(found.image_ids)
    assert chosen == choose_exemplars(services, found, "some-model", seed=0)


def test_no_more_than_some_hundred_are_chosen(services: Services) -> None:
    chosen = choose_exemplars(services, gathered(4000, d=4), "some-model", seed=0)
    assert len(chosen.exemplars) <= 360
    assert len(chosen.sample) == 40


def test_refused_images_neither_spread_nor_measure() -> None:
    found = gathered(10)
    ids = found.image_ids
    chosen = Chosen(exemplars=ids[:3], sample=ids[3:6])
    cat = (Label("Cat", 90.0),)
    spread = spread_over(found, chosen, {ids[0]: cat, ids[3]: cat})
    assert spread.own == {ids[0], ids[3]}
    assert spread.measured.images == 1
    assert spread.labels[ids[0]] == cat


def test_nothing_labelled_spreads_nothing() -> None:
    found = gathered(4)
    chosen = Chosen(exemplars=found.image_ids[:2], sample=found.image_ids[2:3])
    spread = spread_over(found, chosen, {})
    assert spread.labels == {}
    assert spread.to_json()["agreement"]["images"] == 0


def test_stored_documents_lie_under_the_prefix_of_the_state(services: Services) -> None:
    found = gathered(5)
    find_copies(services, found, "some-model", sizes=dict.fromkeys(found.image_ids, 1))
    choose_exemplars(services, found, "some-model", seed=0)
    bucket = services.settings.data_bucket
    written = [keys.split_uri(item.uri)[1] for item in services.store.list(bucket, "")]
    assert written
    assert all(key.startswith("clusters/") for key in written)
