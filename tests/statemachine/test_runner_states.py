"""Pass, Choice, Wait, Parallel, inline Map, variables and the context object."""

import threading
from datetime import datetime

import pytest

from tests.conftest import PATIENCE


def end(output):
    return {"Type": "Pass", "Output": output, "End": True}


def test_pass_hands_its_input_on_and_output_replaces_it(runner):
    states = {"A": {"Type": "Pass", "Next": "B"}, "B": end({"got": "{% $states.input %}"})}
    execution = runner.run(states, {"n": 1})
    assert (execution.status, execution.output) == ("SUCCEEDED", {"got": {"n": 1}})
    assert set(execution.states) == {"A", "B"}
    assert runner.kinds("A") == ["entered", "exited"]


def test_succeed_ends_with_its_output(runner):
    assert runner.run({"S": {"Type": "Succeed", "Output": [1, None]}}).output == [1, None]


def test_a_task_without_output_gives_the_service_answer(runner):
    state = runner.call()
    del state["Output"]
    assert runner.run({"A": state}, {"n": 1}).output == {
        "ExecutedVersion": "$LATEST",
        "Payload": {"n": 1},
        "StatusCode": 200,
    }


def test_a_function_without_payload_gets_an_empty_object(runner):
    state = runner.call()
    del state["Arguments"]["Payload"]
    runner.run({"A": state})
    assert runner.machine.calls == [("echo", {})]


def test_a_handler_cannot_change_what_others_see(runner):
    def greedy(payload):
        payload["n"].append(2)
        return payload

    runner.machine.functions["greedy"] = greedy
    states = {
        "A": {"Type": "Pass", "Assign": {"v": "{% $states.input %}"}, "Next": "B"},
        "B": runner.call("greedy", "{% $v %}", Next="C"),
        "C": end("{% [$v, $states.input] %}"),
    }
    value = {"n": [1]}
    assert runner.run(states, value).output == [{"n": [1]}, {"n": [1, 2]}]
    assert value == {"n": [1]}


def test_the_first_rule_that_holds_is_taken(runner):
    states = {
        "C": {
            "Type": "Choice",
            "Choices": [
                {"Condition": "{% $states.input.n > 10 %}", "Next": "Big"},
                {
                    "Condition": "{% $states.input.n > 5 %}",
                    "Assign": {"why": "middle"},
                    "Output": "chosen",
                    "Next": "Middle",
                },
            ],
            "Default": "Small",
        },
        "Big": end("big"),
        "Middle": end("{% $why & $states.input %}"),
        "Small": end("{% $exists($why) %}"),
    }
    assert [runner.run(states, {"n": n}).output for n in (11, 6, 1)] == [
        "big",
        "middlechosen",
        False,
    ]


def test_a_condition_must_be_a_boolean(runner):
    states = {
        "C": {"Type": "Choice", "Choices": [{"Condition": "{% 'yes' %}", "Next": "A"}]},
        "A": end(1),
    }
    assert runner.run(states).error == "States.QueryEvaluationError"


def test_no_rule_and_no_default_is_a_runtime_error_that_all_does_not_catch(runner):
    branch = {
        "StartAt": "C",
        "States": {
            "C": {"Type": "Choice", "Choices": [{"Condition": "{% false %}", "Next": "A"}]},
            "A": end(1),
        },
    }
    states = {
        "P": {
            "Type": "Parallel",
            "Branches": [branch],
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Z"}],
            "Next": "Z",
        },
        "Z": end("caught"),
    }
    assert runner.run(states).error == "States.Runtime"


def test_wait_takes_seconds_or_a_time(runner):
    states = {
        "A": {"Type": "Wait", "Seconds": "{% $states.input.s %}", "Next": "B"},
        "B": {"Type": "Wait", "Timestamp": "{% $states.input.t %}", "End": True},
    }
    value = {"s": 7, "t": "2026-01-01T00:00:30Z"}
    now = datetime.fromisoformat("2026-01-01T00:00:00+00:00").timestamp()
    assert runner.run(states, value, clock=lambda: now).output == value
    assert runner.sleeps == [7, 30]
    assert runner.run(states, {**value, "t": "soon"}).error == "States.QueryEvaluationError"
    assert runner.run(states, {**value, "s": -1}).error == "States.QueryEvaluationError"


def test_assign_counts_from_the_next_state_on(runner):
    states = {
        "A": {"Type": "Pass", "Assign": {"x": 1}, "Next": "B"},
        "B": {
            "Type": "Pass",
            "Assign": {"x": "{% $x + 1 %}", "y": "{% $x * 10 %}"},
            "Output": "{% $x %}",
            "Next": "C",
        },
        "C": end("{% [$states.input, $x, $y] %}"),
    }
    assert runner.run(states).output == [1, 2, 10]


def test_null_is_a_value_and_undefined_an_error(runner):
    states = {
        "A": {"Type": "Pass", "Assign": {"x": None}, "Next": "B"},
        "B": end({"x": "{% $x %}", "same": "{% $x = null %}"}),
    }
    assert runner.run(states).output == {"x": None, "same": True}
    assert runner.run({"A": end("{% $x %}")}).error == "States.QueryEvaluationError"


def test_branches_read_outer_variables_and_keep_their_own(runner):
    branch = {
        "StartAt": "I",
        "States": {
            "I": {"Type": "Pass", "Assign": {"inner": 1}, "Next": "J"},
            "J": end("{% $outer + $inner %}"),
        },
    }
    other = {"StartAt": "K", "States": {"K": end("{% $exists($inner) %}")}}
    states = {
        "A": {"Type": "Pass", "Assign": {"outer": 5}, "Next": "P"},
        "P": {"Type": "Parallel", "Branches": [branch, other], "Next": "Z"},
        "Z": end("{% [$states.input, $exists($inner)] %}"),
    }
    assert runner.run(states).output == [6, False, False]


def test_parallel_gives_each_branch_its_arguments_and_keeps_their_order(runner):
    gate = threading.Barrier(2)
    runner.machine.functions["meet"] = lambda payload: (gate.wait(PATIENCE), payload)[1]
    branches = [
        {"StartAt": name, "States": {name: runner.call("meet", [name, "{% $states.input %}"])}}
        for name in ("A", "B")
    ]
    states = {
        "P": {
            "Type": "Parallel",
            "Arguments": "{% $states.input.n %}",
            "Branches": branches,
            "Output": {"all": "{% $states.result %}", "in": "{% $states.input %}"},
            "End": True,
        }
    }
    # The barrier lets nobody through unless both branches run at once.
    assert runner.run(states, {"n": 3}).output == {
        "all": [["A", 3], ["B", 3]],
        "in": {"n": 3},
    }


def test_a_failed_branch_stops_the_others_and_is_caught_outside(runner):
    never, started = threading.Event(), threading.Event()

    def slow(_payload):
        started.set()
        never.wait(PATIENCE)

    def bad(_payload):
        started.wait(PATIENCE)
        raise LookupError("gone")

    runner.machine.functions.update(slow=slow, bad=bad)
    branches = [
        {"StartAt": "S", "States": {"S": runner.call("slow", Next="T"), "T": runner.call()}},
        {"StartAt": "B", "States": {"B": runner.call("bad")}},
    ]
    states = {
        "P": {
            "Type": "Parallel",
            "Branches": branches,
            "Catch": [{"ErrorEquals": ["LookupError"], "Next": "Z"}],
            "Next": "Z",
        },
        "Z": end("{% $states.input.Error %}"),
    }
    execution = runner.run(states)
    never.set()
    assert execution.output == "LookupError"
    assert runner.kinds("T") == []


def test_retry_of_a_parallel_runs_all_branches_again(runner):
    count = [0]

    def flaky(_payload):
        count[0] += 1
        if count[0] == 1:
            raise LookupError
        return count[0]

    runner.machine.functions["flaky"] = flaky
    branches = [
        {"StartAt": "A", "States": {"A": runner.call("flaky")}},
    ]
    retry = [{"ErrorEquals": ["States.ALL"]}]
    states = {"P": {"Type": "Parallel", "Branches": branches, "Retry": retry, "End": True}}
    assert runner.run(states).output == [2]


def test_inline_map_selects_items_and_keeps_their_order(runner):
    states = {
        "M": {
            "Type": "Map",
            "Items": "{% $states.input.all %}",
            "ItemSelector": {
                "i": "{% $states.context.Map.Item.Index %}",
                "v": "{% $states.context.Map.Item.Value %}",
                "k": "{% $states.input.k %}",
            },
            "ItemProcessor": {
                "StartAt": "A",
                "States": {
                    "A": {"Type": "Pass", "Assign": {"own": "{% $states.input.v %}"}, "Next": "B"},
                    "B": runner.call(payload="{% [$own, $states.input.k, $states.input.i] %}"),
                },
            },
            "End": True,
        }
    }
    execution = runner.run(states, {"all": ["a", "b", "c"], "k": 9})
    assert execution.output == [["a", 9, 0], ["b", 9, 1], ["c", 9, 2]]
    progress = [(e.done, e.total) for e in runner.events if e.kind == "progress"]
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_inline_map_over_nothing_and_over_what_is_no_array(runner):
    states = {
        "M": {
            "Type": "Map",
            "ItemProcessor": {"StartAt": "A", "States": {"A": runner.call()}},
            "End": True,
        }
    }
    assert runner.run(states, []).output == []
    assert runner.run(states, {"a": 1}).error == "States.QueryEvaluationError"


def test_an_inline_map_fails_with_the_error_of_its_child(runner):
    runner.machine.functions["bad"] = lambda n: 1 / n
    states = {
        "M": {
            "Type": "Map",
            "MaxConcurrency": 1,
            "ItemProcessor": {"StartAt": "A", "States": {"A": runner.call("bad")}},
            "End": True,
        }
    }
    execution = runner.run(states, [1, 0, 2])
    assert execution.error == "ZeroDivisionError"
    assert [payload for _, payload in runner.machine.calls] == [1, 0]


@pytest.mark.parametrize(("most", "machine", "expected"), [(1, 4, 1), (2, 4, 2), (0, 3, 3)])
def test_the_tighter_of_both_limits_holds(runner, most, machine, expected):
    lock = threading.Lock()
    now, peak = [0], [0]
    everyone = threading.Event()

    def busy(_payload):
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
            if now[0] == expected:
                everyone.set()
        everyone.wait(PATIENCE)
        with lock:
            now[0] -= 1

    runner.machine.functions["busy"] = busy
    states = {
        "M": {
            "Type": "Map",
            "MaxConcurrency": most,
            "ItemProcessor": {
                "StartAt": "A",
                "States": {"A": runner.call("busy", Output=None)},
            },
            "End": True,
        }
    }
    assert runner.run(states, list(range(12)), concurrency=machine).status == "SUCCEEDED"
    assert peak[0] == expected


def test_the_machine_limit_holds_over_all_maps_together(runner):
    lock = threading.Lock()
    now, peak = [0], [0]
    both = threading.Event()

    def busy(_payload):
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
            if now[0] == 2:
                both.set()
        both.wait(PATIENCE)
        with lock:
            now[0] -= 1

    runner.machine.functions["busy"] = busy
    branches = [
        {
            "StartAt": f"M{n}",
            "States": {
                f"M{n}": {
                    "Type": "Map",
                    "Items": [1, 2, 3, 4],
                    "ItemProcessor": {
                        "StartAt": f"A{n}",
                        "States": {f"A{n}": runner.call("busy", Output=None)},
                    },
                    "End": True,
                }
            },
        }
        for n in range(3)
    ]
    states = {"P": {"Type": "Parallel", "Branches": branches, "End": True}}
    assert runner.run(states, concurrency=2).status == "SUCCEEDED"
    assert peak[0] == 2


def test_the_context_object(runner):
    states = {"A": end("{% $states.context %}")}
    workflow = runner.workflow(states, name="cluster_images", clock=lambda: 1_700_000_000.25)
    at = "2023-11-14T22:13:20.250Z"
    assert workflow.run({"n": 1}, name="run-7").output == {
        "Execution": {
            "Id": "arn:aws:states:local:000000000000:execution:cluster_images:run-7",
            "Input": {"n": 1},
            "Name": "run-7",
            "StartTime": at,
        },
        "State": {"EnteredTime": at, "Name": "A", "RetryCount": 0},
        "StateMachine": {
            "Id": "arn:aws:states:local:000000000000:stateMachine:cluster_images",
            "Name": "cluster_images",
        },
    }


def test_a_run_may_start_at_a_later_state_with_variables(runner):
    states = {
        "A": {"Type": "Pass", "Assign": {"x": 1}, "Next": "B"},
        "B": end("{% [$x, $states.input] %}"),
    }
    workflow = runner.workflow(states)
    assert workflow.run(2, name="x", start_at="B", variables={"x": 9}).output == [9, 2]
    with pytest.raises(Exception, match="no state 'Q'"):
        workflow.run(2, name="x", start_at="Q")


def test_batch_jobs_get_their_arguments_and_their_failures_are_task_failed(runner):
    job = {
        "Type": "Task",
        "Resource": "arn:aws:states:::batch:submitJob.sync",
        "Arguments": {
            "JobName": "{% 'j' & $states.input.n %}",
            "JobQueue": "q",
            "JobDefinition": "d",
        },
        "End": True,
    }
    arguments = {"JobName": "j1", "JobQueue": "q", "JobDefinition": "d"}
    assert runner.run({"J": job}, {"n": 1}).output == arguments

    def failing(_arguments, _cancel):
        raise OSError("exit 1")

    runner.machine.job = failing
    execution = runner.run({"J": job}, {"n": 1})
    assert execution.error == "States.TaskFailed"
    assert "exit 1" in execution.cause


def test_a_batch_job_over_its_time_is_told_to_end(runner):
    told = threading.Event()

    def slow(_arguments, cancel):
        if cancel.wait(PATIENCE):
            told.set()

    runner.machine.job = slow
    job = {
        "Type": "Task",
        "Resource": "arn:aws:states:::batch:submitJob.sync",
        "Arguments": {"JobName": "j", "JobQueue": "q", "JobDefinition": "d"},
        "TimeoutSeconds": 1,
        "End": True,
    }
    assert runner.run({"J": job}).error == "States.Timeout"
    assert told.wait(PATIENCE)
