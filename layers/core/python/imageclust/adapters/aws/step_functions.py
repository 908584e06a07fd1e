"""Executions of the Step Functions state machine."""

import json

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.errors import Conflict, NotFound
from imageclust.models import JSON

_MAX_ERROR, _MAX_CAUSE, _MAX_TOLD = 256, 32_768, 2_000


class StepFunctionsWorkflows:
    """Executions named by their run.

    Args:
        clients: the AWS clients.
        state_machine_arn: the workflow.
    """

    def __init__(self, clients: Clients, state_machine_arn: str) -> None:
        self._clients = clients
        self._arn = state_machine_arn

    def start(self, run_id: str, request: JSON) -> None:
        """Start the execution named ``run_id``; the same name and input again is no error.

        Raises Conflict when an execution of that name had another input.
        """
        text = json.dumps(request, sort_keys=True)
        try:
            with translated(f"Run {run_id}"):
                self._clients.stepfunctions.start_execution(
                    stateMachineArn=self._arn, name=run_id, input=text
                )
        except Conflict:
            # Step Functions forgives a repeated name and input only while the first one runs.
            with translated(f"Run {run_id}"):
                found = self._clients.stepfunctions.describe_execution(
                    executionArn=self._execution(run_id)
                )
            if found.get("input") != text:
                raise

    def stop(self, run_id: str, reason: str) -> None:
        """Stop the execution; one that has ended stays as it is. Raises NotFound."""
        with translated(f"Run {run_id}"):
            self._clients.stepfunctions.stop_execution(
                executionArn=self._execution(run_id),
                error="Cancelled",
                cause=reason[:_MAX_CAUSE],
            )

    def running(self, run_id: str) -> bool:
        try:
            with translated(f"Run {run_id}"):
                found = self._clients.stepfunctions.describe_execution(
                    executionArn=self._execution(run_id), includedData="METADATA_ONLY"
                )
        except NotFound:
            return False
        return found["status"] == "RUNNING"

    def end_of(self, run_id: str) -> str:
        """The status of an execution that is over, with its error and cause."""
        try:
            with translated(f"Run {run_id}"):
                found = self._clients.stepfunctions.describe_execution(
                    executionArn=self._execution(run_id)
                )
        except NotFound:
            return ""
        told = [found.get("error", ""), found.get("cause", "")]
        return ": ".join(part for part in [found["status"], *told] if part)[:_MAX_TOLD]

    def succeed(self, token: str, output: JSON) -> None:
        """Give a waiting task its result. A token that no longer waits raises NotFound."""
        with translated("The waiting task"):
            self._clients.stepfunctions.send_task_success(
                taskToken=token, output=json.dumps(output)
            )

    def fail(self, token: str, error: str, cause: str) -> None:
        """Fail a waiting task. A token that no longer waits raises NotFound."""
        with translated("The waiting task"):
            self._clients.stepfunctions.send_task_failure(
                taskToken=token, error=error[:_MAX_ERROR], cause=cause[:_MAX_CAUSE]
            )

    def _execution(self, run_id: str) -> str:
        return f"{self._arn.replace(':stateMachine:', ':execution:')}:{run_id}"
