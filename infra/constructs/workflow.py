from collections.abc import Mapping
from pathlib import Path

from aws_cdk import ArnFormat, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from infra.constructs.handlers import camel
from infra.permissions import acknowledge_wildcard, allow


class Workflow(Construct):
    """The state machine of ``statemachine/cluster_images.asl.json``.

    Its name is fixed, so functions of the workflow may hold its ARN without a circle. Of the
    handlers it may invoke those that the file names: ``plan_run`` is ``${PlanRunFunctionArn}``.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        definition: Path,
        handlers: Mapping[str, lambda_.Function],
        substitutions: Mapping[str, str],
        log_retention: logs.RetentionDays,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = Stack.of(self)
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("states.amazonaws.com"))
        group = logs.LogGroup(
            self,
            "Logs",
            # Names that begin so need no line of their own in the log service's resource policy.
            log_group_name=f"/aws/vendedlogs/states/{name}",
            retention=log_retention,
            removal_policy=RemovalPolicy.DESTROY,
        )
        text = definition.read_text("utf-8")
        arns = {
            f"{camel(handler)}FunctionArn": function.function_arn
            for handler, function in handlers.items()
            if f"${{{camel(handler)}FunctionArn}}" in text
        }
        sfn.StateMachine(
            self,
            "StateMachine",
            state_machine_name=name,
            state_machine_type=sfn.StateMachineType.STANDARD,
            # Inline, so that cfn-lint and the snapshot of the template see the workflow.
            definition_body=sfn.DefinitionBody.from_string(text),
            definition_substitutions={**arns, **substitutions},
            role=self.role,
            tracing_enabled=True,
            # Inputs hold names of people's photos; ids and errors are enough to find a fault.
            logs=sfn.LogOptions(
                destination=group, level=sfn.LogLevel.ALL, include_execution_data=False
            ),
        )
        self.arn = stack.format_arn(
            service="states",
            resource="stateMachine",
            resource_name=name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        self._executions = stack.format_arn(
            service="states",
            resource="execution",
            resource_name=f"{name}:*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        children = stack.format_arn(
            service="states",
            resource="execution",
            resource_name=f"{name}/*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        acknowledge_wildcard(
            self.role, "*", reason="log delivery and X-Ray have no resources to name"
        )
        allow(
            self.role,
            "InvokeHandlers",
            actions=["lambda:InvokeFunction"],
            resources=list(arns.values()),
            reason="the functions of the states",
        )
        allow(
            self.role,
            "StartMaps",
            actions=["states:StartExecution"],
            resources=[self.arn],
            reason="a Distributed Map runs its batches as executions of the same state machine",
        )
        allow(
            self.role,
            "WatchMaps",
            actions=["states:DescribeExecution", "states:StopExecution", "states:RedriveExecution"],
            resources=[self._executions, children],
            reason="watch, stop and redrive the batches of a Distributed Map",
        )

    def grant_start(self, role: iam.Role, *, reason: str) -> None:
        allow(
            role,
            "StartRuns",
            actions=["states:StartExecution"],
            resources=[self.arn],
            reason=reason,
        )
        allow(
            role,
            "WatchRuns",
            actions=["states:DescribeExecution"],
            resources=[self._executions],
            reason="see whether a collection's run is still going",
        )

    def grant_stop(self, role: iam.Role, *, reason: str) -> None:
        allow(
            role,
            "StopRuns",
            actions=["states:StopExecution"],
            resources=[self._executions],
            reason=reason,
        )

    def grant_answer(self, role: iam.Role, *, reason: str) -> None:
        """Give a waiting state its result."""
        allow(
            role,
            "AnswerRuns",
            actions=["states:SendTaskSuccess", "states:SendTaskFailure"],
            resources=[self.arn],
            reason=reason,
        )
