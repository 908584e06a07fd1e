"""Where everything is kept: one S3 prefix an arrow, one table key a record.

URIs are ``s3://BUCKET/KEY`` everywhere. On one machine the same URIs name files: the local object
store maps each bucket to a folder. None of our own keys holds ``=`` or a space (Bedrock's batch
inference refuses them).

====================================  =====================  ==========================
data bucket prefix                    written by             holds
====================================  =====================  ==========================
``manifests/{run}/``                  PlanRun                files, images to embed or label
``vectors/{embedder}/``               Embed                  ``.npy`` shards and sidecars
``labels/{labeler}/``                 Label, Embed; exemplars: ClusterImages
``thumbnails/{aa}/``                  Embed                  320 px WebP by image id
``results/{run}/{state}/``            the Distributed Maps   the ResultWriter's files
``clusters/{digest}/``                ClusterImages          assignments, clusters, matrix
``maps/{digest}``                     DrawMap                places on the flat map
``clusters/progress/{digest}/``       ClusterImages          what an unfinished search has tried
``descriptions/{digest}/``            DescribeClusters       names by cluster
``descriptions/{run}/``               DescribeClusters       captions by image
``records/{run}/``                    PrepareEmbeddings      batch inference input: pictures
``bedrock/{run}/``                    DescribeInBatch, Bedrock: batch inference input, output
``exports/{run}/``                    PublishRun             what people download
``models/``                           ops or the CLI         ONNX files and cards
====================================  =====================  ==========================
"""

import hashlib
from collections.abc import Iterable


def join_uri(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}"


def split_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` → (bucket, key)."""
    if not uri.startswith("s3://"):
        raise ValueError(f"not an s3:// address: {uri!r}")
    bucket, _, key = uri[5:].partition("/")
    return bucket, key


# --- keys in the uploads bucket

NOT_PHOTOS = ".imageclust-not-photos"
"""On one machine, a folder that holds a file of this name is left out of a collection: results
and state that lie among the photos."""


def uploads_prefix(collection: str) -> str:
    return f"{collection}/"


# --- keys in the data bucket


def files_key(run_id: str) -> str:
    return f"manifests/{run_id}/files.jsonl"


def manifest_key(run_id: str, step: str) -> str:
    """``step`` is ``embed`` or ``label``."""
    return f"manifests/{run_id}/{step}.jsonl"


def shard_id(image_ids: Iterable[str]) -> str:
    """Name of the shard that holds these images, in this order: the same batch, the same name."""
    digest = hashlib.sha256()
    for image_id in image_ids:
        digest.update(image_id.encode() + b"\n")
    return digest.hexdigest()[:24]


def vector_key(embedder: str, shard: str) -> str:
    return f"vectors/{embedder}/{shard}.npy"


def sidecar_key(embedder: str, shard: str) -> str:
    return f"vectors/{embedder}/{shard}.jsonl"


def label_key(labeler: str, shard: str) -> str:
    return f"labels/{labeler}/{shard}.jsonl"


def thumbnail_key(image_id: str) -> str:
    return f"thumbnails/{image_id[:2]}/{image_id}.webp"


def clusters_key(digest: str, name: str) -> str:
    return f"clusters/{digest}/{name}"


def search_progress_key(digest: str, name: str) -> str:
    return f"clusters/progress/{digest}/{name}"


def map_key(digest: str) -> str:
    return f"maps/{digest}.npy"


SEARCH_LABELS = "search_labels.npy"  # among a clustering's files; ClusterImages → PublishRun


def descriptions_key(digest: str) -> str:
    return f"descriptions/{digest}/names.jsonl"


def captions_key(run_id: str) -> str:
    return f"descriptions/{run_id}/captions.jsonl"


def bedrock_key(run_id: str, name: str) -> str:
    return f"bedrock/{run_id}/{name}"


def records_key(run_id: str, part: int, name: str) -> str:
    """Records of one batch inference job lie in one folder; no name gives the folder."""
    return f"records/{run_id}/{part:02d}/{name}"


def record_facts_key(run_id: str, batch: str) -> str:
    return f"records/{run_id}/facts/{batch}.jsonl"


def export_key(run_id: str, name: str) -> str:
    return f"exports/{run_id}/{name}"


MODELS_PREFIX = "models/"

# --- the table: pk, sk. See docs/architecture.md for the whole picture.

COLLECTIONS_PK = "collections"


def collection_pk(collection: str) -> str:
    """Runs of a collection (``sk = run_sk``); the collection itself is under COLLECTIONS_PK."""
    return f"collection#{collection}"


def run_sk(run_id: str) -> str:
    return f"run#{run_id}"


def run_pk(run_id: str) -> str:
    """A run's clusters (``sk = cluster_sk``) and its files (``sk = file_sk``)."""
    return f"run#{run_id}"


def cluster_sk(cluster_id: str) -> str:
    return f"cluster#{cluster_id}"


def file_sk(status: str, path: str) -> str:
    """One file of a run by what became of it; a long path is cut and told apart by its digest."""
    if len(path.encode(errors="surrogateescape")) > 800:
        path = path[:180] + hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()
    return f"file#{status}#{path}"


OUTLIERS = "outliers"  # stands for the cluster id of images that no cluster holds

# A DynamoDB partition takes about 1,000 writes/s; a big cluster's members spread over several.
MEMBERS_A_SHARD = 5_000


def member_pk(run_id: str, cluster_id: str, rank: int) -> str:
    return f"members#{run_id}#{cluster_id}#{rank // MEMBERS_A_SHARD:04d}"


def member_sk(rank: int) -> str:
    return f"{rank:08d}"


def image_pk(image_id: str) -> str:
    """One image: ``sk = "image"`` facts, ``sk = run_sk(run)`` its place in a run."""
    return f"image#{image_id}"


IMAGE_SK = "image"


def seen_pk(uri: str) -> str:
    """What content a file had when last hashed (``sk = POINTER_SK``)."""
    return f"seen#{uri}"


def vector_pk(embedder: str, image_id: str) -> str:
    return f"vector#{embedder}#{image_id}"


def caption_pk(captioner: str, image_id: str) -> str:
    return f"caption#{captioner}#{image_id}"


def label_pk(labeler: str, image_id: str) -> str:
    return f"label#{labeler}#{image_id}"


POINTER_SK = "-"


def usage_pk(run_id: str) -> str:
    """What a run bought (``sk`` = state, time and digest of the call)."""
    return f"usage#{run_id}"


TOKENS_PK = "tokens"  # task tokens that wait for batch jobs (``sk`` = run and state)


def index_name(collection: str, embedder: str) -> str:
    """Vector index of a collection and embedder: 3 to 63 of ``[a-z0-9.-]``, as S3 Vectors asks."""
    return f"{collection}-{hashlib.sha256(embedder.encode()).hexdigest()[:12]}"
