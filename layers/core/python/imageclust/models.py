"""The records that states, stores and people exchange: frozen, each with its own JSON form."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast, get_args, get_origin, get_type_hints

from imageclust.errors import InvalidInput

JSON = dict[str, Any]

Method = Literal["auto", "ward", "kmeans", "gmm", "hdbscan", "dbscan"]
Mode = Literal["fast", "balanced", "comprehensive"]
Status = Literal["clustered", "outlier", "duplicate", "rejected"]
RunState = Literal["RUNNING", "SUCCEEDED", "FAILED", "INVALID", "CANCELLED"]

_MOST_DESCRIBERS = 4
_MOST_KEEPERS = 1_000
_KEEPERS_BYTES = 60_000  # states hand on a configuration twice, and take 256 KB in all
_COLLECTION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


def check_collection_name(name: str) -> str:
    """Return ``name`` if it can name a collection, else raise InvalidInput saying what can."""
    if not _COLLECTION.fullmatch(name):
        raise InvalidInput(
            f"'{name}' cannot name a collection: use 1 to 40 lower-case letters, digits and "
            "hyphens, beginning and ending with a letter or a digit"
        )
    return name


def digest_of(value: object) -> str:
    """SHA-256 hex digest of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class RunConfig:
    """What one run does: validated, frozen, stored with the run.

    ``auto`` for embedder, labeler and describer means the best one that is installed. ``sample``
    is the share of distinct images used, in (0, 1]. A search tries nothing new after
    ``search_seconds``. The three weights of the score by which it ranks are scaled to sum to one.
    ``describer`` may name several, separated by
    commas: the answers of all are kept and the first one's names are shown, with the phrases and
    descriptions of ``descriptions_by`` where that is set. ``captions`` asks for a line about the
    exemplars of each cluster or about every image. ``label_min_confidence`` (0 to 100) and
    ``max_labels`` an image are the labeler's own where they are None. ``keepers`` are paths or
    globs, relative to the collection, of files that stand for their copies whatever their quality.
    """

    embedder: str = "auto"
    preprocess: str = "default"
    labels: Literal["full", "exemplars", "off"] = "full"
    labeler: str = "auto"
    label_min_confidence: float | None = None
    max_labels: int | None = None
    image_properties: Literal["off", "on"] = "off"
    moderation: Literal["off", "on"] = "off"
    label_weight: float | None = None
    method: Method = "auto"
    mode: Mode = "fast"
    clusters: int | None = None
    target_size: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    outliers: Literal["keep", "assign"] = "keep"
    sample: float = 1.0
    seed: int = 0
    search_seconds: float | None = None
    silhouette_weight: float = 0.3
    balance_weight: float = 0.4
    noise_weight: float = 0.3
    describer: str = "auto"
    descriptions_by: str | None = None
    describe: Literal["auto", "on_demand", "batch"] = "auto"
    embed: Literal["auto", "on_demand", "batch"] = "auto"
    captions: Literal["off", "exemplars", "all"] = "off"
    duplicates: Literal["exact", "confirmed"] = "confirmed"
    keepers: tuple[str, ...] = ()
    max_cost_usd: float | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("clusters", 1), ("target_size", 1), ("min_size", 1), ("max_size", 1),
            ("max_labels", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidInput(f"{name} must be at least {least}, not {value}")
        if self.min_size and self.max_size and self.min_size > self.max_size:
            raise InvalidInput(
                f"min_size {self.min_size} is above max_size {self.max_size}: "
                "no cluster can meet both"
            )
        if self.clusters and self.target_size:
            raise InvalidInput(
                "clusters and target_size both say how many clusters there are: give one of them"
            )
        if self.target_size and not (
            (self.min_size or 1) <= self.target_size <= (self.max_size or self.target_size)
        ):
            raise InvalidInput(
                f"target_size {self.target_size} must lie between min_size and max_size"
            )
        if not 0 < self.sample <= 1:
            raise InvalidInput(f"sample must be above 0 and at most 1, not {self.sample}")
        if self.label_weight is not None and not 0 <= self.label_weight <= 1:
            raise InvalidInput(f"label_weight must lie between 0 and 1, not {self.label_weight}")
        floor = self.label_min_confidence
        if floor is not None and not 0 <= floor <= 100:
            raise InvalidInput(f"label_min_confidence must lie between 0 and 100, not {floor}")
        if self.moderation == "on" and self.labels != "full":
            raise InvalidInput(
                f"moderation looks at every image: it needs labels 'full', not '{self.labels}'"
            )
        if self.image_properties == "on" and self.labels == "off":
            raise InvalidInput("image_properties come with labels: labels must not be 'off'")
        if self.search_seconds is not None and not 0 < self.search_seconds < math.inf:
            raise InvalidInput(f"search_seconds must be more than 0, not {self.search_seconds}")
        weights = ("silhouette_weight", "balance_weight", "noise_weight")
        for name in weights:
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidInput(f"{name} must not be negative, not {getattr(self, name)}")
        if not any(getattr(self, name) for name in weights):
            raise InvalidInput(f"at least one of {', '.join(weights)} must be more than 0")
        if self.max_cost_usd is not None and self.max_cost_usd < 0:
            raise InvalidInput(f"max_cost_usd must not be negative, not {self.max_cost_usd}")
        if len(self.keepers) > _MOST_KEEPERS or not all(self.keepers):
            raise InvalidInput(
                f"keepers must be at most {_MOST_KEEPERS:,} paths or patterns, none of them empty"
            )
        if len(json.dumps(self.keepers)) > _KEEPERS_BYTES:
            raise InvalidInput(
                f"keepers take more than {_KEEPERS_BYTES:,} characters: name several files with "
                "one pattern, as in 'best/*'"
            )
        describers = self.describers
        if self.descriptions_by is not None and self.descriptions_by not in describers:
            raise InvalidInput(
                f"descriptions_by must be one of the describers ({', '.join(describers)}), "
                f"not {self.descriptions_by!r}"
            )

    @property
    def describers(self) -> tuple[str, ...]:
        """The describers by name; the first is shown.

        Raises InvalidInput for none, more than four, or one twice.
        """
        names = tuple(name.strip() for name in self.describer.split(","))
        if not all(names) or len(set(names)) != len(names) or len(names) > _MOST_DESCRIBERS:
            raise InvalidInput(
                f"describer must name one to {_MOST_DESCRIBERS} different describers, separated "
                f"by commas, not {self.describer!r}"
            )
        return names

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build from a JSON object; unknown names and wrong types raise InvalidInput."""
        hints = get_type_hints(cls)
        unknown = sorted(set(data) - set(hints))
        if unknown:
            raise InvalidInput(
                f"unknown setting '{unknown[0]}'; the settings are {', '.join(sorted(hints))}"
            )
        return cls(**{name: _checked(name, value, hints[name]) for name, value in data.items()})

    def to_json(self) -> JSON:
        return {**dataclasses.asdict(self), "keepers": list(self.keepers)}


def _checked(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
            raise InvalidInput(f"{name} must be a list of text, not {value!r}")
        return tuple(value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InvalidInput(f"{name} must be one of {', '.join(get_args(hint))}, not {value!r}")
        return value
    kinds = get_args(hint) or (hint,)
    if value is None and type(None) in kinds:
        return None
    if float in kinds and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if int in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    plain = tuple(kind for kind in kinds if kind is not type(None))
    if isinstance(value, bool) or not isinstance(value, plain):
        words = " or ".join(
            {"int": "a whole number", "str": "text"}.get(k.__name__, "a number") for k in plain
        )
        raise InvalidInput(f"{name} must be {words}, not {value!r}")
    return value


@dataclass(frozen=True)
class RunRequest:
    """The input of one execution: what every door (upload, API, command line) sends."""

    run_id: str
    collection: str
    config: RunConfig = field(default_factory=RunConfig)
    trigger: Literal["upload", "api", "cli", "schedule"] = "api"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        try:
            run_id, collection = data["run_id"], data["collection"]
        except KeyError as missing:
            raise InvalidInput(f"a run needs {missing}") from None
        return cls(
            run_id=str(run_id),
            collection=check_collection_name(str(collection)),
            config=RunConfig.from_json(data.get("config") or {}),
            trigger=data.get("trigger", "api"),
        )

    def to_json(self) -> JSON:
        return {
            "run_id": self.run_id,
            "collection": self.collection,
            "config": self.config.to_json(),
            "trigger": self.trigger,
        }


@dataclass(frozen=True)
class ImageRef:
    """One distinct content to work on: a line of an embed or label manifest."""

    image_id: str
    uri: str
    size: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(image_id=data["image_id"], uri=data["uri"], size=data["size"])

    def to_json(self) -> JSON:
        return {"image_id": self.image_id, "uri": self.uri, "size": self.size}


@dataclass(frozen=True)
class FileSeen:
    """One file of the collection as PlanRun met it: a line of the run's file list.

    ``path`` is relative to the collection. ``image_id`` is None exactly when ``reason`` says why
    the file could not be read.
    """

    path: str
    uri: str
    size: int
    image_id: str | None = None
    reason: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            path=data["path"],
            uri=data["uri"],
            size=int(data["size"]),
            image_id=data.get("image_id"),
            reason=data.get("reason"),
        )

    def to_json(self) -> JSON:
        return {k: v for k, v in vars(self).items() if v is not None}


@dataclass(frozen=True)
class Outcome:
    """What a run made of one file: a row of ``assignments.csv``."""

    path: str
    image_id: str
    status: Status
    cluster_id: str = ""
    rank: int | None = None
    duplicate_of: str = ""
    reason: str = ""

    def to_json(self) -> JSON:
        return dict(vars(self))  # flat, and written for every file of a run

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


@dataclass(frozen=True)
class Counts:
    """Files of a run by what became of them; the law of conservation is ``balanced``."""

    seen: int = 0
    clustered: int = 0
    outliers: int = 0
    duplicates: int = 0
    rejected: int = 0

    @property
    def balanced(self) -> bool:
        return self.seen == self.clustered + self.outliers + self.duplicates + self.rejected

    def to_json(self) -> JSON:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{f.name: int(data[f.name]) for f in dataclasses.fields(cls)})


@dataclass(frozen=True)
class ClusterName:
    """What a cluster is called: title ≤ 25, phrase ≤ 100, description ≤ 400 characters."""

    title: str
    phrase: str
    description: str
    model: str

    def to_json(self) -> JSON:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{f.name: str(data[f.name]) for f in dataclasses.fields(cls)})


@dataclass(frozen=True)
class ClusterBrief:
    """What a describer is told of one cluster.

    ``labels`` are (name, share of the cluster's members that carry it in [0, 1], lift against the
    other clusters), most telling first. ``attributes`` are visual facts in words (dominant colour,
    brightness, texture). ``exemplars`` are thumbnail URIs, for models that see. ``parents`` says
    of each label what it is a kind of, nearest first; labels without parents are left out.
    """

    cluster_id: str
    size: int
    labels: tuple[tuple[str, float, float], ...] = ()
    attributes: tuple[tuple[str, float, float], ...] = ()
    exemplars: tuple[str, ...] = ()
    parents: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def to_json(self) -> JSON:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        def facts(name: str) -> tuple[tuple[str, float, float], ...]:
            return tuple((str(n), float(s), float(x)) for n, s, x in data.get(name, ()))

        return cls(
            cluster_id=data["cluster_id"],
            size=int(data["size"]),
            labels=facts("labels"),
            attributes=facts("attributes"),
            exemplars=tuple(data.get("exemplars", ())),
            parents=tuple((str(n), tuple(map(str, above))) for n, above in data.get("parents", ())),
        )


def parse_json_lines(data: bytes) -> list[JSON]:
    """Parse JSON Lines; blank lines are skipped."""
    return [cast(JSON, json.loads(line)) for line in data.splitlines() if line.strip()]


def to_json_lines(rows: Iterable[JSON]) -> bytes:
    """One compact JSON object a line, newline-terminated, ASCII only."""
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def pretty_json(value: Any) -> bytes:
    """Indented JSON for people, with null for NaN and infinity, which JSON does not have."""
    return json.dumps(_finite(value), indent=2, allow_nan=False).encode() + b"\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
