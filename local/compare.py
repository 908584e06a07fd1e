"""``imageclust compare``: which embedder and preprocessing group these pictures best.

Each configuration goes through the steps of a run (plan, embed, cluster), so its vectors are
stored and a later run of the same configuration starts with them.
"""

import csv
import io
import json
import os
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from imageclust import keys
from imageclust.embedding import BUILTIN, Candidate, PairRule, rank_candidates
from imageclust.errors import InvalidInput
from imageclust.models import (
    JSON,
    FileSeen,
    ImageRef,
    RunConfig,
    RunRequest,
    digest_of,
    parse_json_lines,
)
from imageclust.steps.cluster_images import ClusterRequest, cluster_images
from imageclust.steps.embed import EmbedBatch, embed_batch
from imageclust.steps.gather import read_files
from imageclust.steps.plan_run import plan_run
from imageclust.wiring import Services, use

from local.home import open_services
from local.run import check_out, link_photos, name_for

_RULES = {"must": True, "must-link": True, "cannot": False, "cannot-link": False}
_BATCHES_AT_ONCE = 4
_COMPARED = {"embedder", "preprocess", "labels", "labeler"}


@dataclass(frozen=True)
class Comparison:
    """What to compare: every embedder with every preprocessing and resolution.

    ``resolutions`` are pixels on the short side; without any, pictures come as they are.
    ``config`` says how to cluster and which share of the pictures to use; ``include`` names files
    that the sample keeps. ``pairs`` is a CSV file, see :func:`read_pairs`.
    """

    embedders: tuple[str, ...] = ("auto",)
    preprocessings: tuple[str, ...] = ("default",)
    resolutions: tuple[int, ...] = ()
    config: RunConfig = field(default_factory=RunConfig)
    include: tuple[str, ...] = ()
    pairs: Path | None = None


@dataclass(frozen=True)
class _Tried:
    """One configuration: image ids, what came of them, and how many had to be embedded."""

    image_ids: tuple[str, ...]
    candidate: Candidate
    embedded: int


def compare_folder(
    photos: Path,
    comparison: Comparison,
    *,
    home: Path,
    out: Path | None = None,
    quiet: bool = False,
) -> JSON:
    """Compare configurations over a folder; writes ``compare.csv`` and ``compare.json``.

    Returns the document of ``compare.json``: the ranked rows, what was used and left out. Progress
    goes to standard error unless ``quiet``.

    Raises:
        InvalidInput: the folder, a file, an embedder, a preprocessing or a pair cannot be used.
    """
    if not photos.is_dir():
        raise InvalidInput(f"there is no folder {photos}")
    if not comparison.embedders or not comparison.preprocessings:
        raise InvalidInput("name at least one embedder and one preprocessing to compare")
    photos = photos.resolve()
    out = (out or Path(f"{photos.name or 'photos'}-compare")).absolute()
    check_out(out, photos)
    include = [_inside(photos, name) for name in comparison.include]
    rules = read_pairs(comparison.pairs, photos) if comparison.pairs else []
    keep = {*include, *(path for first, second, _ in rules for path in (first, second))}
    services = open_services(home)
    use(services)
    with closing(services):
        configs = _configurations(services, comparison)
        collection = name_for(photos)
        link_photos(home, collection, photos)
        tried: list[_Tried] = []
        for number, config in enumerate(configs, 1):
            files, done = _try(services, collection, config, keep)
            tried.append(done)
            if not quiet:
                print(
                    f"{number}/{len(configs)} {done.candidate.name}: {done.embedded} embedded, "
                    f"{len(done.image_ids) - done.embedded} reused, {done.candidate.seconds:.1f} s",
                    file=sys.stderr,
                )
    document = _ranked(tried, files, rules) | {
        "photos": str(photos),
        # What every configuration has in common.
        "config": {
            name: value
            for name, value in comparison.config.to_json().items()
            if name not in _COMPARED
        },
        "kept": sorted(keep),
    }
    _write(out / "compare.json", json.dumps(document, indent=2) + "\n")
    _write(out / "compare.csv", _as_csv(document["rows"]))
    return document


def read_pairs(path: Path, photos: Path) -> list[tuple[str, str, bool]]:
    """Pair rules from a CSV file with the columns ``first``, ``second`` and ``rule``.

    ``first`` and ``second`` are files of the folder, ``rule`` is must-link (one cluster) or
    cannot-link (two). Returns (path, path, together) with paths relative to the folder; a pair
    that is given twice counts once.
    """
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}")
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
        reader = csv.DictReader(text)
        missing = {"first", "second", "rule"} - set(reader.fieldnames or ())
        if missing:
            raise InvalidInput(f"{path} needs the columns first, second and rule")
        rules: dict[tuple[str, str], bool] = {}
        for row in reader:
            rule = (row["rule"] or "").strip().lower()
            if rule not in _RULES:
                raise InvalidInput(
                    f"{path}, line {reader.line_num}: the rule is must-link or cannot-link, "
                    f"not {rule!r}"
                )
            pair = sorted(_inside(photos, row[name] or "") for name in ("first", "second"))
            if pair[0] == pair[1]:
                raise InvalidInput(f"{path}, line {reader.line_num}: a pair is two files, not one")
            if rules.setdefault((pair[0], pair[1]), _RULES[rule]) != _RULES[rule]:
                raise InvalidInput(
                    f"{path}, line {reader.line_num}: {pair[0]} and {pair[1]} must be together "
                    "and must not"
                )
    return [(first, second, together) for (first, second), together in rules.items()]


def table(document: JSON) -> str:
    """The ranked rows as a table for people."""
    head = ("", "configuration", "pairs", "composite", "silhouette", "balance", "neighbours",
            "clusters", "seconds", "embedded")  # fmt: skip
    rows = [head]
    for row in document["rows"]:
        pairs = row["pairs_satisfied"]
        rows.append(
            (
                str(row["rank"]),
                row["name"],
                "" if pairs is None else f"{pairs:.2f}",
                *(
                    "" if row[name] is None else f"{row[name]:.3f}"
                    for name in ("composite", "silhouette", "balance", "knn_agreement")
                ),
                str(row["clusters"]),
                f"{row['seconds']:.1f}",
                str(row["embedded"]),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        left = f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}"
        right = (f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True))
        lines.append("  ".join([left, *right]))
    return "\n".join(lines)


def _configurations(services: Services, comparison: Comparison) -> list[RunConfig]:
    """Every different combination, in the order given; unknown names are refused at once."""
    found: dict[str, RunConfig] = {}
    at = [f"@{side}" for side in comparison.resolutions] or [""]
    for embedder in comparison.embedders:
        # The built-in descriptor has one way to look at a picture.
        ways = ("default",) if embedder == BUILTIN else comparison.preprocessings
        for preprocess in (way + side for way in ways for side in at):
            key = services.open_embedder(embedder, preprocess).key
            config = replace(
                comparison.config, embedder=embedder, preprocess=preprocess, labels="off"
            )
            found.setdefault(key, config)
    return list(found.values())


def _try(
    services: Services, collection: str, config: RunConfig, keep: Collection[str]
) -> tuple[list[FileSeen], _Tried]:
    run_id = f"compare-{digest_of([collection, config.to_json(), sorted(keep)])[:24]}"
    request = RunRequest(run_id=run_id, collection=collection, config=config, trigger="cli")
    while not (plan := plan_run(services, request, keep=keep))["complete"]:
        continue
    started = time.perf_counter()
    embed = plan["embed"]
    manifest = keys.join_uri(embed["manifest"]["bucket"], embed["manifest"]["key"])
    refs = [ImageRef.from_json(row) for row in parse_json_lines(services.store.read(manifest))]
    batches = [
        EmbedBatch(run_id, embed["model"], tuple(refs[start : start + embed["batch"]]))
        for start in range(0, len(refs), embed["batch"])
    ]
    with ThreadPoolExecutor(_BATCHES_AT_ONCE) as pool:
        done = list(pool.map(lambda batch: embed_batch(services, batch), batches))
    result = cluster_images(services, ClusterRequest(run_id, collection, config, plan))
    seconds = time.perf_counter() - started

    def document(name: str) -> Path:
        return services.store.path(keys.join_uri(result["bucket"], result["prefix"] + name))

    rows = parse_json_lines(document("assignments.jsonl").read_bytes())
    placed = [row for row in rows if row["status"] != "rejected"]
    labels = [int(row["cluster_id"][1:]) - 1 if row["cluster_id"] else -1 for row in placed]
    summary = json.loads(document("summary.json").read_bytes())
    candidate = Candidate(
        name=f"{config.embedder}/{config.preprocess}",
        vectors=np.load(document("embeddings.npy"), allow_pickle=False),
        labels=np.array(labels, dtype=np.intp),
        metrics=summary["result"]["metrics"],
        seconds=seconds,
    )
    files = read_files(services, plan["files"])
    ids = tuple(row["image_id"] for row in placed)
    return files, _Tried(ids, candidate, sum(batch["embedded"] for batch in done))


def _ranked(
    tried: Sequence[_Tried], files: Sequence[FileSeen], rules: Sequence[tuple[str, str, bool]]
) -> JSON:
    """Rank over the images that every configuration has a vector of."""
    common = sorted(set.intersection(*(set(one.image_ids) for one in tried)))
    row_of = {image_id: row for row, image_id in enumerate(common)}
    candidates = []
    for one in tried:
        place = {image_id: row for row, image_id in enumerate(one.image_ids)}
        rows = [place[image_id] for image_id in common]
        candidate = one.candidate
        candidates.append(
            replace(candidate, vectors=candidate.vectors[rows], labels=candidate.labels[rows])
        )
    image_of = {file.path: file.image_id for file in files}
    pairs = [_rule(rule, image_of, row_of) for rule in rules]
    embedded = {one.candidate.name: one.embedded for one in tried}
    ranked = rank_candidates(candidates, pairs=pairs)
    return {
        "rows": [_plain(row.to_json()) | {"embedded": embedded[row.name]} for row in ranked],
        "images": len(common),
        "left_out": len(files) - sum(file.image_id in row_of for file in files),
        "pairs": len(pairs),
    }


def _rule(
    rule: tuple[str, str, bool], image_of: dict[str, str | None], row_of: dict[str, int]
) -> PairRule:
    rows = []
    for path in rule[:2]:
        row = row_of.get(image_of.get(path) or "")
        if row is None:
            raise InvalidInput(f"the pairs name {path}, which is not an image that can be read")
        rows.append(row)
    if rows[0] == rows[1]:
        raise InvalidInput(f"the pairs name {rule[0]} and {rule[1]}, which are the same picture")
    return PairRule(rows[0], rows[1], rule[2])


def _inside(photos: Path, name: str) -> str:
    """A file of the folder, named from the folder or from here, as a path from the folder."""
    for path in (photos / name, Path(name).absolute()):
        if name and path.is_file() and path.is_relative_to(photos):
            return os.path.relpath(path, photos)
    raise InvalidInput(f"there is no file {name!r} in {photos}")


def _plain(row: JSON) -> JSON:
    """Without numbers that JSON does not have."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in row.items()
    }


def _as_csv(rows: Sequence[JSON]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8", errors="surrogateescape")
    partial.replace(path)
