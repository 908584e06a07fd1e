"""JSONata as Step Functions has it."""

import copy
import threading
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.runner import StateError
from local.runner import expressions as expressions_module
from local.runner.expressions import compile_template

INPUT = {
    "n": None,
    "one": [1],
    "none": [],
    "all": [3, 1, 2],
    "deep": [[1], [2, 3]],
    "o": {"x": 1, "y": [{"z": 1}, {"z": 2}]},
    "t": "text",
}


def evaluate(source, **variables):
    template = compile_template(f"{{% {source} %}}", where="state 'A'", field="Output")
    return template.evaluate({"states": {"input": INPUT}, **variables})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("$states.input.n", None),
        ("$states.input.one", [1]),
        ("$states.input.none", []),
        ("$states.input.deep", [[1], [2, 3]]),
        ("$states.input.o.y.z", [1, 2]),
        ("$states.input.o.y[z=2].z", 2),
        ("$states.input.all[0]", 3),
        ("$exists($states.input.n)", True),
        ("$exists($states.result)", False),
        ("{'a': null, 'b': [1..3]}", {"a": None, "b": [1, 2, 3]}),
        ("$sort($states.input.all)", [1, 2, 3]),
        ("$merge([$states.input.o, {'x': 2}]).x", 2),
        ("$map([1..3], function($v) { $v * 2 })", [2, 4, 6]),
        ("$string(4 / 2)", "2"),
        # What Step Functions adds; the examples of its developer guide.
        ("$partition([1,2,3,4,5,6,7,8,9], 4)", [[1, 2, 3, 4], [5, 6, 7, 8], [9]]),
        ("$partition([], 4)", []),
        ("$range(1, 9, 2)", [1, 3, 5, 7, 9]),
        ("$range(3, 1, -1)", [3, 2, 1]),
        ("$hash('input data', 'SHA-1')", "aaff4a450a104cd177d28d18d74485e8cae074b7"),
        ("$parse('{\"foo\": [null, 1]}')", {"foo": [None, 1]}),
        ("$parse('null')", None),
        ("$random(7) = $random(7)", True),
        ("$random() < 1 and $random() >= 0", True),
    ],
)
def test_values(source, expected):
    assert evaluate(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "$states.input.missing",
        "$missing",
        "missing",
        "$",
        "$states.input.t.deeper",
        "1 / 0",
        "$foo()",
        "$number('x')",
        "$sum(['a'])",
        "$error('no')",
        "$assert(false, 'no')",
        "$parse('{')",
        "$parse(1)",
        "$partition(1, 2)",
        "$partition([1], 0)",
        "$range(1, 2)",
        "$range(1, 2, 0)",
        "$range(1, 2000, 1)",
        "$hash('a', 'CRC')",
        "$hash('a')",
        "$random('x')",
        "function($x) { $x }",
        "[function($x) { $x }]",
    ],
)
def test_failures_are_query_evaluation_errors(source):
    with pytest.raises(StateError) as caught:
        evaluate(source)
    assert caught.value.error == "States.QueryEvaluationError"
    assert "'Output' of state 'A'" in caught.value.cause


def test_uuid_is_version_four_and_new_each_time():
    first, second = evaluate("$uuid()"), evaluate("$uuid()")
    assert uuid.UUID(first).version == 4
    assert first != second


def test_an_expression_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(expressions_module, "_EVALUATION_S", 0.2)
    with pytest.raises(StateError, match=r"ran over 0\.2 seconds"):
        evaluate("($f := function($n) { $f($n + 1) }; $f(1))")


@pytest.mark.parametrize(
    "source",
    [
        "$append($states.input.all, 4)",
        "$sort($states.input.all)",
        "$reverse($states.input.all)",
        "$shuffle($states.input.all)",
        "$states.input.o ~> |$|{'x': 2}|",
        "$merge([$states.input.o, {'x': 2}])",
        "$partition($states.input.all, 2)",
        "$states.input.all^(>$)",
    ],
)
def test_expressions_leave_their_input_alone_and_share_nothing_new(source):
    before = copy.deepcopy(INPUT)
    result = evaluate(source)
    assert before == INPUT
    if isinstance(result, list):
        result.append("mine")
    assert before == INPUT


def test_templates_keep_their_shape():
    template = compile_template(
        {"a": ["{% 1 + 1 %}", "plain", None], "b": {"c": "{% $x %}"}, "d": "{ % no % }"},
        where="state 'A'",
        field="Output",
    )
    assert template.evaluate({"x": [7]}) == {
        "a": [2, "plain", None],
        "b": {"c": [7]},
        "d": "{ % no % }",
    }


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("xy", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(value=VALUES, path=st.lists(NAMES, max_size=3))
def test_the_short_cut_for_plain_paths_agrees_with_the_library(value, path):
    plain = ".".join(["$v", *path])
    # Brackets keep the short cut from being taken and change nothing in JSONata.
    template = compile_template(f"{{% ({plain}) %}}", where="state 'A'", field="Output")
    short = compile_template(f"{{% {plain} %}}", where="state 'A'", field="Output")

    def outcome(one):
        try:
            return one.evaluate({"v": value})
        except StateError as error:
            return error.error

    assert outcome(short) == outcome(template)


def test_threads_keep_their_own_clock_and_functions():
    """The library keeps state for each thread on the first expression it saw there."""
    now = compile_template("{% $millis() %}", where="state 'A'", field="Output")
    mapped = compile_template(
        "{% $map($v, function($i) { $i + $n }) %}", where="state 'A'", field="Output"
    )
    first = now.evaluate({})
    time.sleep(0.01)
    evaluate("1 + 1")
    assert now.evaluate({}) > first

    wrong = []

    def work(n):
        for _ in range(50):
            if mapped.evaluate({"v": [1, 2], "n": n}) != [1 + n, 2 + n]:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
