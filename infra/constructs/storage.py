from collections.abc import Sequence

from aws_cdk import CfnResource, Duration, Fn, RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3vectors as s3vectors
from constructs import Construct

from infra.permissions import acknowledge, allow


class Storage(Construct):
    """Everything that is kept: two buckets, one table, one vector bucket.

    The vector indexes themselves are made by PublishRun: their dimension is the embedder's.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        keep_data: bool,
        results_days: int,
        web_origin: str,
    ) -> None:
        super().__init__(scope, construct_id)
        # What holds nothing yet goes with a first deployment that fails.
        retained = RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
        kept = retained if keep_data else RemovalPolicy.DESTROY
        logs = self._bucket("Logs", retained, [s3.LifecycleRule(expiration=Duration.days(90))])
        acknowledge(logs, "AwsSolutions-S1", reason="this bucket receives the access logs")
        abort = s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(1))
        passing = [
            s3.LifecycleRule(prefix=prefix, expiration=Duration.days(results_days))
            for prefix in ("results/", "records/", "bedrock/")
        ]
        self.uploads = self._bucket("Uploads", kept, [abort], logs)
        self.uploads.add_cors_rule(
            allowed_methods=[s3.HttpMethods.POST, s3.HttpMethods.GET],
            allowed_origins=[web_origin],
            allowed_headers=["*"],
            max_age=3600,
        )
        _send_events(self.uploads)
        self.data = self._bucket("Data", kept, [abort, *passing], logs)
        self.data.add_cors_rule(
            allowed_methods=[s3.HttpMethods.GET],
            allowed_origins=[web_origin],
            allowed_headers=["*"],
            max_age=3600,
        )
        self.table = dynamodb.Table(
            self,
            "Table",
            partition_key=dynamodb.Attribute(name="pk", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="sk", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            encryption=dynamodb.TableEncryption.AWS_MANAGED,
            deletion_protection=keep_data,
            # Not with a deployment that fails either: the protection would forbid it.
            removal_policy=RemovalPolicy.RETAIN if keep_data else RemovalPolicy.DESTROY,
        )
        vectors = s3vectors.CfnVectorBucket(self, "Vectors")
        # CloudFormation cannot delete a vector bucket that still holds an index.
        vectors.apply_removal_policy(retained)
        self._vector_bucket_arn = vectors.attr_vector_bucket_arn
        self.vector_bucket_name = Fn.select(1, Fn.split("/", vectors.attr_vector_bucket_arn))

    def _bucket(
        self,
        name: str,
        removal: RemovalPolicy,
        lifecycle: Sequence[s3.LifecycleRule],
        logs: s3.Bucket | None = None,
    ) -> s3.Bucket:
        return s3.Bucket(
            self,
            name,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            lifecycle_rules=list(lifecycle),
            removal_policy=removal,
            server_access_logs_bucket=logs,
            server_access_logs_prefix=f"{name.lower()}/" if logs else None,
        )

    def grant_read_uploads(self, role: iam.Role, *, reason: str) -> None:
        """Read any photo and list the bucket."""
        allow(
            role,
            "ReadUploads",
            actions=["s3:GetObject"],
            resources=[self.uploads.arn_for_objects("*")],
            reason=reason,
        )
        allow(
            role,
            "ListUploads",
            actions=["s3:ListBucket"],
            resources=[self.uploads.bucket_arn],
            reason="list a collection; without it a missing object answers 403, not 404",
        )

    def grant_write_uploads(self, role: iam.Role, *, reason: str) -> None:
        allow(
            role,
            "WriteUploads",
            actions=["s3:PutObject"],
            resources=[self.uploads.arn_for_objects("*")],
            reason=reason,
        )

    def grant_read_data(self, role: iam.Role, *prefixes: str, reason: str) -> None:
        """Read our own objects under these prefixes."""
        allow(
            role,
            "ReadData",
            actions=["s3:GetObject"],
            resources=[self.data.arn_for_objects(f"{prefix}/*") for prefix in prefixes],
            reason=reason,
        )
        self.grant_list_data(
            role, reason="list objects; without it a missing object answers 403, not 404"
        )

    def grant_list_data(self, role: iam.Role, *, reason: str) -> None:
        allow(
            role,
            "ListData",
            actions=["s3:ListBucket"],
            resources=[self.data.bucket_arn],
            reason=reason,
        )

    def grant_write_data(self, role: iam.Role, *prefixes: str, reason: str) -> None:
        allow(
            role,
            "WriteData",
            actions=["s3:PutObject"],
            resources=[self.data.arn_for_objects(f"{prefix}/*") for prefix in prefixes],
            reason=reason,
        )

    def grant_delete_data(self, role: iam.Role, *prefixes: str, reason: str) -> None:
        allow(
            role,
            "DeleteData",
            actions=["s3:DeleteObject"],
            resources=[self.data.arn_for_objects(f"{prefix}/*") for prefix in prefixes],
            reason=reason,
        )

    def grant_parts(self, role: iam.Role, *prefixes: str, reason: str) -> None:
        """See which parts of an upload have arrived, give it up; needed besides writing."""
        allow(
            role,
            "ListParts",
            actions=["s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"],
            resources=[self.data.arn_for_objects(f"{prefix}/*") for prefix in prefixes],
            reason=reason,
        )

    def grant_table(self, role: iam.Role, *, reason: str) -> None:
        """Read and write items by key; no scan, no deletion, no change of the table."""
        allow(
            role,
            "UseTable",
            actions=[
                "dynamodb:BatchGetItem",
                "dynamodb:BatchWriteItem",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:UpdateItem",
            ],
            resources=[self.table.table_arn],
            reason=reason,
        )

    def grant_delete_items(self, role: iam.Role, *, reason: str) -> None:
        allow(
            role,
            "DeleteItems",
            actions=["dynamodb:DeleteItem"],
            resources=[self.table.table_arn],
            reason=reason,
        )

    def grant_fill_vectors(self, role: iam.Role, *, reason: str) -> None:
        allow(
            role,
            "FillVectors",
            actions=[
                f"s3vectors:{name}"
                for name in (
                    "CreateIndex",
                    "GetIndex",
                    "PutVectors",
                    "ListVectors",
                    "DeleteVectors",
                )
            ],
            resources=[f"{self._vector_bucket_arn}/index/*"],
            reason=reason,
        )


def _send_events(bucket: s3.Bucket) -> None:
    """Turn on the bucket's EventBridge events.

    ``event_bridge_enabled=True`` would do it with a custom resource: one more function, with wide
    permissions, for a property that CloudFormation has.
    """
    resource = bucket.node.default_child
    if not isinstance(resource, CfnResource):
        raise TypeError("a bucket is a CloudFormation resource")
    resource.add_property_override(
        "NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled", True
    )
