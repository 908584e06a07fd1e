"""What the template must be, in words of intent; the snapshot holds the letter."""

import json
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from imageclust.settings import Settings
from imageclust.steps.batch_jobs import JobKind, job_name

from infra.constructs.alarms import alarm_action
from infra.constructs.handlers import SHAPES, environment_of
from infra.packaging import ROOT
from tests.infra.from_template import resources, resources_from_template

JSON = dict[str, Any]


@pytest.fixture(params=["plain", "gpu"])
def either(request: pytest.FixtureRequest) -> JSON:
    """Both templates, one after the other."""
    name = "template" if request.param == "plain" else "gpu_template"
    found: JSON = request.getfixturevalue(name)
    return found


def _one(template: JSON, kind: str, prefix: str = "") -> JSON:
    [found] = (
        entry["Properties"]
        for name, entry in resources(template, kind).items()
        if name.startswith(prefix)
    )
    return dict(found)


def _functions(template: JSON) -> dict[str, JSON]:
    """Properties of each function by the name of its module."""
    found = {}
    for entry in resources(template, "AWS::Lambda::Function").values():
        properties = entry["Properties"]
        found[properties["Handler"].split(".")[1]] = properties
    return found


def test_synth_says_nothing(assembly: Path, gpu_assembly: Path) -> None:
    """No warning of the CDK, of jsii or of cdk-nag; the guard let no connection through."""
    assert assembly.parent == gpu_assembly.parent
    assert (assembly.parent / "output.txt").read_text() == ""


@pytest.mark.parametrize(
    "attempt",
    ["net.connect(443, '192.0.2.1')", "child_process.execFileSync('git', ['log'])"],
)
def test_the_guard_of_the_synth_refuses(attempt: str) -> None:
    module, call = attempt.split(".", maxsplit=1)
    guard = Path(__file__).with_name("offline.cjs")
    done = subprocess.run(
        ["node", "--require", str(guard), "--eval", f"require('node:{module}').{call}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "synth must work offline and alone" in done.stderr


def test_cdk_nag_finds_nothing(assembly: Path, gpu_assembly: Path) -> None:
    for folder in (assembly, gpu_assembly):
        report = json.loads((folder / "validation-report.json").read_text())
        assert not [plugin for plugin in report["pluginReports"] if plugin["violations"]]


def test_idle_costs_nothing(either: JSON) -> None:
    text = json.dumps(either)
    assert not resources(either, "AWS::EC2::NatGateway")
    assert "ProvisionedConcurren" not in text
    assert not resources(either, "AWS::SecretsManager::Secret")
    assert not resources(either, "AWS::KMS::Key")
    endpoints = resources(either, "AWS::EC2::VPCEndpoint").values()
    assert all(entry["Properties"]["VpcEndpointType"] == "Gateway" for entry in endpoints)
    for compute in resources(either, "AWS::Batch::ComputeEnvironment").values():
        assert compute["Properties"]["ComputeResources"]["MinvCpus"] == 0
        assert "DesiredvCpus" not in compute["Properties"]["ComputeResources"]


def test_without_the_gpu_there_is_no_network(template: JSON) -> None:
    kinds = {entry["Type"].split("::")[1] for entry in template["Resources"].values()}
    assert not kinds & {"EC2", "Batch", "ECS", "ECR"}


def test_nothing_but_the_handlers_runs(either: JSON) -> None:
    """No custom resource: each would be one more function with permissions of its own."""
    assert set(_functions(either)) == set(SHAPES)
    assert not [e for e in either["Resources"].values() if e["Type"].startswith("Custom::")]


def test_handlers_are_the_modules_of_functions() -> None:
    modules = {path.stem for path in (ROOT / "functions").glob("*.py")} - {"__init__"}
    assert modules == set(SHAPES)


def test_functions_are_python_3_13_on_arm(template: JSON) -> None:
    for name, function in _functions(template).items():
        assert function["Runtime"] == "python3.13", name
        assert function["Architectures"] == ["arm64"], name
        assert function["TracingConfig"] == {"Mode": "Active"}, name
        assert function["FunctionName"] == f"imageclust-{name.replace('_', '-')}"


def test_every_log_group_forgets(either: JSON) -> None:
    groups = resources(either, "AWS::Logs::LogGroup").values()
    assert len(groups) >= len(SHAPES) + 2
    assert all(group["Properties"]["RetentionInDays"] == 30 for group in groups)
    for function in _functions(either).values():
        assert "LogGroup" in function["LoggingConfig"]


def test_api_gateway_makes_no_group_of_its_own(template: JSON) -> None:
    """It would keep its errors for ever, and outlive the stack."""
    [(name, _)] = [
        (name, entry)
        for name, entry in resources(template, "AWS::Logs::LogGroup").items()
        if "API-Gateway-Execution-Logs_" in json.dumps(entry["Properties"].get("LogGroupName"))
    ]
    [stage] = resources(template, "AWS::ApiGateway::Stage").values()
    assert name in stage["DependsOn"]
    assert stage["Properties"]["StageName"] == "live"


# --- alarms


def test_alarms_are_off_by_default(template: JSON) -> None:
    kinds = {entry["Type"] for entry in template["Resources"].values()}
    assert not {kind for kind in kinds if "CloudWatch" in kind or "SNS" in kind}


def test_alarms_watch_what_is_there(gpu_template: JSON) -> None:
    """Each measures something of this template, by the name that the service measures it under."""
    known = {
        "AWS/States": {"ExecutionsFailed", "ExecutionsTimedOut"},
        "AWS/SQS": {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"},
        "AWS/Lambda": {"Errors", "Throttles"},
        "AWS/DynamoDB": {"WriteThrottleEvents"},
        "AWS/ApiGateway": {"5XXError"},
    }
    kinds = {"QueueName": "AWS::SQS::Queue", "FunctionName": "AWS::Lambda::Function",
             "TableName": "AWS::DynamoDB::Table"}  # fmt: skip
    [api] = resources(gpu_template, "AWS::ApiGateway::RestApi").values()
    alarms = [e["Properties"] for e in resources(gpu_template, "AWS::CloudWatch::Alarm").values()]
    assert len(alarms) == 10, "as many as cost nothing"
    for alarm in alarms:
        assert alarm["MetricName"] in known[alarm["Namespace"]]
        assert alarm["TreatMissingData"] == "notBreaching"
        for dimension in alarm.get("Dimensions", []):
            name, value = dimension["Name"], dimension["Value"]
            if name in kinds:
                target = value["Ref"] if "Ref" in value else value["Fn::GetAtt"][0]
                assert gpu_template["Resources"][target]["Type"] == kinds[name]
            elif name == "ApiName":
                assert value == api["Properties"]["Name"]
            else:
                assert (name, "stateMachine:imageclust" in json.dumps(value)) == (
                    "StateMachineArn", True,
                )  # fmt: skip
    dead = [a for a in alarms if a["MetricName"] == "ApproximateNumberOfMessagesVisible"]
    assert "UploadEventsFailed" in json.dumps(dead[0]["Dimensions"])


def test_alarms_reach_a_person(gpu_template: JSON) -> None:
    [(topic, _)] = resources(gpu_template, "AWS::SNS::Topic").items()
    for entry in resources(gpu_template, "AWS::CloudWatch::Alarm").values():
        assert entry["Properties"]["AlarmActions"] == [{"Ref": topic}]
    subscription = _one(gpu_template, "AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.org")
    statements = _one(gpu_template, "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    [allowed] = [each for each in statements if each["Effect"] == "Allow"]
    assert allowed["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert allowed["Condition"] == {
        "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    }


def test_alarms_may_tell_a_topic_that_is_there_or_nobody() -> None:
    stack = Stack()
    arn = "arn:aws:sns:eu-west-1:111122223333:pages"
    action = alarm_action(stack, arn)
    assert action is not None
    metric = cloudwatch.Metric(namespace="AWS/SQS", metric_name="ApproximateAgeOfOldestMessage")
    alarm = cloudwatch.Alarm(stack, "A", metric=metric, threshold=1, evaluation_periods=1)
    assert action.bind(stack, alarm).alarm_action_arn == arn
    assert alarm_action(stack, "on") is None


def test_every_alarm_is_explained(gpu_template: JSON) -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    for entry in resources(gpu_template, "AWS::CloudWatch::Alarm").values():
        name = entry["Properties"]["AlarmName"].removeprefix("imageclust-")
        assert f"| `{name}` |" in page
    assert page.count("\n| `") == len(resources(gpu_template, "AWS::CloudWatch::Alarm"))


def test_environments_are_settings(either: JSON) -> None:
    known = {field.name.upper() for field in fields(Settings)}
    for name, function in _functions(either).items():
        given = set(function["Environment"]["Variables"])
        assert given <= known | {"POWERTOOLS_SERVICE_NAME"}, name
        assert {"UPLOADS_BUCKET", "DATA_BUCKET", "TABLE_NAME", "VECTOR_BUCKET"} <= given, name


def test_environment_reads_back(template: JSON) -> None:
    variables = _functions(template)["plan_run"]["Environment"]["Variables"]
    plain = {name: value for name, value in variables.items() if isinstance(value, str)}
    settings = Settings.from_environment(plain)
    assert settings.map_concurrency == 100
    assert settings.cluster_memory_mb == _functions(template)["cluster"]["MemorySize"]
    assert settings.gpu_enabled is False
    assert settings.rekognition_per_second == 50.0


def test_gpu_setting_reaches_the_planner(gpu_template: JSON) -> None:
    variables = _functions(gpu_template)["plan_run"]["Environment"]["Variables"]
    assert variables["GPU_ENABLED"] == "true"


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not in imageclust\.settings\.Settings: nonsense"):
        environment_of(nonsense="1")


def test_who_starts_runs_knows_how(template: JSON) -> None:
    functions = _functions(template)
    for name in ("start_run", "api"):
        assert "STATE_MACHINE_ARN" in functions[name]["Environment"]["Variables"]
    for name in ("ingest", "start_run", "api", "publish", "record_failure"):
        variables = functions[name]["Environment"]["Variables"]
        assert {"SCHEDULE_GROUP", "SCHEDULE_ROLE_ARN", "START_FUNCTION_ARN"} <= set(variables)
    for name in ("describe_in_batch", "embed_in_batch"):
        assert "BEDROCK_BATCH_ROLE_ARN" in functions[name]["Environment"]["Variables"]


def test_buckets_are_closed(template: JSON) -> None:
    buckets = resources(template, "AWS::S3::Bucket")
    policies = [
        entry["Properties"] for entry in resources(template, "AWS::S3::BucketPolicy").values()
    ]
    for name, entry in buckets.items():
        properties = entry["Properties"]
        assert all(properties["PublicAccessBlockConfiguration"].values())
        assert "BucketEncryption" in properties
        [policy] = [item for item in policies if item["Bucket"] == {"Ref": name}]
        denied = [s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Deny"]
        assert {"Bool": {"aws:SecureTransport": "false"}} in [s["Condition"] for s in denied]


def test_data_outlives_the_stack(template: JSON) -> None:
    for kind in ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::S3Vectors::VectorBucket"):
        for entry in resources(template, kind).values():
            assert entry["DeletionPolicy"] in ("Retain", "RetainExceptOnCreate")
            assert entry["UpdateReplacePolicy"] == "Retain"


def test_only_what_passes_between_states_expires() -> None:
    shapes = resources_from_template()
    expiring = [
        rule
        for shape in (shapes.uploads, shapes.data)
        for rule in shape["LifecycleConfiguration"]["Rules"]
        if "ExpirationInDays" in rule
    ]
    assert [(rule["Prefix"], rule["ExpirationInDays"]) for rule in expiring] == [
        ("results/", 30),
        ("records/", 30),
        ("bedrock/", 30),
    ]


def test_table_is_on_demand_and_recoverable(template: JSON) -> None:
    table = _one(template, "AWS::DynamoDB::Table")
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"]


def test_uploads_reach_ingest_through_the_queue(template: JSON) -> None:
    shapes = resources_from_template()
    enabled = shapes.uploads["NotificationConfiguration"]["EventBridgeConfiguration"]
    assert enabled == {"EventBridgeEnabled": True}
    pattern = json.loads(shapes.upload_pattern("photos"))
    assert pattern["detail-type"] == ["Object Created", "Object Deleted"]
    assert pattern["detail"] == {"bucket": {"name": ["photos"]}}
    [target] = shapes.upload_rule["Targets"]
    queue_id, _ = target["Arn"]["Fn::GetAtt"]
    queue = template["Resources"][queue_id]["Properties"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] == 5
    mapping = _one(template, "AWS::Lambda::EventSourceMapping")
    assert mapping["EventSourceArn"] == {"Fn::GetAtt": [queue_id, "Arn"]}
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    ingest = template["Resources"][mapping["FunctionName"]["Ref"]]["Properties"]
    assert ingest["Handler"] == "functions.ingest.handler"
    assert queue["VisibilityTimeout"] >= 6 * ingest["Timeout"]


def test_presigned_posts_work_from_a_browser() -> None:
    [rule] = resources_from_template().uploads["CorsConfiguration"]["CorsRules"]
    assert "POST" in rule["AllowedMethods"]


def _rules(template: JSON) -> list[JSON]:
    return [entry["Properties"] for entry in resources(template, "AWS::Events::Rule").values()]


def test_all_collections_are_looked_at_by_the_clock(template: JSON) -> None:
    sweeps = [rule for rule in _rules(template) if "StartRun" in json.dumps(rule["Targets"])]
    assert [rule["ScheduleExpression"] for rule in sweeps] == ["rate(15 minutes)"]
    assert "Input" not in sweeps[0]["Targets"][0], "an event without a collection is the sweep"


def test_batch_jobs_wake_a_function_by_event_and_by_clock(template: JSON) -> None:
    waking = [rule for rule in _rules(template) if "BatchJobEvent" in json.dumps(rule["Targets"])]
    assert {rule.get("ScheduleExpression") for rule in waking} == {None, "rate(15 minutes)"}
    events = {
        rule["EventPattern"]["detail-type"][0]: rule["EventPattern"]["detail"]
        for rule in waking
        if "EventPattern" in rule
    }
    stopped = events.pop("Step Functions Execution Status Change")
    assert stopped["status"] == ["ABORTED", "FAILED", "TIMED_OUT"]
    assert "stateMachine:imageclust" in json.dumps(stopped["stateMachineArn"])
    known = [
        each["prefix"] for each in events.pop("Batch Inference Job State Change")["batchJobName"]
    ]
    assert events == {}
    assert known == [job_name(kind, "r", 0).partition("-")[0] + "-" for kind in get_args(JobKind)]


def test_the_api_asks_for_a_key_and_limits_rates(template: JSON) -> None:
    methods = [e["Properties"] for e in resources(template, "AWS::ApiGateway::Method").values()]
    served = [method for method in methods if method["HttpMethod"] != "OPTIONS"]
    assert [method["HttpMethod"] for method in served] == ["ANY"]
    assert all(method["ApiKeyRequired"] for method in served)
    assert all("RequestValidatorId" in method for method in served)
    plan = _one(template, "AWS::ApiGateway::UsagePlan")
    assert plan["Quota"] == {"Limit": 100_000, "Period": "DAY"}
    assert plan["Throttle"] == {"BurstLimit": 40, "RateLimit": 20}
    stage = _one(template, "AWS::ApiGateway::Stage")
    assert "AccessLogSetting" in stage
    assert stage["MethodSettings"][0]["DataTraceEnabled"] is False


def test_gpu_jobs_run_the_library_on_spot(gpu_template: JSON) -> None:
    compute = _one(gpu_template, "AWS::Batch::ComputeEnvironment")["ComputeResources"]
    assert compute["Type"] == "SPOT"
    assert compute["AllocationStrategy"] == "SPOT_PRICE_CAPACITY_OPTIMIZED"
    assert compute["InstanceTypes"] == ["g6.xlarge"]
    assert compute["Ec2Configuration"] == [{"ImageType": "ECS_AL2023_NVIDIA"}]
    job = _one(gpu_template, "AWS::Batch::JobDefinition")["ContainerProperties"]
    assert job["Command"] == ["embed"]
    assert {"Type": "GPU", "Value": "1"} in job["ResourceRequirements"]
    names = {variable["Name"] for variable in job["Environment"]}
    assert {"DATA_BUCKET", "TABLE_NAME", "AWS_DEFAULT_REGION"} <= names
    dockerfile = (ROOT / "containers" / "gpu.Dockerfile").read_text("utf-8")
    assert 'ENTRYPOINT ["python", "-m", "imageclust.batch"]' in dockerfile
    [group] = resources(gpu_template, "AWS::EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group["Properties"]
