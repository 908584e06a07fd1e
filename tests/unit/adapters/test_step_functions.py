from typing import Any

import pytest
from botocore.stub import Stubber
from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.step_functions import StepFunctionsWorkflows
from imageclust.errors import Conflict, NotFound

ROLE = "arn:aws:iam::123456789012:role/states"
DEFINITION = '{"StartAt": "A", "States": {"A": {"Type": "Wait", "Seconds": 9, "End": true}}}'
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:cluster_images"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:cluster_images:r1"


@pytest.fixture
def workflows(clients: Clients) -> StepFunctionsWorkflows:
    made = clients.stepfunctions.create_state_machine(
        name="cluster_images", definition=DEFINITION, roleArn=ROLE
    )
    assert made["stateMachineArn"] == MACHINE
    return StepFunctionsWorkflows(clients, MACHINE)


def test_from_start_to_stop(workflows: StepFunctionsWorkflows, clients: Clients) -> None:
    assert not workflows.running("r1")
    workflows.start("r1", {"run_id": "r1", "b": 1})
    assert workflows.running("r1")
    found = clients.stepfunctions.describe_execution(executionArn=EXECUTION)
    assert found["input"] == '{"b": 1, "run_id": "r1"}'
    workflows.stop("r1", "the user asked")
    assert not workflows.running("r1")
    assert workflows.end_of("r1").startswith("ABORTED")
    assert workflows.end_of("r2") == ""
    with pytest.raises(NotFound):
        workflows.stop("r2", "not there")


def test_the_same_run_twice_is_one(workflows: StepFunctionsWorkflows) -> None:
    workflows.start("r1", {"run_id": "r1", "b": 1})
    workflows.start("r1", {"b": 1, "run_id": "r1"})
    with pytest.raises(Conflict):
        workflows.start("r1", {"run_id": "r1", "b": 2})


def test_a_run_that_has_ended_is_not_started_again(clients: Clients) -> None:
    workflows = StepFunctionsWorkflows(clients, MACHINE)
    described: dict[str, Any] = {
        "executionArn": EXECUTION,
        "stateMachineArn": MACHINE,
        "status": "SUCCEEDED",
        "startDate": 0,
        "input": '{"run_id": "r1"}',
    }
    for request, fails in (({"run_id": "r1"}, False), ({"run_id": "r2"}, True)):
        with Stubber(clients.stepfunctions) as stub:
            stub.add_client_error("start_execution", "ExecutionAlreadyExists")
            stub.add_response("describe_execution", described, {"executionArn": EXECUTION})
            if fails:
                with pytest.raises(Conflict):
                    workflows.start("r1", request)
            else:
                workflows.start("r1", request)
            stub.assert_no_pending_responses()


def test_tokens(clients: Clients) -> None:
    workflows = StepFunctionsWorkflows(clients, MACHINE)
    with Stubber(clients.stepfunctions) as stub:
        stub.add_response("send_task_success", {}, {"taskToken": "t", "output": '{"job": "j"}'})
        stub.add_response(
            "send_task_failure", {}, {"taskToken": "t", "error": "E", "cause": "c" * 32_768}
        )
        workflows.succeed("t", {"job": "j"})
        workflows.fail("t", "E", "c" * 40_000)
        for code in ("TaskDoesNotExist", "TaskTimedOut", "InvalidToken"):
            stub.add_client_error("send_task_success", code)
            with pytest.raises(NotFound):
                workflows.succeed("t", {})
            stub.add_client_error("send_task_failure", code)
            with pytest.raises(NotFound):
                workflows.fail("t", "E", "c")
