import json
import math
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imageclust.costs import (
    Cached,
    Place,
    Prices,
    cost_by_stage,
    default_prices,
    embeds_in_batch,
    estimate,
    estimate_table,
    expected_clusters,
    within_budget,
)
from imageclust.costs.estimate import STAGES, dollars, in_batch
from imageclust.errors import InvalidInput, OverBudget
from imageclust.models import RunConfig
from imageclust.settings import Settings

TITAN = "amazon.titan-embed-image-v1"
NOVA = "amazon.nova-2-multimodal-embeddings-v1:0"
GPU = Place(settings=Settings(gpu_enabled=True, gpu_from=1, gpu_images_a_job=2_000_000))


def stage(
    images: int, clusters: int, name: str, place: Place | None = None, **config: str
) -> float:
    found = estimate(images, RunConfig.from_json(config), clusters=clusters, place=place)
    return next(row.usd for row in found.stages if row.stage == name)


@pytest.mark.parametrize(
    ("name", "config", "place", "small", "large"),
    [
        ("labels", {}, None, 10.00, 1000),
        ("labels", {"labels": "exemplars"}, None, 0.40, 0.40),
        ("embedding", {"embedder": TITAN, "embed": "on_demand"}, None, 0.60, 60),
        ("embedding", {"embedder": NOVA, "embed": "on_demand"}, None, 0.60, 60),
        ("embedding", {"embedder": TITAN, "embed": "batch"}, None, 0.30, 30),
        ("embedding", {"embedder": NOVA, "embed": "batch"}, None, 0.30, 30),
        ("embedding", {"embedder": TITAN}, None, 0.60, 30),
        ("embedding", {}, None, 0.20, 20),
        ("embedding", {}, GPU, 0.14, 0.88),
        ("decoding", {}, None, 0.07, 7),
    ],
)
def test_the_table_of_what_a_run_costs(
    name: str, config: dict[str, str], place: Place | None, small: float, large: float
) -> None:
    assert stage(10_000, 200, name, place, **config) == pytest.approx(small, rel=0.02)
    assert stage(1_000_000, 5_000, name, place, **config) == pytest.approx(large, rel=0.02)


def test_a_run_embeds_in_batch_where_it_asks_or_where_that_saves_enough() -> None:
    prices, settings = default_prices(), Settings()
    auto, batch = RunConfig(embedder=TITAN), RunConfig(embedder=TITAN, embed="batch")
    from_here = math.ceil(1.0 / 0.00003)
    assert not embeds_in_batch(from_here - 1, auto, settings, prices=prices)
    assert embeds_in_batch(from_here, auto, settings, prices=prices)
    dear = prices.with_overrides({"titan_embed_image": 0.0006})
    assert embeds_in_batch(math.ceil(from_here / 10), auto, settings, prices=dear)
    assert embeds_in_batch(100, batch, settings, prices=prices)
    assert not embeds_in_batch(99, batch, settings, prices=prices)
    assert not embeds_in_batch(10**6, batch, Settings(bedrock_batch_minimum=0), prices=prices)
    assert not embeds_in_batch(10**6, RunConfig(embed="batch"), settings, prices=prices)
    never = RunConfig(embedder=TITAN, embed="on_demand")
    assert not embeds_in_batch(10**6, never, settings, prices=prices)


def test_a_cap_takes_batch_inference_before_anything_else() -> None:
    auto = RunConfig(embedder=TITAN, labels="off", describer="deterministic")
    cheap = estimate(10_000, replace(auto, embed="batch")).usd
    chosen, told = within_budget(10_000, replace(auto, max_cost_usd=cheap))
    assert chosen.embed == "batch"
    assert "may take hours" in told[0]
    with pytest.raises(OverBudget):
        within_budget(10_000, replace(auto, embed="on_demand", max_cost_usd=cheap))


def test_requests_and_naming_are_in_the_range_of_the_table() -> None:
    for images, clusters, requests, low, high in (
        (10_000, 200, 0.20, 0.06, 0.6),
        (1_000_000, 5_000, 19, 1.6, 15),
    ):
        rows = estimate(images, RunConfig(), clusters=clusters).stages
        moved = sum(r.usd for r in rows if r.stage in ("workflow", "table", "storage", "vectors"))
        assert moved == pytest.approx(requests, rel=0.25)
        named = stage(images, clusters, "naming", describe="on_demand")
        assert low <= named <= high


def test_labels_are_most_of_the_bill() -> None:
    found = estimate(10_000, RunConfig(), clusters=200)
    assert found.stages[0].usd / found.usd > 0.9


def test_what_is_stored_is_not_paid_again() -> None:
    found = estimate(100, RunConfig(), cached=Cached(vectors=100, labels=90), clusters=5)
    assert found.units["labels"] == {"rekognition_image": 10}
    assert found.units["embedding"] == {"lambda_gb_second": 0}
    nothing = estimate(100, RunConfig(), cached=Cached(500, 500), clusters=5)
    assert nothing.units["decoding"] == {"lambda_gb_second": 0}


def test_a_local_run_costs_nothing() -> None:
    found = estimate(50_000, RunConfig(), place=Place(local=True))
    assert found.usd == 0
    assert "local" in estimate_table(found)


def test_samples_and_expected_clusters() -> None:
    assert estimate(1000, RunConfig(sample=0.25)).images == 250
    assert expected_clusters(0, RunConfig()) == 0
    assert expected_clusters(10_000, RunConfig()) == 200
    assert expected_clusters(10, RunConfig(clusters=45)) == 10
    assert expected_clusters(1000, RunConfig(target_size=50)) == 20
    assert expected_clusters(10_000, RunConfig(min_size=100)) == 100
    assert expected_clusters(10_000, RunConfig(max_size=20)) == 500


def test_batch_costs_half() -> None:
    batch = stage(10_000, 200, "naming", describe="batch")
    assert stage(10_000, 200, "naming", describe="on_demand") == pytest.approx(2 * batch)
    assert stage(10_000, 200, "naming") == batch
    assert not in_batch(99, RunConfig(), Settings())
    assert not in_batch(200, RunConfig(), Settings(bedrock_batch_minimum=0))
    assert not in_batch(200, RunConfig(describer="deterministic"), Settings())


def test_a_model_without_a_price_takes_the_dearest_and_says_so() -> None:
    found = estimate(100, RunConfig(describer="some.new-model-v1:0"), clusters=10)
    assert any("some.new-model" in note for note in found.notes)
    assert "claude-sonnet-4" in found.stages[-1].what
    nova = estimate(100, RunConfig(describer="amazon.nova-micro-v1:0"), clusters=10)
    assert nova.stages[-1].usd < found.stages[-1].usd / 10


def test_several_describers_are_paid_each() -> None:
    both = stage(10_000, 200, "naming", describer="auto, amazon.nova-micro-v1:0")
    one = stage(10_000, 200, "naming")
    other = stage(10_000, 200, "naming", describer="amazon.nova-micro-v1:0")
    assert both == pytest.approx(one + other)
    plain = stage(10_000, 200, "naming", describer="auto, deterministic")
    assert plain == pytest.approx(one)
    config = RunConfig(
        labels="off", describer="auto, deterministic", descriptions_by="auto", max_cost_usd=0.5
    )
    cheaper, _ = within_budget(10_000, config, clusters=400)
    assert cheaper.describers == ("deterministic",)


def test_a_local_labeler_is_paid_as_compute() -> None:
    found = estimate(1000, RunConfig(labeler="mobilenet"), clusters=10)
    assert "rekognition_image" not in found.units["labels"]
    assert estimate(1000, RunConfig(labels="off"), clusters=10).units["labels"] == {}


def test_units_used_to_cost_by_stage() -> None:
    found = estimate(2000, RunConfig())
    stored = json.loads(json.dumps(found.to_json()))
    assert sum(cost_by_stage(stored["units"]).values()) == pytest.approx(found.usd)
    assert set(stored["units"]) == set(STAGES)
    assert cost_by_stage({"labels": {"rekognition_image": 7}})["labels"] == pytest.approx(0.007)
    with pytest.raises(InvalidInput, match="no price 'magic'"):
        cost_by_stage({"labels": {"magic": 1}})


def test_every_figure_has_a_source_and_a_date() -> None:
    data = json.loads(files("imageclust.costs").joinpath("prices.json").read_text("utf-8"))
    for figure in data["figures"].values():
        assert figure["source"]
        assert figure["per"]
        assert figure["checked"] <= data["as_of"]
    assert default_prices().as_of == data["as_of"]


def test_prices_can_be_overridden_and_differ_by_region() -> None:
    cheap = default_prices().with_overrides({"rekognition_image": 0.0005})
    found = estimate(1000, RunConfig(), clusters=5, place=Place(prices=cheap))
    assert found.stages[0].usd == pytest.approx(0.5)
    assert cheap.sources["rekognition_image"] == "set by you"
    dear = replace(default_prices(), regional={"eu-x-1": {"rekognition_image": 0.002}})
    place = Place(region="eu-x-1", prices=dear)
    assert estimate(1000, RunConfig(), clusters=5, place=place).stages[0].usd == pytest.approx(2)
    unknown = estimate(1000, RunConfig(), place=Place(region="mars-1"))
    assert any("mars-1" in note for note in unknown.notes)
    with pytest.raises(InvalidInput, match="no price 'gold'"):
        default_prices().with_overrides({"gold": 1})
    with pytest.raises(InvalidInput, match="US dollars"):
        default_prices().with_overrides({"s3_put": -1})
    with pytest.raises(InvalidInput, match="price file"):
        Prices.from_json({"as_of": "2026-01-01"})


def test_the_table_for_people() -> None:
    text = estimate_table(estimate(10_000, RunConfig()))
    lines = text.splitlines()
    assert lines[0] == "10,000 images, about 200 clusters, us-east-1"
    assert lines[2].split() == ["labels", "10,000", "images,", "Rekognition", "$10.00"]
    assert any(line.startswith("total") for line in lines)
    assert "List prices of" in text
    assert max(map(len, lines)) <= 100
    assert [dollars(x) for x in (0, 0.004, 0.00001, 1234.5)] == [
        "$0.00", "$0.0040", "< $0.0001", "$1,234.50",
    ]  # fmt: skip


def test_counts_below_zero_are_refused() -> None:
    with pytest.raises(InvalidInput, match="0 or more"):
        estimate(-1, RunConfig())
    assert estimate(0, RunConfig()).clusters == 0


# The cap


def test_no_cap_changes_nothing() -> None:
    config = RunConfig()
    assert within_budget(10_000, config) == (config, ())
    rich = RunConfig(max_cost_usd=100)
    assert within_budget(10_000, rich) == (rich, ())


def test_what_is_given_up_and_in_which_order() -> None:
    def after(cap: float) -> tuple[str, str]:
        config, _ = within_budget(10_000, RunConfig(max_cost_usd=cap), clusters=200)
        return config.labels, config.describer

    assert after(11) == ("full", "auto")
    assert after(3) == ("exemplars", "auto")
    assert after(0.9) == ("exemplars", "deterministic")
    assert after(0.6) == ("off", "deterministic")


def test_captions_are_given_up_first() -> None:
    def after(cap: float) -> tuple[str, str]:
        config = RunConfig(max_cost_usd=cap, captions="all")
        chosen, _ = within_budget(10_000, config, clusters=200)
        return chosen.captions, chosen.labels

    assert after(15) == ("all", "full")
    assert after(12) == ("exemplars", "full")
    assert after(11) == ("off", "full")
    assert after(3) == ("off", "exemplars")


def test_what_is_given_up_altogether_is_told_once() -> None:
    config = RunConfig(max_cost_usd=0.6, captions="all")
    told = [note.partition(",")[0] for note in within_budget(10_000, config, clusters=200)[1]]
    assert told == [
        "no captions are given",
        "no labels are given",
        "clusters are named without a language model",
    ]


def test_captions_are_paid_by_image_and_those_stored_are_not() -> None:
    def naming(captions: str, stored: int = 0, **more: str) -> float:
        config = RunConfig.from_json({"captions": captions, **more})
        found = estimate(10_000, config, cached=Cached(captions=stored), clusters=200)
        return found.stages[-1].usd

    names = naming("off")
    assert naming("all") - names == pytest.approx(3.85)
    assert naming("all", describe="on_demand") == pytest.approx(2 * naming("all"))
    assert naming("exemplars") - names == pytest.approx(3.85 * 0.16)
    assert naming("all", stored=10_000) == names
    assert naming("all", describer="deterministic") == 0


def test_a_step_that_saves_nothing_is_not_taken() -> None:
    config = RunConfig(max_cost_usd=0.6, labels="off")
    chosen, notes = within_budget(10_000, config, clusters=200)
    assert chosen == replace(config, describer="deterministic")
    assert len(notes) == 1
    assert "$0.60" in notes[0]
    cached = Cached(labels=10_000)
    full, _ = within_budget(10_000, RunConfig(max_cost_usd=0.7), cached=cached, clusters=200)
    assert full.labels == "full"


def test_too_little_money_is_refused_with_the_lowest_cost() -> None:
    with pytest.raises(OverBudget, match=r"at least; max_cost_usd is \$0.10"):
        within_budget(10_000, RunConfig(max_cost_usd=0.1))


def test_a_local_run_fits_any_cap() -> None:
    config = RunConfig(max_cost_usd=0)
    assert within_budget(10_000, config, place=Place(local=True)) == (config, ())


@given(
    st.integers(0, 10**6),
    st.floats(0, 2000),
    st.sampled_from(["full", "exemplars", "off"]),
    st.integers(0, 10**6),
)
def test_the_run_stays_under_the_cap_or_is_refused(
    images: int, cap: float, labels: str, known: int
) -> None:
    config = RunConfig.from_json({"max_cost_usd": cap, "labels": labels})
    cached = Cached(vectors=known, labels=known)
    try:
        chosen, notes = within_budget(images, config, cached=cached)
    except OverBudget:
        bare = replace(config, labels="off", describer="deterministic")
        assert estimate(images, bare, cached=cached).usd > cap
        return
    assert estimate(images, chosen, cached=cached).usd <= cap
    assert bool(notes) == (chosen != config)


def test_the_cost_page_states_what_the_estimate_says() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "cost.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if "| $" in line]
    stated = {row[0]: [float(x.strip("$").replace(",", "")) for x in row[1:]] for row in rows}
    moved = ("workflow", "table", "storage", "vectors")
    titan = {"embedder": "amazon.titan-embed-image-v1"}
    asked: dict[str, Callable[[int, int], float]] = {
        "Rekognition labels on every image": lambda n, k: stage(n, k, "labels"),
        "Rekognition labels on exemplars": (lambda n, k: stage(n, k, "labels", labels="exemplars")),
        "embedding with Titan or Nova on demand": (
            lambda n, k: stage(n, k, "embedding", None, **titan, embed="on_demand")
        ),
        "embedding with Titan or Nova in batch inference": (
            lambda n, k: stage(n, k, "embedding", None, **titan, embed="batch")
        ),
        "embedding with an ONNX model on Lambda": lambda n, k: stage(n, k, "embedding"),
        "embedding with an ONNX model on one GPU": lambda n, k: stage(n, k, "embedding", GPU),
        "decoding and thumbnails": lambda n, k: stage(n, k, "decoding"),
        "workflow, table, storage and search index": (
            lambda n, k: sum(stage(n, k, name) for name in moved)
        ),
        "naming with Claude Haiku 4.5 on demand": (
            lambda n, k: stage(n, k, "naming", describe="on_demand")
        ),
        "the same in batch inference": lambda n, k: stage(n, k, "naming", describe="batch"),
        "naming without a language model": (
            lambda n, k: stage(n, k, "naming", describer="deterministic")
        ),
    }
    for label, cost in asked.items():
        said = [cost(10_000, 200), cost(1_000_000, 5_000)]
        assert stated[label] == pytest.approx(said, rel=0.03, abs=0.001), label
    assert f"as of {default_prices().as_of}" in page
