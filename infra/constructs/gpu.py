from collections.abc import Mapping
from pathlib import Path

from aws_cdk import ArnFormat, Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_batch as batch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.permissions import acknowledge, acknowledge_wildcard, allow

CONTAINER_FILES = ("containers", "functions", "layers", "local", "statemachine")
"""Folders that the container file reads, besides a few files of the root."""

_VCPUS = 4
# g6.xlarge has 16 GiB; ECS and the system keep some of it.
_MEMORY = Size.mebibytes(14_336)


class GpuQueue(Construct):
    """Spot GPUs that come when a job waits and go when none does: no idle cost.

    The network has public subnets only, so there is no NAT gateway to pay for; nothing may
    connect to the instances.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        prefix: str,
        root: Path,
        image: str,
        instance_type: str,
        max_instances: int,
        environment: Mapping[str, str],
        log_retention: logs.RetentionDays,
    ) -> None:
        super().__init__(scope, construct_id)
        self._prefix = prefix
        vpc = self._network()
        compute = batch.ManagedEc2EcsComputeEnvironment(
            self,
            "Compute",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            security_groups=[
                ec2.SecurityGroup(
                    self, "Closed", vpc=vpc, description="Outbound only", allow_all_outbound=True
                )
            ],
            images=[batch.EcsMachineImage(image_type=batch.EcsMachineImageType.ECS_AL2023_NVIDIA)],
            instance_types=[ec2.InstanceType(instance_type)],
            use_optimal_instance_classes=False,
            spot=True,
            allocation_strategy=batch.AllocationStrategy.SPOT_PRICE_CAPACITY_OPTIMIZED,
            minv_cpus=0,
            maxv_cpus=_VCPUS * max_instances,
        )
        queue = batch.JobQueue(self, "Queue")
        queue.add_compute_environment(compute, 1)
        self.job_role = iam.Role(
            self, "JobRole", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com")
        )
        group = logs.LogGroup(
            self, "Logs", retention=log_retention, removal_policy=RemovalPolicy.DESTROY
        )
        definition = batch.EcsJobDefinition(
            self,
            "Job",
            job_definition_name=f"{prefix}-embed",
            container=batch.EcsEc2ContainerDefinition(
                self,
                "Container",
                image=_image(self, root, image),
                # The image's entry point is `python -m imageclust.batch`; a job names the rest.
                command=["embed"],
                cpu=_VCPUS,
                memory=_MEMORY,
                gpu=1,
                job_role=self.job_role,
                # Lambda sets the region for its functions; ECS on EC2 does not for its tasks.
                environment={
                    **environment,
                    "AWS_DEFAULT_REGION": Stack.of(self).region,
                    "DEVICE": "cuda",
                    # Codecs that crash must not end the job: decode in processes of their own.
                    "DECODE_WORKERS": str(_VCPUS),
                },
                logging=ecs.LogDriver.aws_logs(stream_prefix="embed", log_group=group),
                user="65532",
            ),
            # A Spot interruption ends a job from outside; the step goes on where it stopped.
            retry_attempts=5,
            timeout=Duration.hours(12),
        )
        self.queue_arn = queue.job_queue_arn
        self.definition_arn = definition.job_definition_arn
        execution_role = definition.container.execution_role
        acknowledge_wildcard(
            execution_role, "*", reason="ecr:GetAuthorizationToken has no resources to name"
        )
        self._acknowledge_service_policies(compute)

    def grant_submit(self, role: iam.Role) -> None:
        """Let the state machine run jobs and wait for them."""
        stack = Stack.of(self)
        allow(
            role,
            "SubmitJobs",
            actions=["batch:SubmitJob"],
            resources=[
                self.queue_arn,
                stack.format_arn(
                    service="batch",
                    resource="job-definition",
                    resource_name=f"{self._prefix}-embed:*",
                ),
            ],
            reason="each deployment makes a new revision of the job definition",
        )
        allow(
            role,
            "WatchJobs",
            actions=["batch:DescribeJobs", "batch:TerminateJob"],
            resources=["*"],
            reason="DescribeJobs has no resources to name, and a job's id is not known before",
        )
        allow(
            role,
            "WaitForJobs",
            actions=["events:DescribeRule", "events:PutRule", "events:PutTargets"],
            resources=[
                stack.format_arn(
                    service="events",
                    resource="rule",
                    resource_name="StepFunctionsGetEventsForBatchJobsRule",
                    arn_format=ArnFormat.SLASH_RESOURCE_NAME,
                )
            ],
            reason="Step Functions' own rule tells it that a job has ended",
        )

    def _network(self) -> ec2.Vpc:
        vpc = ec2.Vpc(
            self,
            "Network",
            max_azs=3,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=20
                )
            ],
            # Gateway endpoints cost nothing and keep the photos' bytes off the internet.
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3),
                "DynamoDb": ec2.GatewayVpcEndpointOptions(
                    service=ec2.GatewayVpcEndpointAwsService.DYNAMODB
                ),
            },
        )
        acknowledge(
            vpc,
            "AwsSolutions-VPC7",
            reason="batch workers only, no inbound rule; flow logs cost more than they tell",
        )
        return vpc

    def _acknowledge_service_policies(self, compute: batch.ManagedEc2EcsComputeEnvironment) -> None:
        for scope, policy in (
            (compute, "service-role/AWSBatchServiceRole"),
            (compute, "service-role/AmazonEC2ContainerServiceforEC2Role"),
        ):
            acknowledge(
                scope,
                f"AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{policy}]",
                reason="AWS keeps this policy in step with what Batch and the ECS agent need",
            )


def _image(scope: Construct, root: Path, image: str) -> ecs.ContainerImage:
    if image:
        return ecs.ContainerImage.from_registry(image)
    return ecs.ContainerImage.from_docker_image_asset(
        ecr_assets.DockerImageAsset(
            scope,
            "Image",
            directory=str(root),
            file="containers/gpu.Dockerfile",
            platform=ecr_assets.Platform.LINUX_AMD64,
            exclude=[
                "*",
                "!LICENSE",
                "!README.md",
                "!pyproject.toml",
                "!uv.lock",
                *(f"!{folder}" for folder in CONTAINER_FILES),
                "**/__pycache__",
            ],
        )
    )
