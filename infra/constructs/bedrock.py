from collections.abc import Iterable, Sequence

from aws_cdk import Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct
from imageclust.settings import PROFILE_SCOPES

from infra.constructs.storage import Storage
from infra.permissions import allow

EMBEDDING_MODELS = ("amazon.titan-embed-image-v1", "amazon.nova-2-multimodal-embeddings-v1:0")
"""What ``adapters/aws/bedrock_embedder.py`` knows how to ask."""

JOB_NAMES = ("describe-", "caption-", "embed-")
"""What the names of the workflow's jobs begin with."""

POLL = Duration.minutes(15)


class Bedrock(Construct):
    """Bedrock names clusters, on demand or as batch inference jobs under a role of their own.

    It can embed images too, when a run asks for one of its embedding models.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        storage: Storage,
        batch_job_event: lambda_.Function,
        workflow_arn: str,
        models: Iterable[str],
    ) -> None:
        super().__init__(scope, construct_id)
        stack = Stack.of(self)
        arns = [arn for model in models for arn in model_arns(stack, model)]
        self._models = list(dict.fromkeys(arns))
        self._jobs_arn = stack.format_arn(
            service="bedrock", resource="model-invocation-job", resource_name="*"
        )
        self._batch_role = iam.Role(
            self,
            "BatchRole",
            assumed_by=iam.ServicePrincipal(
                "bedrock.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": stack.account},
                    "ArnLike": {"aws:SourceArn": self._jobs_arn},
                },
            ),
        )
        self.batch_role_arn = self._batch_role.role_arn
        self._embedding_models = [a for m in EMBEDDING_MODELS for a in model_arns(stack, m)]
        storage.grant_read_data(self._batch_role, "bedrock", "records", reason="the job's input")
        storage.grant_write_data(self._batch_role, "bedrock", reason="the job's output")
        allow(
            self._batch_role,
            "InvokeModels",
            actions=["bedrock:InvokeModel"],
            resources=[*self._models, *self._embedding_models],
            reason="an inference profile runs its model in any region of its group",
        )
        target = targets.LambdaFunction(batch_job_event, retry_attempts=5)
        events.Rule(
            self,
            "JobChanged",
            description="A Bedrock batch inference job changed its state",
            event_pattern=events.EventPattern(
                source=["aws.bedrock"],
                detail_type=["Batch Inference Job State Change"],
                detail={"batchJobName": events.Match.any_of(*map(events.Match.prefix, JOB_NAMES))},
            ),
            targets=[target],
        )
        events.Rule(
            self,
            "RunStopped",
            description="A run that ends early leaves batch jobs behind: stop them",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={
                    "stateMachineArn": [workflow_arn],
                    "status": ["ABORTED", "FAILED", "TIMED_OUT"],
                },
            ),
            targets=[target],
        )
        events.Rule(
            self,
            "Poll",
            description="Bedrock's events are best effort: look at waiting jobs as well",
            schedule=events.Schedule.rate(POLL),
            targets=[target],
        )

    def grant_describe(self, role: iam.Role, *, reason: str) -> None:
        """Ask the models on demand."""
        allow(
            role,
            "InvokeModels",
            actions=["bedrock:InvokeModel"],
            resources=self._models,
            reason=reason,
        )

    def grant_embed(self, role: iam.Role, *, reason: str) -> None:
        """Ask the embedding models."""
        allow(
            role,
            "EmbedWithBedrock",
            actions=["bedrock:InvokeModel"],
            resources=self._embedding_models,
            reason=reason,
        )

    def grant_check(self, role: iam.Role, *, reason: str) -> None:
        """Ask whether a model can be used."""
        used = [*self._embedding_models, *self._models]
        allow(
            role,
            "CheckModels",
            actions=["bedrock:GetFoundationModel"],
            resources=sorted({arn for arn in used if "foundation-model" in arn}),
            reason=reason,
        )
        allow(
            role,
            "CheckAccess",
            actions=["bedrock:GetFoundationModelAvailability"],
            resources=["*"],
            reason="whether a model is open to the account has no resources to name",
        )

    def grant_submit(self, role: iam.Role, *, reason: str) -> None:
        """Start batch inference jobs that describe."""
        self._grant_jobs(role, self._models, reason=reason)

    def grant_submit_embeddings(self, role: iam.Role, *, reason: str) -> None:
        """Start batch inference jobs that embed."""
        self._grant_jobs(role, self._embedding_models, reason=reason)

    def _grant_jobs(self, role: iam.Role, models: Sequence[str], *, reason: str) -> None:
        allow(
            role,
            "SubmitJobs",
            actions=["bedrock:CreateModelInvocationJob"],
            resources=[*models, self._jobs_arn],
            reason=reason,
        )
        allow(
            role,
            "PassBatchRole",
            actions=["iam:PassRole"],
            resources=[self.batch_role_arn],
            reason="the role under which Bedrock reads and writes the job's files",
            conditions={"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}},
        )

    def grant_watch(self, role: iam.Role, *, reason: str) -> None:
        """See how jobs stand."""
        allow(
            role,
            "WatchJobs",
            actions=["bedrock:GetModelInvocationJob"],
            resources=[self._jobs_arn],
            reason=reason,
        )
        allow(
            role,
            "FindJobs",
            actions=["bedrock:ListModelInvocationJobs"],
            resources=["*"],
            reason="finding a job by its name is a list, which has no resources to name",
        )

    def grant_stop(self, role: iam.Role, *, reason: str) -> None:
        """Stop jobs."""
        allow(
            role,
            "StopJobs",
            actions=["bedrock:StopModelInvocationJob"],
            resources=[self._jobs_arn],
            reason=reason,
        )


def model_arns(stack: Stack, model: str) -> list[str]:
    """What invoking this model id needs: the model, and its inference profile if it is one."""
    scope, _, rest = model.partition(".")
    if scope not in PROFILE_SCOPES:
        return [f"arn:{stack.partition}:bedrock:*::foundation-model/{model}"]
    profile = stack.format_arn(service="bedrock", resource="inference-profile", resource_name=model)
    return [profile, f"arn:{stack.partition}:bedrock:*::foundation-model/{rest}"]
