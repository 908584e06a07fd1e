from aws_cdk import CfnOutput, Duration, RemovalPolicy
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.permissions import acknowledge


class Api(Construct):
    """The REST API: one function behind keys, a usage plan and rate limits."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        handler: lambda_.Function,
        requests_per_second: int,
        requests_per_day: int,
        web_origin: str,
        log_retention: logs.RetentionDays,
    ) -> None:
        super().__init__(scope, construct_id)
        group = logs.LogGroup(
            self, "AccessLogs", retention=log_retention, removal_policy=RemovalPolicy.DESTROY
        )
        api = apigateway.RestApi(
            self,
            "Rest",
            description="imageclust: collections, runs, clusters, images",
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            cloud_watch_role=True,
            cloud_watch_role_removal_policy=RemovalPolicy.RETAIN,
            deploy_options=apigateway.StageOptions(
                # The routes begin with /v1 themselves; API Gateway wants a stage name too.
                stage_name="live",
                access_log_destination=apigateway.LogGroupLogDestination(group),
                access_log_format=apigateway.AccessLogFormat.json_with_standard_fields(
                    caller=False,
                    http_method=True,
                    ip=False,
                    protocol=True,
                    request_time=True,
                    resource_path=True,
                    response_length=True,
                    status=True,
                    user=False,
                ),
                logging_level=apigateway.MethodLoggingLevel.ERROR,
                data_trace_enabled=False,
                tracing_enabled=True,
                throttling_rate_limit=requests_per_second,
                throttling_burst_limit=2 * requests_per_second,
            ),
            default_cors_preflight_options=apigateway.CorsOptions(
                allow_origins=[web_origin],
                allow_methods=["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"],
                allow_headers=["Content-Type", "Idempotency-Key", "X-Api-Key"],
                max_age=Duration.hours(1),
            ),
        )
        # API Gateway makes this group itself when it is not there, and then keeps it for ever.
        errors = logs.LogGroup(
            self,
            "ErrorLogs",
            log_group_name=f"API-Gateway-Execution-Logs_{api.rest_api_id}/live",
            retention=log_retention,
            removal_policy=RemovalPolicy.DESTROY,
        )
        api.deployment_stage.node.add_dependency(errors)
        self.name = api.rest_api_name
        # No model is attached, so the handler checks bodies: a GET has none to hold to a schema.
        checks = api.add_request_validator(
            "Validator", validate_request_body=True, validate_request_parameters=True
        )
        proxy = api.root.add_resource("v1").add_proxy(any_method=False)
        proxy.add_method(
            "ANY",
            apigateway.LambdaIntegration(
                handler, timeout=Duration.seconds(29), allow_test_invoke=False
            ),
            api_key_required=True,
            request_validator=checks,
            request_parameters={"method.request.path.proxy": True},
        )
        plan = api.add_usage_plan(
            "Plan",
            throttle=apigateway.ThrottleSettings(
                rate_limit=requests_per_second, burst_limit=2 * requests_per_second
            ),
            quota=apigateway.QuotaSettings(limit=requests_per_day, period=apigateway.Period.DAY),
        )
        plan.add_api_stage(stage=api.deployment_stage)
        key = api.add_api_key("FirstKey", description="imageclust: the first key of this plan")
        plan.add_api_key(key)
        CfnOutput(self, "Url", value=f"{api.url}v1", description="Base address of the API")
        CfnOutput(
            self,
            "KeyId",
            value=key.key_id,
            description="aws apigateway get-api-key --include-value --api-key THIS",
        )
        self._acknowledge(api)

    def _acknowledge(self, api: apigateway.RestApi) -> None:
        keys = "clients hold API keys with rate limits; see docs/security.md for adding Cognito"
        acknowledge(api, "AwsSolutions-APIG4", reason=keys)
        acknowledge(api, "AwsSolutions-COG4", reason=keys)
        acknowledge(
            api,
            "AwsSolutions-APIG3",
            reason="a web ACL costs money while idle; keys, quotas and rate limits are on",
        )
        policy = "service-role/AmazonAPIGatewayPushToCloudWatchLogs"
        acknowledge(
            api,
            f"AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{policy}]",
            reason="the account-wide role of API Gateway's logs; AWS names this policy for it",
        )
