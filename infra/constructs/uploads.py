from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.permissions import acknowledge, allow

SWEEP = Duration.minutes(15)
"""How often all collections are looked at."""


class UploadEvents(Construct):
    """An object put or deleted → EventBridge → queue → ingest, which sets a one-off timer.

    The timer starts a run after the quiet period, so many uploads become one run.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        uploads: s3.Bucket,
        ingest: lambda_.Function,
        start_run: lambda_.Function,
        start_run_arn: str,
    ) -> None:
        super().__init__(scope, construct_id)
        failed = sqs.Queue(self, "Failed", enforce_ssl=True, retention_period=Duration.days(14))
        acknowledge(failed, "AwsSolutions-SQS3", reason="this is the dead-letter queue")
        queue = sqs.Queue(
            self,
            "Queue",
            enforce_ssl=True,
            # Lambda asks for six times the function's time-out.
            visibility_timeout=Duration.seconds(360),
            dead_letter_queue=sqs.DeadLetterQueue(queue=failed, max_receive_count=5),
        )
        self.queue_name, self.failed_queue_name = queue.queue_name, failed.queue_name
        events.Rule(
            self,
            "Rule",
            description="Photos put or deleted in the uploads bucket",
            event_pattern=events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created", "Object Deleted"],
                detail={"bucket": {"name": [uploads.bucket_name]}},
            ),
            targets=[targets.SqsQueue(queue, dead_letter_queue=failed)],
        )
        ingest.add_event_source(
            sources.SqsEventSource(
                queue,
                batch_size=500,
                max_batching_window=Duration.seconds(5),
                max_concurrency=2,
                report_batch_item_failures=True,
            )
        )
        events.Rule(
            self,
            "Sweep",
            description="A timer that was lost or a run that died is found again",
            schedule=events.Schedule.rate(SWEEP),
            targets=[targets.LambdaFunction(start_run, retry_attempts=2)],
        )
        group = scheduler.ScheduleGroup(self, "Timers", removal_policy=RemovalPolicy.DESTROY)
        self.schedule_group = group.schedule_group_name
        self._schedules_arn = Stack.of(self).format_arn(
            service="scheduler", resource="schedule", resource_name=f"{self.schedule_group}/*"
        )
        self._timer_role = iam.Role(
            self,
            "TimerRole",
            assumed_by=iam.ServicePrincipal(
                "scheduler.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": Stack.of(self).account},
                    "ArnEquals": {"aws:SourceArn": group.schedule_group_arn},
                },
            ),
        )
        allow(
            self._timer_role,
            "StartRun",
            actions=["lambda:InvokeFunction"],
            resources=[start_run_arn],
            reason="a timer's only target",
        )
        self.schedule_role_arn = self._timer_role.role_arn

    def grant_schedule(self, role: iam.Role, *, reason: str) -> None:
        """Set and move one-off timers of our own group."""
        allow(
            role,
            "SetTimers",
            actions=[
                "scheduler:CreateSchedule",
                "scheduler:UpdateSchedule",
            ],
            resources=[self._schedules_arn],
            reason=reason,
        )
        allow(
            role,
            "PassTimerRole",
            actions=["iam:PassRole"],
            resources=[self.schedule_role_arn],
            reason="the role under which a timer calls start_run",
            conditions={"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}},
        )
