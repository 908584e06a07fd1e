"""One account on moto with the stack's resources, and the executor of its workflow."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from imageclust import keys, wiring
from imageclust.models import RunConfig
from imageclust.settings import Settings
from imageclust.steps import start_run as runs
from imageclust.wiring import Services
from moto import mock_aws

from functions import batch_job_event, ingest
from local.workflows import LocalWorkflows
from tests.infra.from_template import resources_from_template
from tests.standins.fake_bedrock import FakeBedrock
from tests.standins.fake_rekognition import FakeRekognition
from tests.standins.fake_s3vectors import FakeS3Vectors

ACCOUNT, REGION = "123456789012", "us-east-1"


@dataclass
class Cloud:
    """One account on moto with the stack's resources, and the executor of its workflow."""

    services: Services
    workflows: LocalWorkflows
    queue_url: str
    bedrock: FakeBedrock

    def upload(self, photos: Path, collection: str) -> None:
        """Put each file as a client does; S3 tells EventBridge, whose rule fills the queue."""
        s3 = boto3.client("s3")
        for path in sorted(photos.rglob("*")):
            if path.is_file():
                key = f"{collection}/{path.relative_to(photos)}"
                s3.put_object(Bucket="uploads", Key=key, Body=path.read_bytes())

    def drain(self) -> int:
        """What the queue's event source does: batches to ingest, until it is empty."""
        sqs = boto3.client("sqs")
        handled = 0
        while True:
            found = sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10)
            messages = found.get("Messages", [])
            if not messages:
                return handled
            answer = ingest.handler({"Records": [_record(m) for m in messages]}, None)
            assert answer == {"batchItemFailures": []}
            handled += len(messages)
            for message in messages:
                sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])

    def due(self) -> list[dict[str, Any]]:
        """Payloads of the one-off schedules that wait."""
        scheduler = boto3.client("scheduler")
        listed = scheduler.list_schedules(GroupName="imageclust")["Schedules"]
        found = [
            scheduler.get_schedule(GroupName="imageclust", Name=item["Name"]) for item in listed
        ]
        for schedule in found:
            assert schedule["ActionAfterCompletion"] == "DELETE"
            assert schedule["ScheduleExpression"].startswith("at(")
            assert schedule["Target"]["Arn"] == self.services.settings.start_function_arn
        return [json.loads(schedule["Target"]["Input"]) for schedule in found]

    def execute(self, run_id: str) -> dict[str, Any]:
        """Run the workflow over the input that Step Functions was given; the run's item."""
        arn = self.services.settings.state_machine_arn.replace(":stateMachine:", ":execution:")
        told = boto3.client("stepfunctions").describe_execution(executionArn=f"{arn}:{run_id}")
        self.workflows.start(run_id, json.loads(told["input"]))
        execution = self.workflows.wait(run_id)
        assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
        return run_item(self.services, run_id)


def _record(message: Any) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": {},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:uploads",
        "awsRegion": REGION,
    }


@pytest.fixture
def rekognition() -> FakeRekognition:
    return FakeRekognition()


@pytest.fixture
def cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rekognition: FakeRekognition
) -> Iterator[Cloud]:
    # A function that starts cold has no models and objects from before.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bedrock = FakeBedrock()
    with mock_aws(), FakeS3Vectors().serve(), rekognition.serve(), bedrock.serve():
        template = resources_from_template()
        template.create(
            s3=boto3.client("s3"),
            dynamodb=boto3.client("dynamodb"),
            uploads_bucket="uploads",
            data_bucket="data",
            table_name="imageclust",
        )
        boto3.client("s3vectors").create_vector_bucket(vectorBucketName="vectors")
        boto3.client("scheduler").create_schedule_group(Name="imageclust")
        queue_url = boto3.client("sqs").create_queue(QueueName="uploads")["QueueUrl"]
        events = boto3.client("events")
        events.put_rule(Name="uploads", EventPattern=template.upload_pattern("uploads"))
        queue_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:uploads"
        events.put_targets(Rule="uploads", Targets=[{"Id": "queue", "Arn": queue_arn}])
        machine = boto3.client("stepfunctions").create_state_machine(
            name="imageclust",
            definition=json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}),
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/workflow",
        )
        services = wiring.aws_services(
            Settings(
                vector_bucket="vectors",
                state_machine_arn=machine["stateMachineArn"],
                schedule_group="imageclust",
                schedule_role_arn=f"arn:aws:iam::{ACCOUNT}:role/scheduler",
                start_function_arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:start-run",
                bedrock_batch_role_arn=f"arn:aws:iam::{ACCOUNT}:role/bedrock",
                embed_batch=8,
                label_batch=8,
                rekognition_per_second=10_000,
                bedrock_embed_per_second=10_000,
                cluster_seconds=0,  # one setting a turn
                publish_seconds=0,
            )
        )
        wiring.use(services)
        workflows = LocalWorkflows(services.store, home=tmp_path)
        yield Cloud(services, workflows, queue_url, bedrock)
        services.close()


def start(cloud: Cloud, config: dict[str, Any]) -> str:
    """Start a run over the collection ``holiday`` with the executor of this account."""
    return runs.start_run(
        replace(cloud.services, workflows=cloud.workflows),
        collection="holiday",
        config=RunConfig.from_json(config),
        trigger="api",
        now=datetime.now(UTC),
    )


def run_to_end(cloud: Cloud, config: dict[str, Any]) -> dict[str, Any]:
    """Start a run and take it to its end."""
    return finish(cloud, start(cloud, config))


def finish(cloud: Cloud, run_id: str) -> dict[str, Any]:
    """A run's item at its end; the waiting token is returned by polls alone, no event arrives."""
    while cloud.workflows.running(run_id):
        time.sleep(0.05)  # the poll's pause; without it the loop starves the run
        batch_job_event.handler({}, None)
        batch_job_event.handler({}, None)  # and a duplicate
    execution = cloud.workflows.wait(run_id)
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    return run_item(cloud.services, run_id)


def run_item(services: Services, run_id: str) -> dict[str, Any]:
    collection = runs.collection_of(run_id)
    item = services.table.get(keys.collection_pk(collection), keys.run_sk(run_id))
    assert item is not None
    return item


def configure(services: Services, collection: str, config: dict[str, Any]) -> None:
    services.table.put(
        {
            "pk": keys.COLLECTIONS_PK,
            "sk": collection,
            "name": collection,
            "created": "2026-11-22T00:00:00+00:00",
            "config": RunConfig.from_json(config).to_json(),
        }
    )
