"""What the runner refuses, and that it says where."""

import copy
import json
import re

import pytest

from local.runner import InvalidDefinition, StateError, Workflow, load_definition


def workflow(states, **top):
    definition = {
        "QueryLanguage": "JSONata",
        "StartAt": next(iter(states)),
        "States": states,
        **top,
    }
    return Workflow(definition, resources=None)


PASS = {"Type": "Pass", "End": True}
TASK = {
    "Type": "Task",
    "Resource": "arn:aws:states:::lambda:invoke",
    "Arguments": {"FunctionName": "f"},
    "End": True,
}
INLINE = {"Type": "Map", "ItemProcessor": {"StartAt": "I", "States": {"I": PASS}}, "End": True}
DISTRIBUTED = {
    "Type": "Map",
    "ItemProcessor": {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        "StartAt": "I",
        "States": {"I": TASK},
    },
    "ItemReader": {
        "Resource": "arn:aws:states:::s3:getObject",
        "ReaderConfig": {"InputType": "JSONL"},
        "Arguments": {"Bucket": "b", "Key": "k"},
    },
    "ItemBatcher": {"MaxItemsPerBatch": 2},
    "ResultWriter": {
        "Resource": "arn:aws:states:::s3:putObject",
        "Arguments": {"Bucket": "b", "Prefix": "p"},
    },
    "End": True,
}


def changed(state, *path, to):
    """A copy with the field at ``path`` set, or taken out when ``to`` is ``...``."""
    found = copy.deepcopy(state)
    holder = found
    for name in path[:-1]:
        holder = holder.setdefault(name, {}) if isinstance(holder, dict) else holder[name]
    if to is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = to
    return found


@pytest.mark.parametrize("state", [PASS, TASK, INLINE, DISTRIBUTED])
def test_the_states_of_these_tests_are_fine_unchanged(state):
    workflow({"A": state})


@pytest.mark.parametrize(
    ("state", "path", "to", "message"),
    [
        (PASS, ["Colour"], 1, "Colour: unknown or unsupported field"),
        (PASS, ["Parameters"], {}, "Parameters: belongs to JSONPath"),
        (PASS, ["Result"], 1, "Result: belongs to JSONPath"),
        (PASS, ["InputPath"], "$", "InputPath: belongs to JSONPath"),
        (PASS, ["QueryLanguage"], "JSONPath", "QueryLanguage: only JSONata"),
        (PASS, ["Type"], "Loop", "Type: 'Loop' is unknown"),
        (PASS, ["Next"], "A", "one of Next and End"),
        (PASS, ["End"], ..., "one of Next and End"),
        (PASS, ["End"], "yes", "End: true or false"),
        (PASS, ["Retry"], [], "Retry: unknown or unsupported field"),
        (PASS, ["Assign"], {"states": 1}, "Assign.states: not a name"),
        (PASS, ["Assign"], {"a-b": 1}, "Assign.a-b: not a name"),
        (PASS, ["Output"], {"x.$": "$.y"}, "JSONPath is not supported"),
        (PASS, ["Output"], "{% 1 + %}", "Output: not JSONata"),
        (PASS, ["Output"], ["{% 1"], "starts with"),
        (PASS, ["Output"], "1 %}", "starts with"),
        (PASS, ["Output"], "{% $eval('1') %}", "\\$eval does not exist"),
        (TASK, ["Resource"], "arn:aws:states:::sqs:sendMessage", "sqs:sendMessage' is not one"),
        (TASK, ["Resource"], ..., "Resource: a non-empty string"),
        (TASK, ["Arguments"], ..., "Arguments: required"),
        (TASK, ["Arguments"], {"Payload": 1}, "Arguments.FunctionName: required"),
        (TASK, ["Arguments", "InvocationType"], "Event", "Arguments.InvocationType: unsupported"),
        (TASK, ["TimeoutSeconds"], 0, "TimeoutSeconds: a whole number from 1"),
        (TASK, ["TimeoutSeconds"], 1.5, "TimeoutSeconds: a whole number from 1"),
        (TASK, ["HeartbeatSeconds"], 5, "HeartbeatSeconds: unknown or unsupported"),
        (TASK, ["TimeoutSecondsPath"], "$.t", "TimeoutSecondsPath: belongs to JSONPath"),
        (TASK, ["Credentials"], {}, "Credentials: unknown"),
        (TASK, ["Retry"], [{}], "Retry 0: ErrorEquals"),
        (TASK, ["Retry"], [{"ErrorEquals": ["A"], "Wait": 1}], "Retry 0: Wait: unknown"),
        (TASK, ["Retry"], [{"ErrorEquals": ["A"], "BackoffRate": 0.5}], "BackoffRate"),
        (TASK, ["Retry"], [{"ErrorEquals": ["A"], "MaxAttempts": -1}], "MaxAttempts"),
        (TASK, ["Retry"], [{"ErrorEquals": ["A"], "JitterStrategy": "SOME"}], "JitterStrategy"),
        (TASK, ["Retry"], [{"ErrorEquals": ["A"], "MaxDelaySeconds": 1}], "MaxDelaySeconds"),
        (TASK, ["Retry"], [{"ErrorEquals": ["A", "States.ALL"]}], "alone and last"),
        (
            TASK,
            ["Retry"],
            [{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["A"]}],
            "alone and last",
        ),
        (TASK, ["Catch"], [{"ErrorEquals": ["States.Runtime"], "Next": "A"}], "cannot be handled"),
        (TASK, ["Catch"], [{"ErrorEquals": ["A"]}], "Next: a non-empty string"),
        (TASK, ["Catch"], [{"ErrorEquals": ["A"], "Next": "B"}], "no state 'B'"),
        (
            TASK,
            ["Catch"],
            [{"ErrorEquals": ["A"], "Next": "A", "ResultPath": "$"}],
            "ResultPath: belongs to JSONPath",
        ),
        (INLINE, ["ItemProcessor"], ..., "ItemProcessor: required"),
        (INLINE, ["Iterator"], {}, "Iterator: belongs to JSONPath"),
        (INLINE, ["ItemBatcher"], {"MaxItemsPerBatch": 2}, "ItemBatcher: only for Mode DISTRIB"),
        (INLINE, ["ToleratedFailureCount"], 1, "ToleratedFailureCount: only for Mode"),
        (INLINE, ["MaxConcurrency"], -1, "MaxConcurrency: a whole number"),
        (INLINE, ["ItemProcessor", "ProcessorConfig"], {"Mode": "FAST"}, "Mode: 'FAST'"),
        (INLINE, ["ItemProcessor", "Extra"], 1, "Extra: unknown"),
        (DISTRIBUTED, ["Items"], [1], "Items: not together with ItemReader"),
        (DISTRIBUTED, ["Label"], "a", "Label: unknown or unsupported"),
        (DISTRIBUTED, ["ToleratedFailurePercentage"], 101, "ToleratedFailurePercentage"),
        (DISTRIBUTED, ["ItemReader", "Resource"], "arn:aws:states:::s3:listObjectsV2", "only arn"),
        (DISTRIBUTED, ["ItemReader", "Parameters"], {}, "Parameters: belongs to JSONPath"),
        (DISTRIBUTED, ["ItemReader", "ReaderConfig", "InputType"], "CSV", "InputType: 'CSV'"),
        (DISTRIBUTED, ["ItemReader", "ReaderConfig", "MaxItems"], 5, "MaxItems: unknown"),
        (DISTRIBUTED, ["ItemReader", "ReaderConfig", "ItemsPointer"], "/a", "ItemsPointer: unkn"),
        (DISTRIBUTED, ["ItemReader", "Arguments", "VersionId"], "1", "exactly Bucket and Key"),
        (DISTRIBUTED, ["ItemBatcher"], {}, "MaxItemsPerBatch: required"),
        (DISTRIBUTED, ["ItemBatcher", "MaxItemsPerBatch"], 0, "MaxItemsPerBatch"),
        (DISTRIBUTED, ["ItemBatcher", "MaxInputBytesPerBatch"], 9, "PerBatch: unknown"),
        (DISTRIBUTED, ["ResultWriter", "WriterConfig"], {}, "WriterConfig: unknown"),
        (
            DISTRIBUTED,
            ["ItemProcessor", "ProcessorConfig"],
            {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"},
            "ExecutionType: STANDARD is required",
        ),
    ],
)
def test_what_is_wrong_or_unknown_is_refused_by_name(state, path, to, message):
    with pytest.raises(InvalidDefinition, match=message) as caught:
        workflow({"A": changed(state, *path, to=to)})
    assert "'A'" in str(caught.value) or "'I'" in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"Type": "Wait", "End": True}, "one of Seconds and Timestamp"),
        ({"Type": "Wait", "Seconds": 1, "Timestamp": "x", "End": True}, "one of Seconds and"),
        ({"Type": "Choice", "Choices": []}, "Choices: a non-empty array"),
        ({"Type": "Choice", "Choices": [{"Condition": "x", "Next": "A"}]}, "Condition"),
        (
            {"Type": "Choice", "Choices": [{"Variable": "$.x", "IsNull": True, "Next": "A"}]},
            "Condition",
        ),
        (
            {
                "Type": "Choice",
                "Choices": [{"Condition": True, "Next": "A"}],
                "Assign": {"x": 1},
            },
            "Assign: put it in the rules",
        ),
        ({"Type": "Fail", "Next": "A"}, "Next: unknown"),
        ({"Type": "Succeed", "Assign": {}}, "Assign: unknown"),
        ({"Type": "Parallel", "Branches": [], "End": True}, "Branches: a non-empty array"),
    ],
)
def test_other_states_are_checked_too(state, message):
    with pytest.raises(InvalidDefinition, match=message):
        workflow({"A": state})


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ({"QueryLanguage": "JSONPath"}, "only JSONata"),
        ({"QueryLanguage": ...}, "only JSONata"),
        ({"StartAt": "Z"}, "no state 'Z'"),
        ({"Version": "2.0"}, "Version"),
        ({"TimeoutSeconds": 0}, "TimeoutSeconds"),
        ({"Tags": {}}, "Tags: unknown"),
        ({"States": {}}, "States: a non-empty object"),
        ({"States": {"A": {**PASS}, "B": PASS}}, "nothing leads to B"),
        ({"States": {"A": {"Type": "Pass", "Next": "A"}}}, "no state ends the workflow"),
        ({"States": {"A": 1}}, "must be a JSON object"),
    ],
)
def test_the_top_level_is_checked(top, message):
    definition = {"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": PASS}, **top}
    definition = {name: value for name, value in definition.items() if value is not ...}
    with pytest.raises(InvalidDefinition, match=message):
        Workflow(definition, resources=None)


def test_state_names_are_unique_in_the_whole_workflow():
    branch = {"StartAt": "P", "States": {"P": PASS}}
    with pytest.raises(InvalidDefinition, match="'P': Name: used twice"):
        workflow({"P": {"Type": "Parallel", "Branches": [branch], "End": True}})


def test_inner_scopes_may_not_assign_outer_names_but_distributed_children_may():
    inner = {"StartAt": "I", "States": {"I": {**PASS, "Assign": {"x": 1}}}}
    start = {"Type": "Pass", "Assign": {"x": 1}, "Next": "P"}
    with pytest.raises(InvalidDefinition, match="x: already assigned in an outer scope"):
        workflow({"A": start, "P": {"Type": "Parallel", "Branches": [inner], "End": True}})
    workflow(
        {
            "A": start,
            "P": changed(DISTRIBUTED, "ItemProcessor", "States", "I", "Assign", to={"x": 1}),
        }
    )


def test_branches_beside_each_other_may_assign_the_same_name():
    branches = [
        {"StartAt": name, "States": {name: {**PASS, "Assign": {"x": 1}}}} for name in ("A", "B")
    ]
    workflow({"P": {"Type": "Parallel", "Branches": branches, "End": True}})


def test_placeholders_are_filled_and_each_must_fit(tmp_path):
    path = tmp_path / "w.asl.json"
    path.write_text(json.dumps({"States": {"A": {"Arguments": ["x${One}y", "${Two}"]}}}))
    filled = load_definition(path, {"One": 'a"b', "Two": "c"})
    assert filled == {"States": {"A": {"Arguments": ['xa"by', "c"]}}}
    with pytest.raises(InvalidDefinition, match="no value for the placeholders Two"):
        load_definition(path, {"One": "a"})
    with pytest.raises(InvalidDefinition, match="no placeholder for the values Three"):
        load_definition(path, {"One": "a", "Two": "b", "Three": "c"})


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "not a JSON object"), ('{"a":1,"a":2}', "'a' is given twice")],
)
def test_files_that_are_no_workflow(tmp_path, text, message):
    path = tmp_path / "w.asl.json"
    path.write_text(text)
    with pytest.raises(InvalidDefinition, match=re.escape(message)):
        load_definition(path, {})


def test_concurrency_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        Workflow(
            {"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": PASS}},
            resources=None,
            concurrency=0,
        )


def test_errors_survive_pickling():
    import pickle

    for error in (InvalidDefinition("state 'A'", "X: no"), StateError("E", "why")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
