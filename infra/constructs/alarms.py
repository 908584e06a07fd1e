from collections.abc import Mapping

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.permissions import acknowledge

_FIVE = Duration.minutes(5)
_QUARTER = Duration.minutes(15)
_HOUR = Duration.hours(1)

UNWATCHED = ("ingest", "start_run", "batch_job_event")
"""Functions that no run waits for: nobody else would notice that they fail."""


class Alarms(Construct):
    """Alarms on what a person should look at, and one dashboard; docs/operations.md explains them.

    ``to`` is an e-mail address, the ARN of an SNS topic, or ``on`` for alarms that tell nobody.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        prefix: str,
        to: str,
        state_machine_arn: str,
        functions: Mapping[str, lambda_.Function],
        queue_name: str,
        failed_queue_name: str,
        table_name: str,
        api_name: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self._prefix = prefix
        self._action = alarm_action(self, to)
        machine = {"StateMachineArn": state_machine_arn}
        failed = _metric("AWS/States", "ExecutionsFailed", machine, _FIVE)
        timed_out = _metric("AWS/States", "ExecutionsTimedOut", machine, _FIVE)
        lost = _metric(
            "AWS/SQS",
            "ApproximateNumberOfMessagesVisible",
            {"QueueName": failed_queue_name},
            _FIVE,
            statistic="Maximum",
        )
        age = _metric(
            "AWS/SQS",
            "ApproximateAgeOfOldestMessage",
            {"QueueName": queue_name},
            _FIVE,
            statistic="Maximum",
        )
        # The whole account's: functions share its concurrency, so who is held back is an accident.
        throttles = _metric("AWS/Lambda", "Throttles", {}, _QUARTER)
        table = _metric("AWS/DynamoDB", "WriteThrottleEvents", {"TableName": table_name}, _QUARTER)
        api = _metric("AWS/ApiGateway", "5XXError", {"ApiName": api_name}, _FIVE)
        errors = {
            name: _metric(
                "AWS/Lambda", "Errors", {"FunctionName": functions[name].function_name}, _HOUR
            )
            for name in UNWATCHED
        }
        self._alarm("RunFailed", failed, 1, "A run has failed, or its input was refused")
        self._alarm("RunTimedOut", timed_out, 1, "A run has taken three days and was ended")
        self._alarm("UploadEventsFailed", lost, 1, "Upload events wait to be looked at")
        self._alarm("UploadEventsWait", age, 900, "Upload events have waited for 15 minutes")
        for name, metric in errors.items():
            # An event is tried three times: fewer errors mend themselves.
            title = functions[name].node.id
            self._alarm(f"{title}Fails", metric, 3, f"The function {title} fails again and again")
        self._alarm(
            "FunctionsThrottled", throttles, 100, "Functions wait for the account's concurrency", 2
        )
        self._alarm("TableThrottled", table, 1_000, "The table takes less than runs write", 2)
        self._alarm("ApiFails", api, 5, "The API answers with errors of ours")
        succeeded = _metric("AWS/States", "ExecutionsSucceeded", machine, _FIVE)
        stopped = _metric("AWS/States", "ExecutionsAborted", machine, _FIVE)
        took = _metric("AWS/States", "ExecutionTime", machine, _FIVE, statistic="Maximum")
        requests = _metric("AWS/ApiGateway", "Count", {"ApiName": api_name}, _FIVE)
        latency = _metric(
            "AWS/ApiGateway", "Latency", {"ApiName": api_name}, _FIVE, statistic="p95"
        )
        busy = [
            _metric(
                "AWS/Lambda",
                "ConcurrentExecutions",
                {"FunctionName": functions[name].function_name},
                _FIVE,
                statistic="Maximum",
            )
            for name in ("embed", "label")
        ]
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=prefix,
            widgets=[
                [
                    _graph("Runs", succeeded, failed, timed_out, stopped),
                    _graph("Longest run, milliseconds", took),
                ],
                [
                    _graph("Functions that embed and label at once", *busy),
                    _graph("Held back", throttles, table),
                ],
                [
                    _graph("Upload events: age in seconds, failed", age, lost),
                    _graph("API", requests, api, latency),
                ],
                [_graph("Errors of functions that no run waits for", *errors.values())],
            ],
        )

    def _alarm(
        self, name: str, metric: cloudwatch.Metric, threshold: float, what: str, periods: int = 1
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_name=f"{self._prefix}-{name}",
            alarm_description=f"{what}. What to do: docs/operations.md",
            metric=metric,
            threshold=threshold,
            evaluation_periods=periods,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            # Between runs there is nothing to count.
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        if self._action is not None:
            alarm.add_alarm_action(self._action)


def alarm_action(scope: Construct, to: str) -> actions.SnsAction | None:
    """Whom an alarm tells: the topic named, or one of our own with a mail subscription."""
    if to == "on":
        return None
    if to.startswith("arn:"):
        return actions.SnsAction(sns.Topic.from_topic_arn(scope, "Topic", to))
    topic = sns.Topic(scope, "Topic", enforce_ssl=True, display_name="imageclust alarms")
    # A topic with a policy loses the one that it had without: CloudWatch must be named in it.
    topic.add_to_resource_policy(
        iam.PolicyStatement(
            sid="AlarmsPublish",
            actions=["sns:Publish"],
            resources=[topic.topic_arn],
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            conditions={"StringEquals": {"aws:SourceAccount": Stack.of(scope).account}},
        )
    )
    topic.add_subscription(subscriptions.EmailSubscription(to))
    acknowledge(
        topic,
        "AwsSolutions-SNS2",
        reason="alarms cannot publish under the managed key, a key of our own costs money while "
        "idle, and a notice names an alarm and no photo",
    )
    return actions.SnsAction(topic)


def _metric(
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    period: Duration,
    *,
    statistic: str = "Sum",
) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=name,
        dimensions_map=dict(dimensions) or None,
        period=period,
        statistic=statistic,
    )


def _graph(title: str, *metrics: cloudwatch.Metric) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(metrics), width=12)
