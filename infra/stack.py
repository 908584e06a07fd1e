"""The stack: wiring only. What each part is stands in ``constructs``, who may do what in
``grants``.
"""

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_logs as logs
from constructs import Construct
from imageclust.settings import Settings

from infra import grants
from infra.constructs.alarms import Alarms
from infra.constructs.api import Api
from infra.constructs.bedrock import Bedrock
from infra.constructs.gpu import GpuQueue
from infra.constructs.handlers import Handlers, environment_of
from infra.constructs.storage import Storage
from infra.constructs.uploads import UploadEvents
from infra.constructs.workflow import Workflow
from infra.packaging import ROOT
from infra.settings import LOG_DAYS, StackSettings

DEFINITION = ROOT / "statemachine" / "cluster_images.asl.json"


class ImageclustStack(Stack):
    """One deployment of imageclust."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: StackSettings) -> None:
        super().__init__(
            scope, construct_id, description="imageclust: photos in, named clusters out"
        )
        retention = getattr(logs.RetentionDays, LOG_DAYS[settings.log_days])
        storage = Storage(
            self,
            "Storage",
            keep_data=settings.keep_data,
            results_days=settings.results_days,
            web_origin=settings.web_origin,
        )
        bus = events.EventBus.from_event_bus_name(self, "Bus", "default")
        environment = environment_of(
            uploads_bucket=storage.uploads.bucket_name,
            data_bucket=storage.data.bucket_name,
            table_name=storage.table.table_name,
            vector_bucket=storage.vector_bucket_name,
            event_bus=bus.event_bus_name,
            quiet_seconds=str(settings.quiet_seconds),
            max_upload_bytes=str(settings.max_upload_bytes),
            cluster_memory_mb=str(settings.cluster_memory_mb),
            max_megapixels=str(settings.max_megapixels),
            map_concurrency=str(settings.map_concurrency),
            label_concurrency=str(settings.label_concurrency),
            gpu_enabled=str(settings.gpu).lower(),
            gpu_from=str(settings.gpu_from),
            rekognition_per_second=str(settings.rekognition_per_second),
            bedrock_title_model=settings.title_model,
            bedrock_batch_model=settings.batch_model,
            bedrock_models=settings.more_models,
            bedrock_per_second=str(settings.bedrock_per_second),
            bedrock_embed_per_second=str(settings.bedrock_embed_per_second),
            embed_batch_saving_usd=str(settings.embed_batch_saving_usd),
            language=settings.language,
            prices=settings.prices,
        )
        handlers = Handlers(
            self,
            "Handlers",
            prefix=settings.stack_name,
            environment=environment,
            cluster_memory_mb=settings.cluster_memory_mb,
            log_retention=retention,
            build_layers=settings.build_layers,
        )
        functions = handlers.functions
        gpu = (
            GpuQueue(
                self,
                "Gpu",
                prefix=settings.stack_name,
                root=ROOT,
                image=settings.gpu_image,
                instance_type=settings.gpu_instance_type,
                max_instances=settings.gpu_max_instances,
                environment=environment,
                log_retention=retention,
            )
            if settings.gpu
            else None
        )
        workflow = Workflow(
            self,
            "Workflow",
            name=settings.stack_name,
            definition=DEFINITION,
            handlers=functions,
            substitutions={
                "DataBucket": storage.data.bucket_name,
                # PlanRun never chooses the GPU when there is none; the text must be there still.
                "GpuJobQueueArn": gpu.queue_arn if gpu else NO_GPU,
                "GpuJobDefinitionArn": gpu.definition_arn if gpu else NO_GPU,
            },
            log_retention=retention,
        )
        bedrock = Bedrock(
            self,
            "Bedrock",
            storage=storage,
            batch_job_event=functions["batch_job_event"],
            workflow_arn=workflow.arn,
            models=Settings(
                bedrock_title_model=settings.title_model,
                bedrock_batch_model=settings.batch_model,
                bedrock_models=settings.more_models,
            ).describers,
        )
        uploads = UploadEvents(
            self,
            "UploadEvents",
            uploads=storage.uploads,
            ingest=functions["ingest"],
            start_run=functions["start_run"],
            start_run_arn=handlers.start_run_arn,
        )
        for name in ("start_run", "api"):
            handlers.give(name, state_machine_arn=workflow.arn)
        for name in ("ingest", "start_run", "api", "publish", "record_failure"):
            handlers.give(
                name,
                schedule_group=uploads.schedule_group,
                schedule_role_arn=uploads.schedule_role_arn,
                start_function_arn=handlers.start_run_arn,
            )
        for name in ("describe_in_batch", "embed_in_batch"):
            handlers.give(name, bedrock_batch_role_arn=bedrock.batch_role_arn)
        roles = handlers.roles
        grants.grant_entries(roles, storage=storage, uploads=uploads, workflow=workflow)
        grants.grant_steps(roles, storage=storage, uploads=uploads)
        grants.grant_bedrock(roles, storage=storage, bedrock=bedrock, workflow=workflow)
        grants.grant_workflow(storage=storage, workflow=workflow, gpu=gpu)
        grants.grant_events(roles, bus=bus)
        api = Api(
            self,
            "Api",
            handler=functions["api"],
            requests_per_second=settings.api_requests_per_second,
            requests_per_day=settings.api_requests_per_day,
            web_origin=settings.web_origin,
            log_retention=retention,
        )
        if settings.alarms:
            Alarms(
                self,
                "Alarms",
                prefix=settings.stack_name,
                to=settings.alarms,
                state_machine_arn=workflow.arn,
                functions=functions,
                queue_name=uploads.queue_name,
                failed_queue_name=uploads.failed_queue_name,
                table_name=storage.table.table_name,
                api_name=api.name,
            )
        CfnOutput(self, "UploadsBucket", value=storage.uploads.bucket_name)
        CfnOutput(self, "DataBucket", value=storage.data.bucket_name)
        CfnOutput(self, "StateMachine", value=workflow.arn)


NO_GPU = "gpu-is-off"
