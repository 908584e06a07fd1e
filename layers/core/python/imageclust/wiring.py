"""Where ports meet adapters: the only module that imports adapters or reads the environment.

A Lambda function wires itself to AWS on first use. On one machine the command line calls
``use(local_services(...))`` first, and the same handlers then work on files and SQLite.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from imageclust import keys
from imageclust.errors import InvalidInput, RejectedImage, UnknownModel
from imageclust.labels.request import LabelRequest
from imageclust.ports import (
    BatchCaptioner,
    BatchDescriber,
    BatchEmbedder,
    Captioner,
    Describer,
    Events,
    JointModel,
    Labeler,
    Links,
    ObjectStore,
    Scheduler,
    Table,
    VectorIndex,
    Workflows,
)
from imageclust.settings import Settings

if TYPE_CHECKING:
    from imageclust.embedding import Embedder, ModelRegistry, OnnxModel, TextEncoder
    from imageclust.images import DecodePool, Processed


@dataclass(frozen=True)
class Services:
    """Every port, bound to one side of the world.

    ``decode`` turns file contents into pictures of at least the given short side, in order, a
    rejection standing where one cannot be decoded. The ``open_`` functions take the name of a
    model as a run's configuration gives it (``auto`` included); weights are loaded at first use,
    so opening only to read the key is cheap. ``open_joint(embedder, preprocess, labeler)`` is None
    unless one inference serves both, those of the ``open_batch_`` functions where there are no
    batch jobs. ``state_of_job`` tells ``running``, ``done`` (maybe partly), ``failed`` or
    ``unknown`` of a batch job by its name; ``stop_job`` stops it, and one that is over or was
    never started is no error. ``open_text(embedder)`` raises InvalidInput for a model without a
    text tower.
    ``check_model`` asks whether a model of Bedrock can be used: it gives notes on the model's
    life or raises UnknownModel; ``model_sees`` says whether a describer takes pictures, which
    ``open_describer(name, sees)`` then sends to it. ``take_usage`` gives the
    units bought since it was asked last and begins anew. ``close`` ends worker processes and
    connections.
    """

    settings: Settings
    store: ObjectStore
    table: Table
    index: VectorIndex
    workflows: Workflows
    scheduler: Scheduler
    events: Events
    links: Links
    decode: "Callable[[Sequence[bytes], int], Iterable[Processed | RejectedImage]]"
    resolve_embedder: Callable[[str], str]
    resolve_labeler: Callable[[str], str]
    digest_of_model: Callable[[str], str]
    check_model: Callable[[str], tuple[str, ...]]
    model_sees: Callable[[str], bool]
    open_embedder: "Callable[[str, str], Embedder]"
    open_text: "Callable[[str], TextEncoder]"
    open_labeler: Callable[[str], Labeler | None]
    open_joint: Callable[[str, str, str], JointModel | None]
    open_describer: Callable[[str, bool], Describer]
    open_batch_embedder: Callable[[str], BatchEmbedder | None]
    open_batch_describer: Callable[[str, bool], BatchDescriber | None]
    take_usage: Callable[[], dict[str, float]]
    open_captioner: Callable[[str], Captioner]
    open_batch_captioner: Callable[[str], BatchCaptioner | None]
    state_of_job: Callable[[str], str]
    stop_job: Callable[[str], None]
    close: Callable[[], None]


_current: list[Services] = []


def use(services: Services) -> None:
    """Bind the process to these services (the local side, and tests)."""
    _current[:] = [services]


def forget() -> None:
    """Unbind the process; the next ``services()`` reads the environment again."""
    _current.clear()


def services() -> Services:
    """The services of this process; AWS from the environment unless ``use`` bound others."""
    if not _current:
        _current.append(aws_services(Settings.from_environment(os.environ)))
    return _current[0]


LOCAL_SETTINGS = Settings(
    embed_batch=32,
    label_batch=32,
    label_concurrency=100,
    quiet_seconds=5,
    bedrock_batch_minimum=0,
    max_upload_bytes=268_435_456,
    paid=False,
)


def local_services(
    home: Path,
    *,
    workflows: Callable[[ObjectStore], Workflows],
    settings: Settings = LOCAL_SETTINGS,
    base_url: str = "http://127.0.0.1:8080",
    model_folders: Sequence[Path] = (),
) -> Services:
    """Everything on this machine: state under ``home``, no account and no network.

    Args:
        home: the state folder; made if absent.
        workflows: makes the runner of the workflow file, given the object store.
        base_url: where the local server answers, for links.
        model_folders: folders with models beside ``home/models``.
    """
    from imageclust.adapters.local.file_events import FileEvents
    from imageclust.adapters.local.file_store import FileStore
    from imageclust.adapters.local.file_vector_index import FileVectorIndex
    from imageclust.adapters.local.local_links import LocalLinks
    from imageclust.adapters.local.sqlite_table import SqliteTable
    from imageclust.adapters.local.table_scheduler import TableScheduler
    from imageclust.descriptions import DeterministicDescriber, LabelCaptioner
    from imageclust.embedding import ModelRegistry

    roots = {settings.uploads_bucket: home / "uploads", settings.data_bucket: home / "data"}
    for folder in roots.values():
        folder.mkdir(parents=True, exist_ok=True)
    (home / keys.NOT_PHOTOS).touch()
    store = FileStore(roots)
    table = SqliteTable(home / "imageclust.sqlite")
    models = _Models(
        ModelRegistry([home / "models", *model_folders]), megapixels=settings.max_megapixels
    )

    def open_describer(name: str, _sees: bool = False) -> Describer:
        if name not in ("auto", "deterministic"):
            raise UnknownModel(
                f"there is no describer '{name}' on this machine; use auto or deterministic"
            )
        return DeterministicDescriber()

    def close() -> None:
        models.close()
        table.close()

    return Services(
        settings=settings,
        store=store,
        table=table,
        index=FileVectorIndex(home / "vectors"),
        workflows=workflows(store),
        scheduler=TableScheduler(table),
        events=FileEvents(home / "events.jsonl"),
        links=LocalLinks(base_url),
        decode=models.decode,
        resolve_embedder=models.embedder_name,
        resolve_labeler=models.labeler_name,
        digest_of_model=models.digest,
        check_model=lambda _name: (),
        model_sees=lambda _name: False,
        open_embedder=models.embedder,
        open_text=models.text,
        open_batch_embedder=lambda _name: None,
        open_labeler=models.labeler,
        open_joint=models.joint,
        open_describer=open_describer,
        open_batch_describer=lambda _name, _sees: None,
        take_usage=dict,
        open_captioner=lambda _name: LabelCaptioner(),
        open_batch_captioner=lambda _name: None,
        state_of_job=lambda _job: "unknown",
        stop_job=lambda _job: None,
        close=close,
    )


def aws_services(settings: Settings) -> Services:
    """Everything on AWS, as the settings name it. Clients are made at their first use."""
    from imageclust.adapters.aws.bedrock_batch import BedrockBatch
    from imageclust.adapters.aws.bedrock_captioner import BedrockCaptioner, CaptionConversation
    from imageclust.adapters.aws.bedrock_describer import BedrockDescriber, NamingConversation
    from imageclust.adapters.aws.bedrock_embedder import BedrockBatchEmbedder, BedrockEmbedder
    from imageclust.adapters.aws.bedrock_jobs import BedrockJobs
    from imageclust.adapters.aws.bedrock_models import check_model, model_sees
    from imageclust.adapters.aws.clients import Clients
    from imageclust.adapters.aws.dynamo_table import DynamoTable
    from imageclust.adapters.aws.event_bridge import EventBridgeEvents, EventBridgeScheduler
    from imageclust.adapters.aws.rekognition_labeler import RekognitionLabeler
    from imageclust.adapters.aws.s3_links import S3Links
    from imageclust.adapters.aws.s3_store import S3Store
    from imageclust.adapters.aws.s3_vectors_index import S3VectorsIndex
    from imageclust.adapters.aws.step_functions import StepFunctionsWorkflows
    from imageclust.descriptions import DeterministicDescriber, LabelCaptioner
    from imageclust.embedding import ModelRegistry

    clients = Clients(converse_per_second=settings.bedrock_per_second)
    store = S3Store(clients)
    folder = Path(tempfile.gettempdir()) / "imageclust-models"
    models = _Models(
        ModelRegistry(folder),
        decoders=settings.decode_workers,
        megapixels=settings.max_megapixels,
        device=settings.device,
        fetch=lambda name: _fetch_models(store, settings.data_bucket, folder, name),
    )
    jobs = BedrockJobs(clients, role_arn=settings.bedrock_batch_role_arn)
    rekognition: dict[str, Labeler] = {}
    # So many functions embed at once; together they stay within the account's rate.
    share = settings.bedrock_embed_per_second / settings.bedrock_embed_functions
    of_bedrock = cache(lambda name: BedrockEmbedder(clients, name, per_second=share))

    def open_embedder(name: str, preprocess: str) -> "Embedder":
        if not name.startswith("amazon."):
            return models.embedder(name, preprocess)
        if preprocess != "default":
            raise InvalidInput(
                f"Bedrock's models prepare pictures themselves: preprocess must be 'default' "
                f"with {name}, not '{preprocess}'."
            )
        return of_bedrock(name)

    def open_batch_embedder(name: str) -> BatchEmbedder | None:
        if not name.startswith("amazon."):
            return None
        return BedrockBatchEmbedder(of_bedrock(name), jobs)

    def resolve_embedder(name: str) -> str:
        return name if name.startswith("amazon.") else models.embedder_name(name)

    def open_labeler(asked: str) -> Labeler | None:
        request = LabelRequest.parse(asked)
        if not request.by_rekognition:
            return models.labeler(asked)
        if asked not in rekognition:
            floor, most = request.min_confidence, request.max_labels
            rekognition[asked] = RekognitionLabeler(
                clients,
                min_confidence=settings.rekognition_min_confidence if floor is None else floor,
                max_labels=most or settings.rekognition_max_labels,
                properties=request.properties,
                moderation=request.moderation,
                # So many functions label at once; together they stay within the account's rate.
                per_second=settings.rekognition_per_second / settings.label_concurrency,
            )
        return rekognition[asked]

    def open_joint(embedder: str, preprocess: str, labeler: str) -> JointModel | None:
        if embedder.startswith("amazon.") or LabelRequest.parse(labeler).by_rekognition:
            return None
        return models.joint(embedder, preprocess, labeler)

    def model_of(describer: str, *, batch: bool) -> str:
        ours = ("auto", "bedrock", *settings.describers)
        if describer not in ours:
            raise UnknownModel(
                f"there is no describer '{describer}' here; use deterministic or {', '.join(ours)}"
            )
        default = settings.bedrock_batch_model if batch else settings.bedrock_title_model
        return default if describer in ("auto", "bedrock") else describer

    def conversation(name: str, sees: bool, *, batch: bool) -> NamingConversation:
        pictures = store if sees else None
        return NamingConversation(
            model_of(name, batch=batch), language=settings.language, pictures=pictures
        )

    def open_describer(name: str, sees: bool) -> Describer:
        if name == "deterministic":
            return DeterministicDescriber()
        return BedrockDescriber(clients, conversation(name, sees, batch=False))

    def open_batch_describer(name: str, sees: bool) -> BatchDescriber | None:
        if name == "deterministic":
            return None
        return BedrockBatch(clients, store, conversation(name, sees, batch=True), jobs)

    def captions(name: str, *, batch: bool) -> CaptionConversation:
        return CaptionConversation(model_of(name, batch=batch), store, language=settings.language)

    def open_captioner(name: str) -> Captioner:
        if name == "deterministic":
            return LabelCaptioner()
        of_jobs = model_of(name, batch=True)
        return BedrockCaptioner(clients, captions(name, batch=False), batch=of_jobs)

    def open_batch_captioner(name: str) -> BatchCaptioner | None:
        if name == "deterministic":
            return None
        return BedrockBatch(clients, store, captions(name, batch=True), jobs)

    # What a model is changes seldom: a process asks once.
    checked = cache(lambda model: check_model(clients, model))
    seeing = cache(lambda model: model_sees(clients, model))

    def models_of(name: str) -> Iterable[str]:
        if name == "deterministic":
            return ()
        if name in ("auto", "bedrock"):
            return dict.fromkeys((settings.bedrock_title_model, settings.bedrock_batch_model))
        return (name,)

    return Services(
        settings=settings,
        store=store,
        table=DynamoTable(clients, settings.table_name),
        index=S3VectorsIndex(clients, settings.vector_bucket),
        workflows=StepFunctionsWorkflows(clients, settings.state_machine_arn),
        scheduler=EventBridgeScheduler(
            clients,
            group=settings.schedule_group,
            target_arn=settings.start_function_arn,
            role_arn=settings.schedule_role_arn,
        ),
        events=EventBridgeEvents(clients, settings.event_bus),
        links=S3Links(clients),
        decode=models.decode,
        resolve_embedder=resolve_embedder,
        resolve_labeler=lambda name: "rekognition" if name == "auto" else name,
        digest_of_model=models.digest,
        check_model=lambda name: tuple(note for each in models_of(name) for note in checked(each)),
        model_sees=lambda name: name != "deterministic" and all(map(seeing, models_of(name))),
        open_embedder=open_embedder,
        open_text=models.text,
        open_batch_embedder=open_batch_embedder,
        open_labeler=open_labeler,
        open_joint=open_joint,
        open_describer=open_describer,
        open_batch_describer=open_batch_describer,
        take_usage=clients.meter.take,
        open_captioner=open_captioner,
        open_batch_captioner=open_batch_captioner,
        state_of_job=jobs.status,
        stop_job=jobs.stop,
        close=models.close,
    )


def _fetch_models(store: ObjectStore, bucket: str, folder: Path, name: str) -> None:
    """Bring cards, label files and the named model's weights (``auto``: all) to this machine.

    Text towers stay where they are: no function reads text.
    """
    from imageclust.embedding.cards import TEXT_SUFFIX, TOKENIZER_SUFFIX

    folder.mkdir(parents=True, exist_ok=True)
    for item in store.list(bucket, keys.MODELS_PREFIX):
        file = item.uri.rpartition("/")[2]
        target = folder / file
        wanted = file.endswith((".json", ".txt")) or name == "auto" or file == f"{name}.onnx"
        text = file.endswith((TEXT_SUFFIX, TOKENIZER_SUFFIX))
        if wanted and not text and not (target.exists() and target.stat().st_size == item.size):
            partial = target.with_name(f".{file}.part")
            shutil.copyfile(store.path(item.uri), partial)
            partial.replace(target)


class _Models:
    """The models of a registry, each opened once: a warm process keeps its sessions."""

    def __init__(
        self,
        registry: "ModelRegistry",
        *,
        decoders: int | None = None,
        megapixels: int = 200,
        device: str = "cpu",
        fetch: Callable[[str], None] | None = None,
    ) -> None:
        self._registry = registry
        self._decoders = decoders
        self._megapixels = megapixels
        self._device = device
        self._fetch = fetch
        self._fetched: set[str] = set()
        self._pools: dict[int, DecodePool] = {}
        self._models: dict[tuple[str, str], OnnxModel] = {}
        self._texts: dict[str, TextEncoder] = {}
        self._builtin: dict[str, Embedder] = {}
        self._labelers: dict[str, Labeler] = {}
        self._lock = threading.Lock()

    def embedder(self, name: str, preprocess: str) -> "Embedder":
        from imageclust.embedding import BUILTIN, OnnxEmbedder, open_embedder

        preprocess, at, side = preprocess.partition("@")
        if at:
            if not (side.isascii() and side.isdigit()):
                raise InvalidInput(f"The resolution after '@' must be a number, not {side!r}.")
            from imageclust.embedding.reduced import ReducedEmbedder

            return ReducedEmbedder(self.embedder(name, preprocess), int(side))
        chosen = self.embedder_name(name)
        if chosen == BUILTIN:
            with self._lock:
                if preprocess not in self._builtin:
                    self._builtin[preprocess] = open_embedder(
                        BUILTIN, registry=self._registry, preprocess=preprocess
                    )
                return self._builtin[preprocess]
        return OnnxEmbedder(self._model(chosen, preprocess))

    def text(self, name: str) -> "TextEncoder":
        from imageclust.embedding import open_text

        with self._lock:
            if name not in self._texts:
                self._texts[name] = open_text(name, registry=self._registry)
            return self._texts[name]

    def labeler(self, asked: str) -> Labeler | None:
        from imageclust.adapters.local.onnx_labeler import OnnxLabeler
        from imageclust.labels.classify import MAX_LABELS, MIN_CONFIDENCE

        request = LabelRequest.parse(asked)
        for wanted, name in (
            (request.moderation, "moderation"),
            (request.properties, "image_properties"),
        ):
            if wanted:
                raise InvalidInput(
                    f"{name} needs Rekognition, on AWS: leave it off, or use labeler 'rekognition'"
                )
        chosen = self.labeler_name(request.labeler)
        if chosen == "auto":
            return None
        model = self._model(chosen, "default")
        with self._lock:
            if asked not in self._labelers:
                labels = self._registry.labels_path(chosen)
                if labels is None:
                    raise InvalidInput(f"The model {chosen} has no classes to label with.")
                floor = request.min_confidence
                self._labelers[asked] = OnnxLabeler(
                    model,
                    labels,
                    min_confidence=MIN_CONFIDENCE if floor is None else floor,
                    max_labels=request.max_labels or MAX_LABELS,
                )
            return self._labelers[asked]

    def embedder_name(self, name: str) -> str:
        """The embedder that ``name`` stands for now."""
        from imageclust.embedding import BUILTIN

        if name != BUILTIN:
            self._bring(name)
        return self._best(labels=False) or BUILTIN if name == "auto" else name

    def labeler_name(self, name: str) -> str:
        """The labeler that ``name`` stands for now; ``auto`` stays when there is none."""
        self._bring(name)
        return self._best(labels=True) or name if name == "auto" else name

    def digest(self, name: str) -> str:
        """SHA-256 of an installed model's file; empty for models without a file of ours."""
        ready = {e.name: e.card for e in self._registry.list() if e.state == "installed"}
        card = ready.get(name)
        return card.sha256 if card else ""

    def joint(self, embedder: str, preprocess: str, labeler: str) -> JointModel | None:
        from imageclust.adapters.local.onnx_labeler import OnnxJoint, OnnxLabeler
        from imageclust.embedding import OnnxEmbedder

        embeds, labels = self.embedder(embedder, preprocess), self.labeler(labeler)
        if not (isinstance(embeds, OnnxEmbedder) and isinstance(labels, OnnxLabeler)):
            return None
        return OnnxJoint(embeds.model, labels) if embeds.model is labels.model else None

    def decode(
        self, contents: "Sequence[bytes]", min_side: int
    ) -> "Iterable[Processed | RejectedImage]":
        from imageclust.images import DecodeLimits, DecodePool, ProcessOptions

        with self._lock:
            if min_side not in self._pools:
                limits = DecodeLimits.of_megapixels(self._megapixels)
                self._pools[min_side] = DecodePool(
                    workers=self._decoders,
                    options=ProcessOptions(min_side=min_side, limits=limits),
                )
            pool = self._pools[min_side]
        return pool.map(contents)

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()

    def _bring(self, name: str) -> None:
        with self._lock:
            if self._fetch is not None and name not in self._fetched:
                self._fetch(name)
                self._fetched.add(name)

    def _model(self, name: str, preprocess: str) -> "OnnxModel":
        from imageclust.embedding import open_model

        with self._lock:
            if (name, preprocess) not in self._models:
                self._models[name, preprocess] = open_model(
                    name, registry=self._registry, preprocess=preprocess, device=self._device
                )
            return self._models[name, preprocess]

    def _best(self, *, labels: bool) -> str | None:
        """The installed model with the longest features, the smaller file among equals."""
        ready = [
            (-card.features.dimension, self._registry.path(card.name).stat().st_size, card.name)
            for entry in self._registry.list()
            if entry.state == "installed" and (card := entry.card)
            if not labels or (card.logits and card.labels)
        ]
        return min(ready)[2] if ready else None
