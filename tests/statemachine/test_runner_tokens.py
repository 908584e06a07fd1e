"""Tasks that wait for their token."""

import threading

import pytest

from local.runner import StateError, TaskDoesNotExist, TaskTimedOut, TokenBroker
from tests.conftest import PATIENCE


def waiting(runner, function, **fields):
    return runner.call(
        function,
        {"token": "{% $states.context.Task.Token %}"},
        Resource="arn:aws:states:::lambda:invoke.waitForTaskToken",
        Output="{% $states.result %}",
        **fields,
    )


@pytest.fixture
def broker(runner):
    """A broker, and the tokens that the function ``keep`` was given."""
    found = TokenBroker()
    found.kept = []
    found.got = threading.Event()

    def keep(payload):
        found.kept.append(payload["token"])
        found.got.set()
        return "not the result"

    runner.machine.functions["keep"] = keep
    return found


def later(broker, *answers):
    """A thread that gives answers once the token is out."""

    def work():
        broker.got.wait(PATIENCE)
        for answer in answers:
            answer(broker.kept[0])

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_answer_is_the_result(runner, broker):
    thread = later(broker, lambda token: broker.send_task_success(token, {"n": [1, None]}))
    execution = runner.run({"W": waiting(runner, "keep")}, tokens=broker)
    thread.join()
    assert execution.output == {"n": [1, None]}


def test_an_answer_may_come_before_the_function_returns(runner, broker):
    runner.machine.functions["now"] = lambda p: broker.send_task_success(p["token"], "at once")
    assert runner.run({"W": waiting(runner, "now")}, tokens=broker).output == "at once"


def test_a_failure_has_its_error_and_cause(runner, broker):
    thread = later(broker, lambda token: broker.send_task_failure(token, "Job.Failed", "bad"))
    execution = runner.run({"W": waiting(runner, "keep")}, tokens=broker)
    thread.join()
    assert (execution.error, execution.cause) == ("Job.Failed", "bad")


def test_a_function_that_fails_fails_the_task(runner, broker):
    def bad(_payload):
        raise LookupError("no job")

    runner.machine.functions["bad"] = bad
    execution = runner.run({"W": waiting(runner, "bad")}, tokens=broker)
    assert execution.error == "LookupError"


def test_each_attempt_has_a_token_of_its_own(runner, broker):
    def answer(payload):
        broker.kept.append(payload["token"])
        if len(broker.kept) == 1:
            broker.send_task_failure(payload["token"], "Again")
        else:
            broker.send_task_success(payload["token"], len(set(broker.kept)))

    runner.machine.functions["answer"] = answer
    retry = [{"ErrorEquals": ["Again"]}]
    state = waiting(runner, "answer", Retry=retry)
    assert runner.run({"W": state}, tokens=broker).output == 2


def test_no_answer_in_time_is_a_timeout_and_a_late_one_is_told(runner, broker):
    state = waiting(runner, "keep", TimeoutSeconds=1)
    assert runner.run({"W": state}, tokens=broker).error == "States.Timeout"
    assert broker.got.wait(PATIENCE)  # on a slow machine the function starts after its time
    with pytest.raises(TaskTimedOut):
        broker.send_task_success(broker.kept[0], 1)


def test_unknown_and_used_tokens(runner, broker):
    with pytest.raises(TaskDoesNotExist):
        broker.send_task_success("nobody", 1)
    thread = later(broker, lambda token: broker.send_task_success(token, 1))
    runner.run({"W": waiting(runner, "keep")}, tokens=broker)
    thread.join()
    with pytest.raises(TaskTimedOut):
        broker.send_task_failure(broker.kept[0], "Late")


def test_a_waiting_task_holds_no_slot(runner, broker):
    branches = [
        {"StartAt": "W", "States": {"W": waiting(runner, "keep")}},
        {"StartAt": "S", "States": {"S": runner.call("send")}},
    ]

    def send(_payload):
        if not broker.got.is_set():
            raise StateError("NotYet")
        broker.send_task_success(broker.kept[0], "sent")

    runner.machine.functions["send"] = send
    branches[1]["States"]["S"]["Retry"] = [{"ErrorEquals": ["NotYet"]}]
    states = {"P": {"Type": "Parallel", "Branches": branches, "End": True}}
    # Between two attempts, too, the slot is free.
    execution = runner.run(
        states, tokens=broker, concurrency=1, sleep=lambda _: broker.got.wait(PATIENCE)
    )
    assert execution.output == ["sent", None]


def test_stop_ends_the_wait(runner, broker):
    workflow = runner.workflow({"W": waiting(runner, "keep")}, tokens=broker)
    thread = later(broker, lambda _token: workflow.stop())
    assert workflow.run(None, name="x").status == "ABORTED"
    thread.join()
