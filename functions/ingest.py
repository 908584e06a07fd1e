"""Files changed: a batch of EventBridge events of the uploads bucket, through a queue."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from imageclust.errors import InvalidInput
from imageclust.steps.ingest import changed_collection, note_change
from imageclust.wiring import services

logger = logging.getLogger(__name__)


def handler(event: dict[str, Any], context: Any) -> Any:
    """Records that failed go back to the queue; events that concern no collection are reported."""
    all_services, now = services(), datetime.now(UTC)
    noted: set[str] = set()

    def record_handler(record: SQSRecord) -> None:
        try:
            change = json.loads(record.body)
            collection = changed_collection(change, bucket=all_services.settings.uploads_bucket)
        except (InvalidInput, ValueError) as reason:
            logger.warning("Event ignored: %s", reason, extra={"message_id": record.message_id})
            told = {"message_id": record.message_id, "reason": str(reason)}
            all_services.events.publish("Upload Ignored", told)
            return
        # Every file of this batch exists already: one mark and one timer a collection are enough.
        if collection not in noted:
            note_change(all_services, collection, now=now)
            noted.add(collection)

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(event, record_handler, processor, context)
