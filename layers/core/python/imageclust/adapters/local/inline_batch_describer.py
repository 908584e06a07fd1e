"""Batch descriptions without a service: the describer's work done at once, its answer kept."""

from collections.abc import Sequence

from imageclust import keys
from imageclust.errors import Conflict, CorruptData, ImageclustError, NotFound
from imageclust.models import ClusterBrief, ClusterName, parse_json_lines, to_json_lines
from imageclust.ports import Describer, ObjectStore, Table


class InlineBatchDescriber:
    """Answers as Bedrock's batch inference does, one JSONL record a cluster, but before
    ``submit`` returns. What became of a job is kept in the table, so it survives a restart.

    Args:
        describer: does the work.
        store: keeps the answers, ``{folder}/{job}.jsonl``.
        table: keeps the state of each job.
    """

    def __init__(self, describer: Describer, store: ObjectStore, table: Table) -> None:
        self._describer = describer
        self.model = describer.key
        self._store = store
        self._table = table

    def submit(self, *, job: str, subjects: Sequence[ClusterBrief], folder: str) -> None:
        """Describe the clusters; a job of that name that is done already is left as it is."""
        pk = _job_pk(job)
        try:
            self._table.put(
                {"pk": pk, "sk": keys.POINTER_SK, "state": "running"}, unless_exists=True
            )
        except Conflict:
            if self.status(job=job) == "done":
                return
        try:
            names = self._describer.describe(subjects)
        except ImageclustError as error:
            self._table.update(pk, keys.POINTER_SK, {"state": "failed", "cause": str(error)})
            raise
        records = [
            {"recordId": brief.cluster_id, "name": name.to_json()}
            for brief, name in zip(subjects, names, strict=True)
            if name is not None
        ]
        self._store.write(_answer_uri(folder, job), to_json_lines(records))
        self._table.update(pk, keys.POINTER_SK, {"state": "done", "cause": None})

    def status(self, *, job: str) -> str:
        """``running``, ``done``, ``failed`` or ``unknown``."""
        found = self._table.get(_job_pk(job), keys.POINTER_SK)
        return str(found["state"]) if found else "unknown"

    def stop(self, *, job: str) -> None:
        """A job is over before ``submit`` returns."""

    def collect(self, *, job: str, folder: str) -> dict[str, ClusterName]:
        """Names by cluster id; nothing when the job wrote no answer."""
        try:
            data = self._store.read(_answer_uri(folder, job))
        except NotFound:
            return {}
        try:
            return {
                record["recordId"]: ClusterName.from_json(record["name"])
                for record in parse_json_lines(data)
            }
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData(f"The answer of job {job} does not read back: {error}.") from error


def _job_pk(job: str) -> str:
    return f"batch#{job}"


def _answer_uri(folder: str, job: str) -> str:
    return f"{folder.rstrip('/')}/{job}.jsonl"
