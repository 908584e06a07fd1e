"""What a run will cost, and what it did cost: units by stage, times prices.

The figures are list prices before free tiers. What a run needs of each service is counted from
the workflow (one row an image, one call a batch) and from the assumptions below, each of which is
named in ``docs/cost.md``. A run on one machine costs nothing.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from imageclust.costs.prices import (
    Prices,
    default_prices,
    embedding_figure,
    read_overrides,
)
from imageclust.descriptions.words import counted
from imageclust.errors import InvalidInput
from imageclust.labels.spread import most_labelled
from imageclust.models import JSON, RunConfig
from imageclust.settings import Settings

STAGES = ("labels", "embedding", "decoding", "workflow", "table", "storage", "vectors", "naming")

LAMBDA_GB = 3.0
EMBED_SECONDS = 0.5
DECODE_SECONDS = 0.175
# A function waits for Rekognition: a tenth of a second of 1 GB an image.
WAIT_GB_SECONDS = 0.1
GPU_IMAGES_A_SECOND = 300
GPU_START_SECONDS = 600
TOKENS_IN = 1500
TOKENS_OUT = 200
CAPTIONED_A_CLUSTER = 8  # exemplars, at most
# Instructions, ten labels and a thumbnail of 320 × 240.
CAPTION_TOKENS_IN = 500
CAPTION_TOKENS_OUT = 40
VECTOR_BYTES = 4 * 1280 + 500
_VECTORS_A_CALL = 500
_TRANSITIONS_A_BATCH = 3
_TRANSITIONS_A_RUN = 20
# Places seen, vector, label, member, file and two of the image, whose facts take 3 KB.
_WRITES_AN_IMAGE = 9
_READS_AN_IMAGE = 4
_WRITES_A_CLUSTER = 3
_PUTS_A_RUN = 60
DEAREST = "claude-sonnet-4"

Units = Mapping[str, Mapping[str, float]]
"""Quantities by stage and price figure: ``{"labels": {"rekognition_image": 10000}}``."""


@dataclass(frozen=True)
class Cached:
    """Images of the collection whose answers are stored already, from an earlier run."""

    vectors: int = 0
    labels: int = 0
    captions: int = 0


@dataclass(frozen=True)
class Place:
    """Where a run happens: the deployment's settings, its region and prices.

    ``local`` runs cost nothing. ``prices`` None means the file that comes with the library, with
    the figures of ``settings.prices`` in place of its own.
    """

    settings: Settings = field(default_factory=Settings)
    region: str = "us-east-1"
    prices: Prices | None = None
    local: bool = False

    @classmethod
    def of(cls, settings: Settings) -> "Place":
        """The place that a deployment's own settings describe."""
        return cls(settings, settings.aws_region, local=not settings.paid)

    def priced(self) -> Prices:
        """The prices of this place, of all regions. Raises InvalidInput for overrides."""
        return self.prices or default_prices().with_overrides(read_overrides(self.settings.prices))


@dataclass(frozen=True)
class StageCost:
    """One row of the table: what a stage does and what it costs."""

    stage: str
    what: str
    usd: float


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, by stage. ``notes`` say what was assumed."""

    images: int
    clusters: int
    region: str
    as_of: str
    units: Units
    stages: tuple[StageCost, ...]
    notes: tuple[str, ...]

    @property
    def usd(self) -> float:
        """The whole run, in US dollars."""
        return sum(stage.usd for stage in self.stages)

    def by_stage(self) -> JSON:
        """US dollars, by stage too: what a run keeps of its estimate."""
        stages = {stage.stage: round(stage.usd, 6) for stage in self.stages}
        return {"usd": round(self.usd, 6), "region": self.region, "stages": stages}

    def to_json(self) -> JSON:
        return {
            "images": self.images,
            "clusters": self.clusters,
            "region": self.region,
            "as_of": self.as_of,
            "usd": round(self.usd, 6),
            "stages": [
                {"stage": s.stage, "what": s.what, "usd": round(s.usd, 6)} for s in self.stages
            ],
            "units": {stage: dict(counts) for stage, counts in self.units.items()},
            "notes": list(self.notes),
        }


def estimate(
    images: int,
    config: RunConfig,
    *,
    cached: Cached | None = None,
    clusters: int | None = None,
    place: Place | None = None,
) -> Estimate:
    """What a run over so many distinct images will cost.

    Args:
        images: distinct images of the collection, before ``config.sample``.
        config: the run's configuration.
        cached: what is stored already; it is taken off.
        clusters: how many to expect; None takes them from the configuration, else 2 √images.
        place: where the run happens.

    Raises InvalidInput for counts below 0.
    """
    cached, place = cached or Cached(), place or Place()
    if min(images, cached.vectors, cached.labels, cached.captions) < 0 or (
        clusters is not None and clusters < 0
    ):
        raise InvalidInput("an estimate needs counts of 0 or more")
    prices, notes = place.priced().in_region(place.region)
    used = math.ceil(images * config.sample)
    expected = expected_clusters(used, config) if clusters is None else min(clusters, used)
    if place.local:
        free = tuple(StageCost(stage, "on this machine", 0.0) for stage in STAGES)
        return Estimate(used, expected, "local", prices.as_of, {}, free, ())
    rows = _Count(used, expected, config, cached, place.settings, prices).rows()
    units = {stage: counts for stage, _, counts in rows}
    costs = cost_by_stage(units, prices=prices)
    stages = tuple(StageCost(stage, what, costs[stage]) for stage, what, _ in rows)
    if clusters is None and config.clusters is None and config.target_size is None:
        notes = (
            *notes,
            f"{counted(expected, 'cluster')} assumed (2 √images, within the size bounds)",
        )
    for name in _models(config):
        model = _model_id(name, place.settings)
        if units["naming"] and price_key(model, prices) is None:
            notes = (*notes, f"no price of {model} is on file: {DEAREST}'s is taken")
    return Estimate(used, expected, place.region, prices.as_of, units, stages, notes)


def expected_clusters(images: int, config: RunConfig) -> int:
    """How many clusters a configuration leads to: asked for, else by size, else 2 √images."""
    if images == 0:
        return 0
    if config.clusters is not None:
        return min(config.clusters, images)
    wanted = images / config.target_size if config.target_size else 2 * math.sqrt(images)
    most = images / config.min_size if config.min_size else images
    least = images / config.max_size if config.max_size else 1
    return max(1, min(images, round(max(least, min(wanted, most)))))


def cost_by_stage(units: Units, *, prices: Prices | None = None) -> dict[str, float]:
    """US dollars by stage of units used; what a run stores beside its units.

    Raises InvalidInput for a figure without a price.
    """
    known = (prices or default_prices()).usd
    costs = {}
    for stage, counts in units.items():
        missing = sorted(set(counts) - set(known))
        if missing:
            raise InvalidInput(f"there is no price '{missing[0]}' (stage {stage})")
        costs[stage] = sum(known[figure] * quantity for figure, quantity in counts.items())
    return costs


def in_batch(clusters: int, config: RunConfig, settings: Settings) -> bool:
    """Whether so many clusters are named, or images captioned, by batch inference jobs."""
    if clusters == 0 or not _models(config):
        return False
    if config.describe != "auto":
        return config.describe == "batch"
    return 0 < settings.bedrock_batch_minimum <= clusters


def embeds_in_batch(images: int, config: RunConfig, settings: Settings, *, prices: Prices) -> bool:
    """Whether a run embeds so many new images by batch inference jobs of Bedrock.

    It does where it asks for them, and of itself where hours of waiting save a stated sum.
    """
    least = settings.bedrock_batch_minimum  # 0: there is no such service here
    if not config.embedder.startswith("amazon.") or not 0 < least <= images:
        return False
    if config.embed != "auto":
        return config.embed == "batch"
    saved = images * prices.usd[embedding_figure(config.embedder)] * (1 - prices.usd["batch_share"])
    return saved >= settings.embed_batch_saving_usd


Row = tuple[str, str, dict[str, float]]


@dataclass(frozen=True)
class _Count:
    """Counts the units of one run, stage by stage."""

    images: int
    clusters: int
    config: RunConfig
    cached: Cached
    settings: Settings
    prices: Prices

    def rows(self) -> list[Row]:
        embed = max(0, self.images - min(self.cached.vectors, self.images))
        label = self._to_label()
        decoded = max(embed, label)
        return [
            self._labels(label),
            self._embedding(embed),
            (
                "decoding",
                f"{counted(decoded, 'image')}, thumbnails",
                {"lambda_gb_second": decoded * LAMBDA_GB * DECODE_SECONDS},
            ),
            self._workflow(embed, label),
            (
                "table",
                "reads and writes",
                {
                    "table_write": self.images * _WRITES_AN_IMAGE
                    + self.clusters * _WRITES_A_CLUSTER,
                    "table_read": self.images * _READS_AN_IMAGE,
                },
            ),
            (
                "storage",
                "requests",
                {
                    "s3_put": decoded + embed / self.settings.embed_batch * 2 + _PUTS_A_RUN,
                    "s3_get": self.images + embed + label + _PUTS_A_RUN,
                },
            ),
            (
                "vectors",
                f"{self.images:,} put in the search index",
                {
                    "vector_put_gb": max(
                        self.images * VECTOR_BYTES,
                        math.ceil(self.images / _VECTORS_A_CALL) * 128 * 1024,
                    )
                    / 1e9
                },
            ),
            self._naming(),
        ]

    def _to_label(self) -> int:
        if self.config.labels == "off":
            return 0
        wanted = self.images
        if self.config.labels == "exemplars":
            wanted = most_labelled(wanted)
        return max(0, wanted - min(self.cached.labels, wanted))

    def _labels(self, label: int) -> Row:
        if self.config.labels == "off":
            return "labels", "off", {}
        if self.config.labeler in ("auto", "rekognition"):
            units = {"rekognition_image": label}
            more = ""
            if self.config.image_properties == "on":
                units["rekognition_properties"], more = label, " with properties"
            if self.config.moderation == "on":
                units["rekognition_moderation"], more = label, f"{more} and moderation"
            return "labels", f"{counted(label, 'image')}, Rekognition{more}", dict(units)
        seconds = label * LAMBDA_GB * EMBED_SECONDS
        return "labels", f"{counted(label, 'image')}, ONNX on Lambda", {"lambda_gb_second": seconds}

    def _embedding(self, embed: int) -> Row:
        name, settings = self.config.embedder, self.settings
        if name.startswith("amazon."):
            batch = embeds_in_batch(embed, self.config, settings, prices=self.prices)
            share = self.prices.usd["batch_share"] if batch else 1.0
            what = f"{counted(embed, 'image')}, Bedrock, {'batch' if batch else 'on demand'}"
            return "embedding", what, {embedding_figure(name): embed * share}
        if settings.gpu_enabled and embed >= settings.gpu_from:
            jobs = min(10, math.ceil(embed / settings.gpu_images_a_job))
            seconds = embed / GPU_IMAGES_A_SECOND + jobs * GPU_START_SECONDS
            what = f"{counted(embed, 'image')}, {counted(jobs, 'GPU job')}"
            return "embedding", what, {"gpu_second": seconds}
        seconds = embed * LAMBDA_GB * EMBED_SECONDS
        return (
            "embedding",
            f"{counted(embed, 'image')}, ONNX on Lambda",
            {"lambda_gb_second": seconds},
        )

    def _workflow(self, embed: int, label: int) -> Row:
        batches = math.ceil(embed / self.settings.embed_batch)
        if embeds_in_batch(embed, self.config, self.settings, prices=self.prices):
            batches *= 2  # records are written, then answers are read
        batches += math.ceil(label / self.settings.label_batch)
        # Clustering and publishing: ten seconds and a millisecond an image, in one function.
        gb_seconds = (10 + self.images / 1000) * LAMBDA_GB
        if self.config.labels != "off" and self.config.labeler in ("auto", "rekognition"):
            gb_seconds += label * WAIT_GB_SECONDS
        return (
            "workflow",
            f"{counted(batches, 'batch')}, clustering, publishing",
            {
                "transition": batches * _TRANSITIONS_A_BATCH + _TRANSITIONS_A_RUN,
                "lambda_request": batches + _TRANSITIONS_A_RUN,
                "lambda_gb_second": gb_seconds,
            },
        )

    def _naming(self) -> Row:
        models = [_model_id(name, self.settings) for name in _models(self.config)]
        if not models:
            return "naming", "without a model", {}
        priced = [price_key(model, self.prices) or DEAREST for model in models]
        units: dict[str, float] = defaultdict(float)

        def ask(key: str, times: int, tokens_in: int, tokens_out: int) -> str:
            batch = in_batch(times, self.config, self.settings)
            share = self.prices.usd["batch_share"] if batch else 1.0
            if times:
                units[f"tokens_in/{key}"] += times * tokens_in * share
                units[f"tokens_out/{key}"] += times * tokens_out * share
            return "batch" if batch else "on demand"

        for key in priced:
            how = ask(key, self.clusters, TOKENS_IN, TOKENS_OUT)
        what = f"{counted(self.clusters, 'cluster')}, {', '.join(priced)}, {how}"
        if self.config.captions != "off":
            captions = self._to_caption()
            # The first describer that sees; which that is, Bedrock knows.
            dearest = max(priced, key=lambda key: self.prices.usd[f"tokens_in/{key}"])
            how = ask(dearest, captions, CAPTION_TOKENS_IN, CAPTION_TOKENS_OUT)
            what += f"; {counted(captions, 'caption')}, {dearest}, {how}"
        return "naming", what, dict(units)

    def _to_caption(self) -> int:
        wanted = self.images
        if self.config.captions == "exemplars":
            wanted = min(wanted, CAPTIONED_A_CLUSTER * self.clusters)
        return max(0, wanted - min(self.cached.captions, wanted))


def _models(config: RunConfig) -> list[str]:
    """The describers of a configuration that are language models."""
    return [name for name in config.describers if name != "deterministic"]


def _model_id(name: str, settings: Settings) -> str:
    return settings.bedrock_title_model if name in ("auto", "bedrock") else name


def price_key(model: str, prices: Prices) -> str | None:
    """The longest name with a price that the model's id holds."""
    found = [
        figure.removeprefix("tokens_in/")
        for figure in prices.usd
        if figure.startswith("tokens_in/") and figure.removeprefix("tokens_in/") in model
    ]
    return max(found, key=len, default=None)


def estimate_table(found: Estimate) -> str:
    """The estimate as text for a terminal: a row a stage, the sum, the notes."""
    width = max(len(stage.what) for stage in found.stages)
    clusters = counted(found.clusters, "cluster")
    lines = [f"{counted(found.images, 'image')}, about {clusters}, {found.region}", ""]
    lines += [
        f"{stage.stage:<10} {stage.what:<{width}} {dollars(stage.usd):>12}"
        for stage in found.stages
    ]
    lines.append(f"{'total':<10} {'':<{width}} {dollars(found.usd):>12}")
    if found.region != "local":
        lines += ["", f"List prices of {found.as_of}, before free tiers."]
    lines += [f"Note: {note}." for note in found.notes]
    return "\n".join(lines)


def dollars(usd: float) -> str:
    """``$1,234.50``; below a cent as many digits as tell something."""
    if usd == 0 or usd >= 0.01:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if usd >= 0.0001 else "< $0.0001"
