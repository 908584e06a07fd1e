"""Who may do what: one short paragraph a function. ``docs/security.md`` is made from the result."""

from collections.abc import Mapping

from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam

from infra.constructs.bedrock import Bedrock
from infra.constructs.gpu import GpuQueue
from infra.constructs.storage import Storage
from infra.constructs.uploads import UploadEvents
from infra.constructs.workflow import Workflow
from infra.permissions import allow


def grant_entries(
    roles: Mapping[str, iam.Role], *, storage: Storage, uploads: UploadEvents, workflow: Workflow
) -> None:
    """What starts runs and answers questions: ingest, start_run, api."""
    ingest = roles["ingest"]
    storage.grant_table(ingest, reason="mark a collection as changed")
    uploads.grant_schedule(ingest, reason="one timer a collection, moved by each upload")

    start_run = roles["start_run"]
    api = roles["api"]
    for role in (start_run, api):
        storage.grant_table(role, reason="claim the collection, create the run, read its state")
        workflow.grant_start(role, reason="start the workflow")
        workflow.grant_stop(role, reason="stop a run that was cancelled")
        uploads.grant_schedule(role, reason="look again while a run is going")

    storage.grant_write_uploads(api, reason="sign uploads: a link has the rights of its signer")
    storage.grant_read_uploads(api, reason="sign downloads of photos")
    storage.grant_read_data(api, "thumbnails", "exports", reason="sign downloads")


def grant_steps(roles: Mapping[str, iam.Role], *, storage: Storage, uploads: UploadEvents) -> None:
    """What the states of the workflow do, Bedrock apart."""
    plan_run = roles["plan_run"]
    storage.grant_read_uploads(plan_run, reason="list the collection and hash new files")
    storage.grant_read_data(
        plan_run,
        "manifests",
        "models",
        "vectors",
        "labels",
        reason="resolve the models; a cached shard must be there and whole",
    )
    storage.grant_write_data(plan_run, "manifests", reason="the run's manifests")
    storage.grant_table(plan_run, reason="what is cached need not be paid again")

    grant_embed(roles["embed"], storage=storage, batch=True)
    submit = roles["embed_in_batch"]
    storage.grant_list_data(submit, reason="count the records of each job")
    storage.grant_table(submit, reason="the task token, saved before the jobs")

    label = roles["label"]
    storage.grant_read_uploads(label, reason="the photos of a batch")
    storage.grant_read_data(label, "labels", "models", reason="shards that exist; models")
    storage.grant_write_data(label, "labels", reason="label shards")
    storage.grant_table(label, reason="pointers to labels")
    grant_labelling(label)

    cluster = roles["cluster"]
    storage.grant_read_data(
        cluster,
        "manifests",
        "vectors",
        "labels",
        "clusters",
        "descriptions",
        "thumbnails",
        reason="vectors, labels, pictures to compare and to label; results and names that exist",
    )
    storage.grant_write_data(
        cluster, "clusters", "labels", reason="assignments and clusters; labels of exemplars"
    )
    storage.grant_delete_data(
        cluster, "clusters/progress", reason="what a search tried, once its result is stored"
    )
    storage.grant_table(cluster, reason="pointers to vectors and labels; progress")
    grant_labelling(cluster)

    draw_map = roles["draw_map"]
    storage.grant_read_data(
        draw_map, "clusters", "maps", reason="the vectors, which images to show; a map that exists"
    )
    storage.grant_write_data(draw_map, "maps", reason="places on the map")
    storage.grant_table(draw_map, reason="what the run used")

    publish = roles["publish"]
    storage.grant_read_data(
        publish,
        "manifests",
        "vectors",
        "labels",
        "clusters",
        "maps",
        "descriptions",
        reason="everything that the run made",
    )
    storage.grant_write_data(publish, "exports", reason="what people download")
    storage.grant_table(publish, reason="items of the run; the collection's pointer")
    storage.grant_fill_vectors(
        publish, reason="fill the collection's search index, remove from it what is gone"
    )
    uploads.grant_schedule(publish, reason="start another run if files changed during this one")

    failure = roles["record_failure"]
    storage.grant_table(failure, reason="the run says what failed, why, and what to do")
    uploads.grant_schedule(failure, reason="start another run if files changed during this one")


def grant_embed(role: iam.Role, *, storage: Storage, batch: bool = False) -> None:
    """The Embed step, as a function or as a job on the GPU.

    With ``batch`` also what comes before and after a batch inference job.
    """
    storage.grant_read_uploads(role, reason="the photos of a batch")
    storage.grant_read_data(
        role,
        *("manifests", "models", "vectors", "labels"),
        *(("records", "bedrock") if batch else ()),
        reason="models; shards that exist" + ("; records and their answers" if batch else ""),
    )
    storage.grant_write_data(
        role,
        *("vectors", "labels", "thumbnails"),
        *(("records",) if batch else ()),
        reason="shards of vectors and labels, thumbnails" + (", records" if batch else ""),
    )
    storage.grant_table(role, reason="pointers to vectors and facts of images")


def grant_labelling(role: iam.Role) -> None:
    """Ask Rekognition: Label for whole collections, ClusterImages for exemplars."""
    allow(
        role,
        "DetectLabels",
        actions=["rekognition:DetectLabels", "rekognition:DetectModerationLabels"],
        resources=["*"],
        reason="these calls have no resources to name; moderation only where a run asks for it",
    )


def grant_bedrock(
    roles: Mapping[str, iam.Role], *, storage: Storage, bedrock: Bedrock, workflow: Workflow
) -> None:
    """What names the clusters, and the embedding models of Bedrock."""
    for name in ("describe", "describe_in_batch"):
        storage.grant_read_data(
            roles[name],
            "clusters",
            "labels",
            "thumbnails",
            "descriptions",
            "bedrock",
            reason="clusters, labels and pictures to describe, answers that exist",
        )
        storage.grant_table(roles[name], reason="task tokens; labels; captions")
    describe = roles["describe"]
    storage.grant_write_data(describe, "descriptions", reason="names of clusters, captions")
    bedrock.grant_describe(describe, reason="name clusters, caption images, one request each")
    submit = roles["describe_in_batch"]
    storage.grant_write_data(submit, "bedrock", reason="the job's input")
    bedrock.grant_submit(submit, reason="start the batch inference job")
    bedrock.grant_submit_embeddings(
        roles["embed_in_batch"], reason="start the jobs that embed by batch inference"
    )
    for name in ("describe_in_batch", "batch_job_event", "embed_in_batch"):
        bedrock.grant_watch(roles[name], reason="find a job by its name, see how it stands")
    bedrock.grant_embed(roles["embed"], reason="for runs that ask for an embedder of Bedrock")
    bedrock.grant_check(
        roles["plan_run"], reason="a model that is closed or withdrawn is found before it is needed"
    )
    answer = roles["batch_job_event"]
    storage.grant_delete_items(answer, reason="a task token that was given back")
    bedrock.grant_stop(answer, reason="the jobs of a run that was cancelled")
    storage.grant_table(answer, reason="the saved task token")
    workflow.grant_answer(answer, reason="give the waiting state its result")


def grant_workflow(*, storage: Storage, workflow: Workflow, gpu: GpuQueue | None) -> None:
    """What the state machine itself does: read manifests, write results, run GPU jobs."""
    storage.grant_read_data(
        workflow.role, "manifests", "results", reason="items of a Distributed Map; its results"
    )
    storage.grant_write_data(workflow.role, "results", reason="the Distributed Maps' results")
    storage.grant_parts(
        workflow.role, "results", reason="a ResultWriter uploads large results in parts"
    )
    if gpu is not None:
        gpu.grant_submit(workflow.role)
        grant_embed(gpu.job_role, storage=storage)


def grant_events(roles: Mapping[str, iam.Role], *, bus: events.IEventBus) -> None:
    """Who tells the world what happened."""
    for name, reason in (
        ("ingest", "an upload that belongs to no collection"),
        ("publish", "a run has succeeded"),
        ("record_failure", "a run has failed"),
        ("start_run", "a run was found dead"),
        ("api", "a run was found dead"),
    ):
        allow(
            roles[name],
            "TellOthers",
            actions=["events:PutEvents"],
            resources=[bus.event_bus_arn],
            reason=reason,
        )
