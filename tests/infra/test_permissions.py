"""Least privilege: the table role → actions → resources is the security page, and it is short."""

import re
from typing import Any

from imageclust.adapters.aws import bedrock_embedder

from infra.constructs.bedrock import EMBEDDING_MODELS
from infra.permissions import REASONS
from infra.security import PAGE, permissions, security_page
from tests.infra.from_template import resources

JSON = dict[str, Any]

# Calls that know no resources, as the service authorization reference lists them.
_NO_RESOURCES = {
    "batch:DescribeJobs",
    "bedrock:GetFoundationModelAvailability",
    "bedrock:ListModelInvocationJobs",
    "ecr:GetAuthorizationToken",
    "rekognition:DetectLabels",
    "rekognition:DetectModerationLabels",
}
_NO_RESOURCES_PREFIXES = ("xray:", "logs:")
# It could name a job, but only by an id that does not exist yet.
_UNKNOWN_BEFORE = {"batch:TerminateJob"}


def test_security_page_is_what_is_deployed(template: JSON, gpu_template: JSON) -> None:
    """`python -m infra.security` writes it anew."""
    assert PAGE.read_text("utf-8") == security_page(template, gpu_template)


def test_every_permission_has_a_reason(gpu_template: JSON) -> None:
    assert not [row for row in permissions(gpu_template) if not row.reason]


def test_no_action_is_a_wildcard(gpu_template: JSON) -> None:
    assert not [row for row in permissions(gpu_template) for a in row.actions if "*" in a]


def test_everything_is_only_for_calls_without_resources(gpu_template: JSON) -> None:
    for row in permissions(gpu_template):
        if "*" not in row.resources:
            continue
        for action in row.actions:
            assert action in _NO_RESOURCES | _UNKNOWN_BEFORE or action.startswith(
                _NO_RESOURCES_PREFIXES
            ), row


def test_data_is_reached_by_prefix(gpu_template: JSON) -> None:
    reached = [r for row in permissions(gpu_template) for r in row.resources]
    objects = [r for r in reached if r.startswith("StorageData/")]
    assert objects
    assert all(re.fullmatch(r"StorageData/[a-z]+(/[a-z]+)?/\*", r) for r in objects)


def test_one_prefix_one_writer(template: JSON) -> None:
    """Each arrow of the workflow is a prefix that few roles write (see imageclust.keys)."""
    writers: dict[str, set[str]] = {}
    for row in permissions(template):
        if "s3:PutObject" in row.actions:
            for resource in row.resources:
                writers.setdefault(resource, set()).add(row.role.split("Role")[0])
    assert {prefix: sorted(names) for prefix, names in writers.items()} == {
        "StorageUploads/*": ["Api"],
        "StorageData/manifests/*": ["PlanRun"],
        "StorageData/vectors/*": ["Embed"],
        "StorageData/thumbnails/*": ["Embed"],
        "StorageData/records/*": ["Embed"],
        "StorageData/maps/*": ["DrawMap"],
        "StorageData/labels/*": ["Cluster", "Embed", "Label"],
        "StorageData/results/*": ["Workflow"],
        "StorageData/clusters/*": ["Cluster"],
        "StorageData/descriptions/*": ["Describe"],
        "StorageData/bedrock/*": ["BedrockBatch", "DescribeInBatch"],
        "StorageData/exports/*": ["Publish"],
    }


def test_a_result_writer_may_upload_in_parts(template: JSON) -> None:
    """What the CDK's own ResultWriter grants on the results' prefix."""
    asked = {
        "s3:PutObject",
        "s3:GetObject",
        "s3:ListMultipartUploadParts",
        "s3:AbortMultipartUpload",
    }
    given = {
        action
        for row in permissions(template)
        if row.role.startswith("WorkflowRole") and "StorageData/results/*" in row.resources
        for action in row.actions
    }
    assert given == asked


def test_every_embedder_of_bedrock_may_be_asked() -> None:
    assert set(EMBEDDING_MODELS) == set(bedrock_embedder._MODELS)


def test_roles_are_passed_to_one_service_only(gpu_template: JSON) -> None:
    for entry in resources(gpu_template, "AWS::IAM::Policy").values():
        for statement in entry["Properties"]["PolicyDocument"]["Statement"]:
            if statement["Action"] == "iam:PassRole":
                assert "iam:PassedToService" in statement["Condition"]["StringEquals"]
                assert statement["Resource"] != "*"


def test_services_may_take_a_role_for_this_account_only(template: JSON) -> None:
    """Bedrock and the scheduler act for whoever asks, so the trust names account and source."""
    for entry in resources(template, "AWS::IAM::Role").values():
        [statement] = entry["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        service = statement["Principal"]["Service"]
        if service in ("bedrock.amazonaws.com", "scheduler.amazonaws.com"):
            condition = statement["Condition"]
            assert condition["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
            assert {"ArnLike", "ArnEquals"} & set(condition)


def test_reasons_name_statements_that_exist(gpu_template: JSON) -> None:
    for entry in resources(gpu_template, "AWS::IAM::Policy").values():
        sids = {s.get("Sid") for s in entry["Properties"]["PolicyDocument"]["Statement"]}
        assert set(entry.get("Metadata", {}).get(REASONS, {})) <= sids
