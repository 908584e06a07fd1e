"""Retry, Catch, time-outs and stops: what the language says of errors."""

import json
import random
import subprocess
import sys
import threading

import pytest

from local.runner import StateError
from local.runner.scopes import Scope
from tests.conftest import PATIENCE


class Throttled(Exception):
    pass


class Broken(Exception):
    pass


def failing(*errors):
    """A function that raises each error in turn and then answers ``ok``."""
    left = list(errors)

    def function(_payload):
        if left:
            raise left.pop(0)
        return "ok"

    return function


def test_a_handler_exception_is_the_error_as_lambda_reports_it(runner):
    runner.machine.functions["bad"] = failing(Broken("no such thing"))
    execution = runner.run({"A": runner.call("bad")})
    assert (execution.status, execution.error) == ("FAILED", "Broken")
    assert json.loads(execution.cause) == {
        "errorMessage": "no such thing",
        "errorType": "Broken",
    }
    assert runner.kinds("A") == ["entered", "failed"]


def test_a_resource_may_name_the_error_itself(runner):
    runner.machine.functions["bad"] = failing(StateError("Lambda.Unknown", "gone"))
    execution = runner.run({"A": runner.call("bad")})
    assert (execution.error, execution.cause) == ("Lambda.Unknown", "gone")


def test_a_handler_that_exits_is_a_runtime_exit_error(runner):
    runner.machine.functions["bad"] = failing(SystemExit(3))
    assert runner.run({"A": runner.call("bad")}).error == "Runtime.ExitError"


def test_a_result_that_is_not_json_is_a_marshal_error(runner):
    runner.machine.functions["bad"] = lambda _: {1, 2}
    assert runner.run({"A": runner.call("bad")}).error == "Runtime.MarshalError"


def test_retriers_count_apart_as_in_the_developer_guide(runner):
    # The guide's own example: A, B, C, B, B wait 1, 2, 5 and 4 seconds; the fifth is not retried.
    a, b, c = (type(name, (Exception,), {}) for name in ("ErrorA", "ErrorB", "ErrorC"))
    runner.machine.functions["f"] = failing(a(), b(), c(), b(), b())
    retry = [
        {
            "ErrorEquals": ["ErrorA", "ErrorB"],
            "IntervalSeconds": 1,
            "BackoffRate": 2.0,
            "MaxAttempts": 3,
        },
        {"ErrorEquals": ["ErrorC"], "IntervalSeconds": 5},
    ]
    execution = runner.run(
        {
            "X": runner.call(
                "f", Retry=retry, Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Z"}], Next="Y"
            ),
            "Y": {"Type": "Pass", "End": True},
            "Z": {"Type": "Pass", "Output": "{% $states.input.Error %}", "End": True},
        }
    )
    assert runner.sleeps == [1, 2, 5, 4]
    assert execution.output == "ErrorB"
    assert [e.attempt for e in runner.events if e.kind == "retrying"] == [1, 2, 3, 4]


def test_defaults_of_a_retrier(runner):
    runner.machine.functions["f"] = failing(*[Broken() for _ in range(9)])
    runner.run({"A": runner.call("f", Retry=[{"ErrorEquals": ["Broken"]}])})
    assert runner.sleeps == [1, 2, 4]


def test_max_delay_and_zero_attempts(runner):
    runner.machine.functions["f"] = failing(*[Throttled() for _ in range(5)], Broken())
    retry = [
        {"ErrorEquals": ["Broken"], "MaxAttempts": 0},
        {
            "ErrorEquals": ["States.ALL"],
            "IntervalSeconds": 2,
            "BackoffRate": 3,
            "MaxDelaySeconds": 10,
            "MaxAttempts": 9,
        },
    ]
    execution = runner.run({"A": runner.call("f", Retry=retry)})
    assert runner.sleeps == [2, 6, 10, 10, 10]
    assert execution.error == "Broken"


def test_many_attempts_do_not_overflow(runner):
    runner.machine.functions["f"] = failing(*[Broken() for _ in range(2000)])
    retry = [{"ErrorEquals": ["Broken"], "BackoffRate": 10, "MaxAttempts": 2000}]
    assert runner.run({"A": runner.call("f", Retry=retry)}).status == "SUCCEEDED"
    assert max(runner.sleeps) == 99_999_999


def test_full_jitter_spreads_over_the_whole_interval(runner):
    runner.machine.functions["f"] = failing(*[Broken() for _ in range(200)])
    retry = [
        {
            "ErrorEquals": ["Broken"],
            "IntervalSeconds": 8,
            "BackoffRate": 1,
            "MaxAttempts": 200,
            "JitterStrategy": "FULL",
        }
    ]
    runner.run({"A": runner.call("f", Retry=retry)}, jitter=random.Random(1))
    assert len(runner.sleeps) == 200
    assert 0 <= min(runner.sleeps) < 1
    assert 7 < max(runner.sleeps) <= 8


def test_retry_count_is_in_the_context(runner):
    seen = []
    left = [Broken(), Broken()]

    def function(payload):
        seen.append(payload)
        if left:
            raise left.pop()

    runner.machine.functions["f"] = function
    runner.run(
        {
            "A": runner.call(
                "f",
                "{% $states.context.State.RetryCount %}",
                Retry=[{"ErrorEquals": ["States.ALL"]}],
                Output=None,
            )
        }
    )
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "error", "caught"),
    [
        (["States.ALL"], "Anything", True),
        (["States.ALL"], "States.Timeout", True),
        (["States.ALL"], "States.QueryEvaluationError", True),
        (["States.ALL"], "States.Runtime", False),
        (["States.ALL"], "States.DataLimitExceeded", False),
        (["States.DataLimitExceeded"], "States.DataLimitExceeded", True),
        (["States.TaskFailed"], "Anything", True),
        (["States.TaskFailed"], "States.Timeout", False),
        (["States.TaskFailed"], "States.Runtime", False),
        (["States.TaskFailed"], "States.DataLimitExceeded", False),
        (["States.Timeout"], "States.Timeout", True),
        (["Other", "Named"], "Named", True),
        (["named"], "Named", False),
    ],
)
def test_which_errors_a_catcher_takes(runner, names, error, caught):
    runner.machine.functions["bad"] = failing(StateError(error, "why"))
    execution = runner.run(
        {
            "A": runner.call("bad", Catch=[{"ErrorEquals": names, "Next": "B"}], Next="B"),
            "B": {"Type": "Pass", "End": True},
        }
    )
    if caught:
        assert execution.output == {"Error": error, "Cause": "why"}
    else:
        assert (execution.status, execution.error) == ("FAILED", error)


def test_catch_assigns_and_gives_output_from_the_error(runner):
    runner.machine.functions["bad"] = failing(Broken("x"))
    catch = {
        "ErrorEquals": ["States.ALL"],
        "Assign": {"failure": "{% $states.errorOutput.Error & '!' %}"},
        "Output": {"was": "{% $states.input.n %}"},
        "Next": "B",
    }
    execution = runner.run(
        {
            "A": runner.call("bad", Catch=[catch], Next="B"),
            "B": {
                "Type": "Pass",
                "Output": "{% [$failure, $states.input.was] %}",
                "End": True,
            },
        },
        {"n": 5},
    )
    assert execution.output == ["Broken!", 5]


def test_an_error_in_the_catcher_itself_is_not_caught_again(runner):
    runner.machine.functions["bad"] = failing(Broken("x"))
    catch = {"ErrorEquals": ["States.ALL"], "Output": "{% $nothing %}", "Next": "B"}
    execution = runner.run(
        {
            "A": runner.call("bad", Catch=[catch], Next="B"),
            "B": {"Type": "Pass", "End": True},
        }
    )
    assert execution.error == "States.QueryEvaluationError"


def test_a_failing_expression_of_a_task_can_be_caught_and_is_not_sent(runner):
    catch = [{"ErrorEquals": ["States.QueryEvaluationError"], "Next": "B"}]
    execution = runner.run(
        {
            "A": runner.call(payload="{% $states.input.missing %}", Catch=catch, Next="B"),
            "B": {"Type": "Pass", "Output": "caught", "End": True},
        },
        {},
    )
    assert execution.output == "caught"
    assert runner.machine.calls == []


def test_a_failing_output_is_retried_like_any_error_of_the_state(runner):
    execution = runner.run(
        {
            "A": runner.call(
                Output="{% $states.result.Payload.missing %}",
                Retry=[{"ErrorEquals": ["States.ALL"], "MaxAttempts": 2}],
            )
        },
        {},
    )
    assert execution.error == "States.QueryEvaluationError"
    assert len(runner.machine.calls) == 3


def test_fail_gives_its_error_and_cause(runner):
    execution = runner.run(
        {"F": {"Type": "Fail", "Error": "Mine", "Cause": "{% 'n=' & $states.input.n %}"}}, {"n": 1}
    )
    assert (execution.status, execution.error, execution.cause) == ("FAILED", "Mine", "n=1")


def test_more_than_256_kib_is_refused_wherever_it_appears(runner):
    big = "x" * 262_144
    assert runner.run({"A": {"Type": "Pass", "End": True}}, big).error == (
        "States.DataLimitExceeded"
    )
    assert runner.run({"A": {"Type": "Pass", "End": True}}, big[:-2]).status == "SUCCEEDED"
    runner.machine.functions["big"] = lambda _: big
    assert runner.run({"A": runner.call("big")}).error == "States.DataLimitExceeded"
    half = big[: len(big) // 2]
    double = {"Type": "Pass", "Output": "{% [$states.input, $states.input] %}", "End": True}
    assert runner.run({"A": double}, half).error == "States.DataLimitExceeded"
    assign = {**double, "Output": 1, "Assign": {"a": "{% [$states.input, $states.input] %}"}}
    assert runner.run({"A": assign}, half).error == "States.DataLimitExceeded"
    # Bytes count, not characters.
    assert runner.run({"A": {"Type": "Pass", "End": True}}, "é" * 140_000).error == (
        "States.DataLimitExceeded"
    )


def test_a_task_over_its_time_is_left_behind(runner):
    let_go, ended = threading.Event(), threading.Event()

    def slow(_payload):
        let_go.wait(PATIENCE)
        ended.set()
        return "late"

    runner.machine.functions["slow"] = slow
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "B"}]
    # One slot: the abandoned task must give it back, or B would wait for ever.
    execution = runner.run(
        {
            "A": runner.call("slow", TimeoutSeconds=1, Catch=catch, Next="B"),
            "B": runner.call(payload="on time"),
        },
        concurrency=1,
    )
    assert execution.output == "on time"
    assert not ended.is_set()
    let_go.set()
    assert ended.wait(PATIENCE)
    assert execution.output == "on time"


def test_the_time_limit_may_be_an_expression(runner):
    never = threading.Event()
    runner.machine.functions["slow"] = lambda _: never.wait(PATIENCE)
    execution = runner.run(
        {"A": runner.call("slow", TimeoutSeconds="{% $states.input.limit %}")}, {"limit": 1}
    )
    never.set()
    assert execution.error == "States.Timeout"


def test_the_workflow_over_its_time_is_timed_out(runner):
    never = threading.Event()
    runner.machine.functions["slow"] = lambda _: never.wait(PATIENCE)
    execution = runner.run({"A": runner.call("slow")}, timeout=1)
    never.set()
    assert (execution.status, execution.error) == ("TIMED_OUT", "States.Timeout")


def test_stop_ends_a_run_that_is_deep_in_a_map(runner):
    never, started = threading.Event(), threading.Event()

    def slow(_payload):
        started.set()
        never.wait(PATIENCE)

    runner.machine.functions["slow"] = slow
    runner.put_items([1, 2, 3])
    workflow = runner.workflow({"M": runner.distributed({"A": runner.call("slow")})})
    stopper = threading.Thread(target=lambda: (started.wait(PATIENCE), workflow.stop()))
    stopper.start()
    execution = workflow.run(None, name="x")
    stopper.join()
    never.set()
    assert execution.status == "ABORTED"


def test_stop_ends_a_wait_and_a_retry_delay(runner):
    for state in (
        {"Type": "Wait", "Seconds": 500, "End": True},
        runner.call("bad", Retry=[{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 500}]),
    ):
        runner.machine.functions["bad"] = failing(Broken())
        workflow = runner.workflow({"A": state}, sleep=None)
        begun = threading.Event()

        def stop(begun=begun, workflow=workflow):
            begun.wait(PATIENCE)
            workflow.stop()

        def listener(event, begun=begun, last="entered" if state["Type"] == "Wait" else "retrying"):
            if event.kind == last:
                begun.set()

        stopper = threading.Thread(target=stop)
        stopper.start()
        assert workflow.run(None, name="x", listener=listener).status == "ABORTED"
        stopper.join()


_CTRL_C = """
import signal, time, os
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
from local.runner import Workflow

class Machine:
    def invoke(self, name, payload):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

states = {"A": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
    "Arguments": {"FunctionName": "f"}, "End": True}}
branch = {"StartAt": "A", "States": states}
top = {"QueryLanguage": "JSONata", "StartAt": "P",
    "States": {"P": {"Type": "Parallel", "Branches": [branch], "End": True}}}
try:
    Workflow(top, resources=Machine()).run(None, name="x")
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_ctrl_c_stops_at_once_and_the_process_exits():
    done = subprocess.run(
        [sys.executable, "-c", _CTRL_C],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("stopped\n", 0), done.stderr


def test_ctrl_c_just_before_a_wait_is_noticed():
    """Python looks for it between two waits of the main thread, and no wait may last for ever."""
    told = []

    class Late(threading.Event):
        def wait(self, timeout=None):
            told.append(timeout)
            return len(told) > 3

    Scope().wait(Late())
    Scope().wait(Late(), 0)
    assert len(told) == 5
    assert all(timeout is not None and timeout < 1 for timeout in told)


def test_a_listener_that_raises_ends_the_run_with_its_own_error(runner):
    def listener(event):
        if event.state == "A":
            raise Broken("listener")

    branch = {"StartAt": "A", "States": {"A": runner.call()}}
    workflow = runner.workflow({"P": {"Type": "Parallel", "Branches": [branch], "End": True}})
    with pytest.raises(Broken, match="listener"):
        workflow.run(None, name="x", listener=listener)
