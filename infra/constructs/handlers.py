from collections.abc import Mapping
from dataclasses import dataclass, fields

from aws_cdk import ArnFormat, Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct
from imageclust.settings import Settings

from infra import packaging
from infra.permissions import acknowledge, acknowledge_wildcard, allow


@dataclass(frozen=True)
class Shape:
    """Size of one function. A Lambda gets one vCPU for each 1,769 MB."""

    layers: tuple[str, ...]
    memory_mb: int
    seconds: int
    disk_mb: int = 512


SHAPES: Mapping[str, Shape] = {
    "ingest": Shape(("base",), 512, 60),
    "start_run": Shape(("base",), 512, 60),
    "api": Shape(("base",), 1_769, 29),
    "plan_run": Shape(("base", "scipy", "onnxruntime"), 1_769, 900, 2_048),
    "embed": Shape(("base", "opencv", "pillow", "onnxruntime"), 3_008, 240, 2_048),
    "embed_in_batch": Shape(("base",), 512, 300),
    "label": Shape(("base", "opencv", "pillow", "onnxruntime"), 1_769, 240, 2_048),
    "cluster": Shape(("base", "opencv", "scipy"), 10_240, 900, 4_096),
    "draw_map": Shape(("base", "scipy", "maps"), 3_008, 600, 2_048),
    "describe": Shape(("base", "opencv", "pillow"), 1_769, 900),
    # Puts up to thousands of thumbnails into a job's input.
    "describe_in_batch": Shape(("base", "opencv", "pillow"), 1_769, 900),
    "batch_job_event": Shape(("base",), 512, 120),
    "publish": Shape(("base", "opencv", "pillow"), 10_240, 900, 4_096),
    "record_failure": Shape(("base",), 512, 60),
}
"""Every handler of ``functions/`` by module name, and what it runs on."""


class Handlers(Construct):
    """The functions, each with a role and a log group of its own and no permission yet."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        prefix: str,
        environment: Mapping[str, str],
        cluster_memory_mb: int,
        log_retention: logs.RetentionDays,
        build_layers: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        # From its name and not from the function: start_run itself is told this ARN.
        self.start_run_arn = Stack.of(self).format_arn(
            service="lambda",
            resource="function",
            resource_name=_function_name(prefix, "start_run"),
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        self.functions: dict[str, lambda_.Function] = {}
        self.roles: dict[str, iam.Role] = {}
        code = _code(packaging.functions_archive())
        core = self._layer("core", packaging.library_archive())
        names = sorted({layer for shape in SHAPES.values() for layer in shape.layers})
        layers = {
            name: self._layer(
                name,
                packaging.build_dependency_layer(name)
                if build_layers
                else packaging.unbuilt_archive(),
            )
            for name in names
        }
        for name, shape in SHAPES.items():
            title = camel(name)
            group = logs.LogGroup(
                self, f"{title}Logs", retention=log_retention, removal_policy=RemovalPolicy.DESTROY
            )
            self.roles[name] = self._role(title, group)
            self.functions[name] = lambda_.Function(
                self,
                title,
                function_name=_function_name(prefix, name),
                runtime=lambda_.Runtime.PYTHON_3_13,
                architecture=lambda_.Architecture.ARM_64,
                handler=f"functions.{name}.handler",
                code=code,
                layers=[core, *(layers[layer] for layer in shape.layers)],
                role=self.roles[name],
                log_group=group,
                memory_size=cluster_memory_mb
                if name in ("cluster", "publish")
                else shape.memory_mb,
                timeout=Duration.seconds(shape.seconds),
                ephemeral_storage_size=Size.mebibytes(shape.disk_mb),
                environment={"POWERTOOLS_SERVICE_NAME": name, **environment},
                tracing=lambda_.Tracing.ACTIVE,
            )
            acknowledge(
                self.functions[name],
                "AwsSolutions-L1",
                reason="3.13 is a current runtime, and the layers' wheels are locked for it",
            )

    def give(self, name: str, **values: str) -> None:
        """Set more of a function's environment, named by the fields of ``Settings``."""
        for key, value in environment_of(**values).items():
            self.functions[name].add_environment(key, value)

    def _layer(self, name: str, archive: packaging.Archive) -> lambda_.LayerVersion:
        return lambda_.LayerVersion(
            self,
            f"{camel(name)}Layer",
            code=_code(archive),
            compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
            compatible_architectures=[lambda_.Architecture.ARM_64],
        )

    def _role(self, title: str, group: logs.LogGroup) -> iam.Role:
        role = iam.Role(
            self, f"{title}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")
        )
        allow(
            role,
            "WriteLogs",
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resources=[group.log_group_arn],
            reason="its own log group",
        )
        acknowledge_wildcard(role, "*", reason="X-Ray's PutTraceSegments has no resources to name")
        return role


def environment_of(**values: str) -> dict[str, str]:
    """Environment variables from fields of ``imageclust.settings.Settings``."""
    known = {field.name for field in fields(Settings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"not in imageclust.settings.Settings: {', '.join(unknown)}")
    return {name.upper(): value for name, value in values.items()}


def camel(name: str) -> str:
    """``plan_run`` → ``PlanRun``."""
    return "".join(part.capitalize() for part in name.split("_"))


def _function_name(prefix: str, name: str) -> str:
    return f"{prefix}-{name.replace('_', '-')}"


def _code(archive: packaging.Archive) -> lambda_.AssetCode:
    return lambda_.Code.from_asset(str(archive.path), asset_hash=archive.digest)
