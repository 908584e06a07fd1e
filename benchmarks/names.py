"""Titles of the deterministic describer on labelled photos, and how often they are right.

    python benchmarks/names.py [--set caltech45] [--clusters 45] [--shared FOLDER] [--model NAME]

Embeds, labels and clusters the set in this process and prints a row a cluster. For caltech45 a
cluster with purity of at least .7 counts as right when its true class, a synonym or a parent of it
(by the label file) is in its title or among its first three labels. "Near" leaves out parents of
more than fifty of the thousand classes, such as "animal".
"""

import argparse
import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from imageclust.clustering import ClusteringConfig, cluster_vectors
from imageclust.descriptions import DeterministicDescriber, make_briefs
from imageclust.descriptions.words import in_sentence, plural
from imageclust.embedding import ModelRegistry
from imageclust.embedding.registry import open_model
from imageclust.images import decode_image, fingerprint
from imageclust.labels import Label, LabelSet, classify, visual_attributes
from imageclust.models import ClusterBrief, ClusterName
from numpy.typing import NDArray

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODEL = "mobilenet_v2_1.0_224_w8"
PURE = 0.7
_NEAR = 50

# What the label file calls a class of caltech45, else the nearest thing above it in WordNet. The
# two cartoon figures have neither.
CALTECH = {
    "Motorbikes": "motorcycle", "bass": "fish", "ceiling_fan": "fan", "cellphone": "mobile phone",
    "cougar_body": "cougar", "hawksbill": "sea turtle", "headphone": "electronic equipment",
    "gerenuk": "antelope", "inline_skate": "footwear", "laptop": "laptop computer",
    "lotus": "flower", "mandolin": "stringed instrument", "menorah": "lamp", "octopus": "mollusk",
    "pagoda": "building", "pyramid": "building", "rhino": "ungulate",
    "scissors": "cutting implement", "sea_horse": "fish", "stapler": "fastener",
    "stop_sign": "traffic sign", "wild_cat": "wildcat", "windsor_chair": "chair",
    "wrench": "hand tool", "garfield": "", "snoopy": "",
}  # fmt: skip


@dataclass(frozen=True)
class Accepted:
    """Words that name a class: all, and those that are not too general."""

    words: frozenset[str]
    near: frozenset[str]


@dataclass(frozen=True)
class Named:
    """One cluster with its truth."""

    brief: ClusterBrief
    name: ClusterName
    true_class: str
    purity: float


def accepted_words(
    classes: Sequence[str], entries: Sequence[Mapping[str, Any]]
) -> dict[str, Accepted]:
    """What may stand for each class, by the synonyms and hypernyms of the label file."""
    known = [
        ({entry["name"].lower(), *(s.lower() for s in entry["synonyms"])}, entry["hypernyms"])
        for entry in entries
    ]
    size = Counter(hypernym for _, hypernyms in known for hypernym in set(hypernyms))
    answers = {}
    for each in classes:
        anchor = CALTECH.get(each, each.replace("_", " ").lower())
        own = [(names, above) for names, above in known if anchor in names]
        under = [set(above) for _, above in known if anchor in above]
        words = {anchor} - {""}
        for names, above in own:
            words |= names | set(above)
        if under:
            words |= {w for w in set.intersection(*under) if size[w] >= len(under)}
        near = {word for word in words if size[word] <= _NEAR}
        answers[each] = Accepted(frozenset(words), frozenset(near))
    return answers


def is_right(named: Named, words: frozenset[str]) -> bool:
    """One of the words is in the title or is one of the first three labels."""
    said = f" {named.name.title.lower()} ".replace(",", " ")
    labels = [in_sentence(name).lower() for name, _, _ in named.brief.labels[:3]]
    return any(
        f" {plural(word).lower()} " in said or f" {word} " in said or word in labels
        for word in words
    )


def name_clusters(
    folder: Path, models: Path, *, clusters: int | None, model: str = MODEL, labels: bool = True
) -> list[Named]:
    """Embed, label, cluster and name the pictures of a labelled set."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        truth = {row["file"]: row["label"] for row in csv.DictReader(file)}
    registry = ModelRegistry(models)
    network = open_model(model, registry=registry)
    label_file = registry.labels_path(model)
    if label_file is None:
        raise SystemExit(f"{model} has no label file")
    label_set = LabelSet.from_file(label_file)
    features: list[NDArray[np.float32]] = []
    found: dict[str, tuple[Label, ...]] = {}
    looks: dict[str, tuple[Label, ...]] = {}
    files = sorted(truth)
    with ThreadPoolExecutor(1) as pool:
        for start in range(0, len(files), 32):
            some = files[start : start + 32]
            data = [(folder / "images" / name).read_bytes() for name in some]
            pictures = list(pool.map(decode_image, data))
            pixels = [picture.pixels for picture in pictures]
            features.append(network.features(pixels))
            found |= zip(some, classify(network.logits(pixels), label_set), strict=True)
            for name, picture, content in zip(some, pictures, data, strict=True):
                facts = fingerprint(picture, content)
                looks[name] = visual_attributes(facts.colours, facts.words)
    result = cluster_vectors(np.concatenate(features), config=ClusteringConfig(clusters=clusters))
    members = [
        [files[i] for i in np.flatnonzero(result.labels == record.id)] for record in result.clusters
    ]
    briefs = make_briefs(
        [f"c{record.id + 1:04d}" for record in result.clusters],
        members,
        labels=found if labels else {},
        attributes=looks,
        exemplars=[()] * len(members),
    )
    names = DeterministicDescriber().describe(briefs)
    answers = []
    for brief, name, cluster in zip(briefs, names, members, strict=True):
        ((most, count),) = Counter(truth[file] for file in cluster).most_common(1)
        answers.append(Named(brief, name, most, count / len(cluster)))
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="caltech45")
    parser.add_argument("--clusters", type=int)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--no-labels", action="store_true", help="titles by looks alone")
    options = parser.parse_args()
    clusters = options.clusters or (45 if options.set == "caltech45" else None)
    folder, models = options.shared / "data" / options.set, options.shared / "models"
    named = name_clusters(
        folder, models, clusters=clusters, model=options.model, labels=not options.no_labels
    )
    print_table(named, json.loads((models / "imagenet1k_labels.json").read_text()))


def print_table(named: Sequence[Named], entries: Sequence[Mapping[str, Any]]) -> None:
    accepted = accepted_words(sorted({each.true_class for each in named}), entries)
    print("| title | first labels | mostly | purity | right | near |")
    print("|---|---|---|---|---|---|")
    pure = right = near = 0
    for each in named:
        words = accepted[each.true_class]
        hit, hit_near = is_right(each, words.words), is_right(each, words.near)
        if each.purity >= PURE:
            pure, right, near = pure + 1, right + hit, near + hit_near
        labels = ", ".join(name for name, _, _ in each.brief.labels[:3])
        marks = f"{'yes' if hit else 'no'} | {'yes' if hit_near else 'no'}"
        print(f"| {each.name.title} | {labels} | {each.true_class} | {each.purity:.2f} | {marks} |")
    print(f"\n{len(named)} clusters, {pure} with purity from {PURE}: {right} right, {near} near")


if __name__ == "__main__":
    main()
