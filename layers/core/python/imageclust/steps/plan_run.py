"""PlanRun: list the collection, name each file by its content, write what is left to do.

Content is read once a file: ``seen`` items remember the digest of a file by its address, size
and etag. A collection too large for one call comes back with ``complete: false`` and the
workflow calls again; what was hashed stays hashed.
"""

import hashlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from imageclust import keys
from imageclust.clustering import ClusteringConfig, check_bounds
from imageclust.costs import Cached, Place, dollars, embeds_in_batch, estimate, within_budget
from imageclust.descriptions.words import counted
from imageclust.errors import InvalidInput, NotFound, Permanent
from imageclust.labels.request import LabelRequest
from imageclust.models import JSON, FileSeen, ImageRef, RunConfig, RunRequest, to_json_lines
from imageclust.ports import StoredObject
from imageclust.settings import Settings
from imageclust.steps.captions import count_captions
from imageclust.steps.gather import kept_paths
from imageclust.steps.pictures import REMOVED, image_id_of, without_labels, without_vectors
from imageclust.steps.start_run import title_of
from imageclust.wiring import Services

_CHUNK = 2_000  # files hashed between two looks at the clock
_CHUNK_BYTES = 4_000_000_000  # and bytes of them, which take a minute or two
_LEAST_LABEL_BATCH = 16
_VECTOR_COPIES = 3  # float32: as gathered, as clustered, as stored
_FACTS_BYTES = 6_000  # of an image, in Python's objects
_BATCH_BYTES = 200_000  # of the 256 KB that Step Functions hands to a state
_LEAST_EMBED_BATCH = 8
_READERS = 8  # S3 reads wait for the network, local ones for the disk


def plan_run(
    services: Services,
    request: RunRequest,
    *,
    keep: Collection[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> JSON:
    """Plan one run; returns counts, addresses and the choice of embedder and labeler.

    Args:
        keep: paths of files that stay in whatever the sample leaves out.

    Raises:
        InvalidInput: no files, an unknown model, a keeper that is no file, bounds that no
            clustering can meet, or more images than its memory holds.
    """
    deadline = clock() + services.settings.plan_seconds
    # Frozen here: a model that is installed while the run is under way changes nothing of it.
    config = replace(
        request.config,
        embedder=services.resolve_embedder(request.config.embedder),
        labeler=services.resolve_labeler(request.config.labeler),
    )
    embedder = services.open_embedder(config.embedder, config.preprocess)
    asked = str(LabelRequest.of(config))
    labeler = None if config.labels == "off" else services.open_labeler(asked)
    if config.labels == "exemplars" and services.settings.paid and config.labeler != "rekognition":
        # ClusterImages labels them, and ONNX Runtime does not fit into its function.
        raise InvalidInput("on AWS only Rekognition labels exemplars: use labeler 'auto'")
    _check_describers(services, config)
    files, complete = _name_files(services, request.collection, lambda: clock() > deadline)
    if not complete:
        return {"complete": False, "images": {"seen": len(files)}}
    if not files:
        title = title_of(services.table, request.collection)
        raise InvalidInput(f"there are no files in '{title}': put pictures there, then run again")
    files = _sample(files, config, {*keep, *kept_paths(files, config.keepers)})
    images = _distinct(files)
    check_bounds(len(images), clustering_config(config))
    _check_memory(len(images), embedder.dimension, config, services.settings)

    to_embed = without_vectors(services, images, embedder.key)
    notes: tuple[str, ...] = ()
    if to_embed and config.embedder.startswith("amazon."):
        notes += services.check_model(config.embedder)
    # Exemplars are known once there are vectors: ClusterImages has them labelled.
    unlabelled = [] if labeler is None else without_labels(services, images, labeler.key)
    for name in config.describers:
        notes += services.check_model(name)
    sees = [name for name in config.describers if services.model_sees(name)]
    captioner = _captioner(services, config, sees)
    captioned = 0
    if config.captions == "all":
        captioned = count_captions(services, captioner, [image.image_id for image in images])
    cached = Cached(
        vectors=len(images) - len(to_embed),
        labels=len(images) - len(unlabelled),
        captions=captioned,
    )
    place = Place.of(services.settings)
    # The images are the sample already.
    whole, given_up = within_budget(
        len(images), replace(config, sample=1.0), cached=cached, place=place
    )
    expected = estimate(len(images), whole, cached=cached, place=place)
    config = replace(whole, sample=config.sample)
    sees = [name for name in sees if name in config.describers]
    captioner = _captioner(services, config, sees)
    told = [*notes, *given_up]
    if captioner == "deterministic" and (labeler is None or config.labels == "off"):
        told.append("captions are made from labels here, and this run has none")
    if config.label_weight and (labeler is None or config.labels == "off"):
        told.append("the label weight counts for nothing: this run has no labels")
    every = labeler if config.labels == "full" else None
    to_label = [] if every is None else unlabelled
    joint = services.open_joint(config.embedder, config.preprocess, asked)
    if every is not None and joint is not None:
        # Those that Embed is about to look at get their labels from the same inference.
        embedding = {image.image_id for image in to_embed}
        to_label = [image for image in to_label if image.image_id not in embedding]
    bucket, run_id = services.settings.data_bucket, request.run_id
    documents = {
        keys.files_key(run_id): [file.to_json() for file in files],
        keys.manifest_key(run_id, "embed"): [image.to_json() for image in to_embed],
        keys.manifest_key(run_id, "label"): [image.to_json() for image in to_label],
    }
    for key, rows in documents.items():
        services.store.write(
            keys.join_uri(bucket, key), to_json_lines(rows), content_type="application/jsonl"
        )
    return {
        "complete": True,
        "images": {
            "seen": len(files),
            "distinct": len(images),
            "to_embed": len(to_embed),
            "to_label": len(to_label),
        },
        "files": {"bucket": bucket, "key": keys.files_key(run_id)},
        "embedder": embedder.key,
        "labeler": "" if labeler is None or config.labels == "off" else labeler.key,
        "digests": {
            "embedder": services.digest_of_model(config.embedder),
            "labeler": services.digest_of_model(config.labeler) if labeler is not None else "",
        },
        "config": config.to_json(),
        "notes": told,
        "sees": sees,
        "captioner": captioner,
        "estimate": expected.by_stage(),
        "embed": {
            **_place_embedding(services, config, to_embed),
            "model": f"{config.embedder}/{config.preprocess}",
            "labeler": asked if every is not None and joint is not None else "",
            "manifest": {"bucket": bucket, "key": keys.manifest_key(run_id, "embed")},
            "prepare_concurrency": services.settings.map_concurrency,
        },
        "label": {
            "placement": "lambda" if to_label else "none",
            "model": asked,
            "manifest": {"bucket": bucket, "key": keys.manifest_key(run_id, "label")},
            "batch": min(
                label_batch_size(services.settings, len(to_label)), _most_in_a_batch(to_label)
            ),
            "concurrency": services.settings.label_concurrency,
        },
    }


def _check_memory(images: int, dimension: int, config: RunConfig, settings: Settings) -> None:
    """Refuse what ClusterImages cannot hold in any case, before anything is paid for."""
    least = _VECTOR_COPIES * 4 * dimension + _FACTS_BYTES
    most = settings.cluster_memory_mb * 1024**2 // least
    if settings.cluster_memory_mb and images > most:
        share = math.floor(100 * config.sample * most / images) / 100
        raise InvalidInput(
            f"{images:,} images with vectors of {dimension:,} numbers do not fit into the memory "
            f"of ClusterImages ({settings.cluster_memory_mb:,} MB), at most {most:,} do: set "
            f"sample to {share:g} or less, split the collection, or run it on a machine of your own"
        )


def _check_describers(services: Services, config: RunConfig) -> None:
    """Refuse an unknown describer, or one model under two names, before anything is paid."""
    asked: dict[str, str] = {}
    for name in config.describers:
        key = services.open_describer(name, False).key
        if key in asked:
            raise InvalidInput(f"the describers {asked[key]} and {name} are the same model")
        asked[key] = name


def _captioner(services: Services, config: RunConfig, sees: Sequence[str]) -> str:
    """Who captions images: the first describer that sees, else their labels; empty for nobody."""
    if config.captions == "off":
        return ""
    plain = not services.settings.paid or "deterministic" in config.describers
    if not sees and not plain:
        raise InvalidInput(
            f"captions are made from pictures, and of the describers ({config.describer}) none "
            "takes any: add one that does, or 'deterministic' for captions from labels"
        )
    return sees[0] if sees else "deterministic"


def clustering_config(config: RunConfig) -> ClusteringConfig:
    """The part of a run's configuration that the clustering engine reads."""
    return ClusteringConfig(
        method=config.method,
        mode=config.mode,
        clusters=config.clusters,
        target_size=config.target_size,
        min_size=config.min_size,
        max_size=config.max_size,
        outliers=config.outliers,
        seed=config.seed,
        time_budget_s=config.search_seconds,
        weights=(config.silhouette_weight, config.balance_weight, config.noise_weight),
    )


def label_batch_size(settings: Settings, images: int) -> int:
    """Images a call of Label.

    Many, as a call's last answers leave its share of the rate unused; so few that a call takes
    about a minute of its time-out; and such that the functions that share the rate end together.
    """
    if not settings.paid:
        return settings.label_batch
    functions = settings.label_concurrency
    a_minute = int(60 * settings.rekognition_per_second / functions)
    most = max(1, min(settings.label_batch, a_minute))
    rounds = max(1, math.ceil(images / (functions * most)))
    return max(min(_LEAST_LABEL_BATCH, most), math.ceil(images / (functions * rounds)))


def _most_in_a_batch(images: Sequence[ImageRef]) -> int:
    """How many of the images one call can be told of, whatever their names."""
    longest = max((len(to_json_lines([image.to_json()])) for image in images), default=1)
    return max(1, _BATCH_BYTES // longest)


def _place_embedding(services: Services, config: RunConfig, images: Sequence[ImageRef]) -> JSON:
    """Where the images are embedded and why, how many a call and how many calls at once.

    ``parts`` are what the first image ids of each batch inference job begin with.
    """
    settings, count, named = services.settings, len(images), counted(len(images), "image")
    batch = services.open_batch_embedder(config.embedder)
    place: JSON = {
        "placement": "lambda",
        "jobs": 0,
        "parts": [],
        "batch": settings.embed_batch,
        "concurrency": settings.map_concurrency,
    }
    if count == 0:
        return {**place, "placement": "none", "why": "every vector is already stored"}
    if batch is not None:
        place["concurrency"] = functions = settings.bedrock_embed_functions
        least, saving = settings.bedrock_batch_minimum, settings.embed_batch_saving_usd
        prices, _ = Place.of(settings).priced().in_region(settings.aws_region)
        if not embeds_in_batch(count, config, settings, prices=prices):
            # Few images go to all functions too: each has its share of the rate.
            share = max(min(_LEAST_EMBED_BATCH, settings.embed_batch), math.ceil(count / functions))
            place["batch"] = min(settings.embed_batch, share)
            if config.embed == "on_demand":
                why = "the run asks for embeddings on demand"
            elif count < least:
                why = f"{named}, below the {least} of a batch inference job"
            else:
                why = f"{named}: batch inference would save less than {dollars(saving)}"
            return {**place, "why": why}
        size = settings.embed_batch  # a part ends where a batch of the map does
        jobs = math.ceil(count / (batch.records_a_job // size * size))
        step = math.ceil(count / jobs / size) * size
        parts = [image.image_id[:16] for image in images[::step]]
        asked = "as the run asks" if config.embed == "batch" else f"saves {dollars(saving)} or more"
        why = f"{named} by batch inference, at half the price: {asked}"
        return {
            **place,
            "placement": "bedrock_batch",
            "jobs": len(parts),
            "parts": parts,
            "why": why,
        }
    if settings.gpu_enabled and count >= settings.gpu_from:
        jobs = min(10, math.ceil(count / settings.gpu_images_a_job))
        why = f"{named}, and GPU jobs take over from {settings.gpu_from}"
        return {**place, "placement": "gpu", "jobs": jobs, "why": why}
    why = f"{named}, below {settings.gpu_from}" if settings.gpu_enabled else "GPU is off"
    return {**place, "why": why}


def _name_files(
    services: Services, collection: str, out_of_time: Callable[[], bool]
) -> tuple[list[FileSeen], bool]:
    """Every file with its image id or the reason it has none; False when time ran out first."""
    bucket, prefix = services.settings.uploads_bucket, keys.uploads_prefix(collection)
    listed = list(services.store.list(bucket, prefix))
    root = len(keys.join_uri(bucket, prefix))
    named: list[FileSeen] = []
    start = 0
    while start < len(listed):
        if start and out_of_time():
            return named, False
        end, size = start, 0
        while end < len(listed) and end - start < _CHUNK and size < _CHUNK_BYTES:
            size += listed[end].size
            end += 1
        named += _name_chunk(services, listed[start:end], root)
        start = end
    return named, True


def _name_chunk(services: Services, chunk: Sequence[StoredObject], root: int) -> list[FileSeen]:
    known = services.table.get_many((keys.seen_pk(item.uri), keys.POINTER_SK) for item in chunk)
    named: dict[str, FileSeen] = {}
    unread: list[tuple[StoredObject, FileSeen]] = []
    for item in chunk:
        file = FileSeen(path=item.uri[root:], uri=item.uri, size=item.size)
        image_id = image_id_of(item, known.get((keys.seen_pk(item.uri), keys.POINTER_SK)))
        if image_id is not None:
            named[item.uri] = replace(file, image_id=image_id)
        else:
            unread.append((item, file))
    if unread:
        with ThreadPoolExecutor(_READERS) as pool:
            answers = list(pool.map(lambda pair: _read_name(services, *pair), unread))
        services.table.put_many(pointer for _, pointer in answers if pointer)
        named.update((file.uri, file) for file, _ in answers)
    return [named[item.uri] for item in chunk]


def _read_name(
    services: Services, item: StoredObject, file: FileSeen
) -> tuple[FileSeen, JSON | None]:
    """The file with the digest of its content and what to remember, or the reason it has none."""
    most = services.settings.max_upload_bytes
    if item.size > most:
        said = f"The file has {item.size:,} bytes; at most {most:,} are read."
        return replace(file, reason=said), None
    try:
        image_id = hashlib.sha256(services.store.read(item.uri)).hexdigest()
    except NotFound:
        return replace(file, reason=REMOVED), None
    except (InvalidInput, Permanent) as error:
        return replace(file, reason=str(error)), None
    pointer = {
        "pk": keys.seen_pk(item.uri),
        "sk": keys.POINTER_SK,
        "etag": item.etag,
        "size": item.size,
        "image_id": image_id,
    }
    return replace(file, image_id=image_id), pointer


def _sample(files: list[FileSeen], config: RunConfig, keep: Collection[str]) -> list[FileSeen]:
    """Keep a share of the distinct images (at least one), the same ones for the same seed.

    Each image has its own place in the lottery, so a larger share holds the smaller one, and the
    files to ``keep`` come in addition.
    """
    if config.sample >= 1:
        return files
    ids = {file.image_id or file.uri for file in files}
    wanted = math.ceil(config.sample * len(ids))
    chosen = set(
        sorted(ids, key=lambda i: hashlib.sha256(f"{config.seed}:{i}".encode()).digest())[:wanted]
    )
    chosen.update(file.image_id or file.uri for file in files if file.path in keep)
    return [file for file in files if (file.image_id or file.uri) in chosen]


def _distinct(files: list[FileSeen]) -> list[ImageRef]:
    """One reference a content, in order of image id; the first file by path stands for it."""
    first: dict[str, ImageRef] = {}
    for file in files:
        if file.image_id is not None:
            first.setdefault(file.image_id, ImageRef(file.image_id, file.uri, file.size))
    return [first[image_id] for image_id in sorted(first)]
