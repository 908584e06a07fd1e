"""The workflow file as AWS would take it: placeholders, two checkers, time-outs."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.constructs.handlers import SHAPES, camel
from infra.packaging import ROOT
from infra.stack import DEFINITION
from tests.infra.from_template import resources

JSON = dict[str, Any]
TEXT = DEFINITION.read_text("utf-8")
_CFN_LINT = "import sys; from cfnlint.runner.cli import main; sys.exit(main())"
PLACEHOLDERS = set(re.findall(r"\$\{(\w+)\}", TEXT))
STATES = [name for name in SHAPES if f"{camel(name)}FunctionArn" in PLACEHOLDERS]


def _machine(template: JSON) -> JSON:
    [machine] = resources(template, "AWS::StepFunctions::StateMachine").values()
    return dict(machine["Properties"])


def test_placeholders_are_substitutions_are_handlers(template: JSON, gpu_template: JSON) -> None:
    for each in (template, gpu_template):
        substitutions = _machine(each)["DefinitionSubstitutions"]
        assert set(substitutions) == PLACEHOLDERS
        assert all(substitutions.values())
    assert len(STATES) == len([name for name in PLACEHOLDERS if name.endswith("FunctionArn")])
    for name in STATES:
        target = template["Resources"][
            _machine(template)["DefinitionSubstitutions"][f"{camel(name)}FunctionArn"][
                "Fn::GetAtt"
            ][0]
        ]
        assert target["Properties"]["Handler"] == f"functions.{name}.handler"


def test_the_deployed_definition_is_the_file(template: JSON) -> None:
    assert _machine(template)["DefinitionString"] == TEXT
    assert _machine(template)["StateMachineType"] == "STANDARD"
    assert _machine(template)["LoggingConfiguration"]["IncludeExecutionData"] is False


def test_gpu_placeholders_point_at_the_queue(template: JSON, gpu_template: JSON) -> None:
    for name in ("GpuJobQueueArn", "GpuJobDefinitionArn"):
        assert _machine(template)["DefinitionSubstitutions"][name] == "gpu-is-off"
        assert isinstance(_machine(gpu_template)["DefinitionSubstitutions"][name], dict)


def test_asl_validator_accepts_the_file(tmp_path: Path) -> None:
    validator = ROOT / "node_modules" / ".bin" / "asl-validator"
    if not validator.exists():
        pytest.skip("needs the Node tools: npm ci")
    filled = re.sub(r"\$\{(\w+)\}", r"arn:aws:lambda:us-east-1:111122223333:function:\1", TEXT)
    path = tmp_path / "filled.json"
    path.write_text(filled)
    done = subprocess.run(
        [str(validator), "--json-path", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_cfn_lint_accepts_the_templates(template: JSON, gpu_template: JSON, tmp_path: Path) -> None:
    """The workflow is handed over as an object, so that a finding in it has a line.

    cfn-lint 1.58 takes MaxConcurrency for a number; in JSONata it may be an expression, as the
    language says and asl-validator knows. W3005 is about DependsOn lines that the CDK writes.
    """
    paths = []
    for name, each in (("plain", template), ("gpu", gpu_template)):
        copy = json.loads(json.dumps(each))
        machine = _machine(copy)
        [entry] = resources(copy, "AWS::StepFunctions::StateMachine").values()
        entry["Properties"]["Definition"] = json.loads(machine["DefinitionString"])
        del entry["Properties"]["DefinitionString"]
        path = tmp_path / f"{name}.template.json"
        path.write_text(json.dumps(copy))
        paths.append(path)
    done = subprocess.run(
        [sys.executable, "-c", _CFN_LINT, "--format", "json", "--ignore-checks", "W3005", "--"]
        + [str(path) for path in paths],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [
        finding
        for finding in json.loads(done.stdout or "[]")
        if not re.fullmatch(
            r"'\{% \$plan\.\w+\.\w*concurrency %\}' is not of type 'number'", finding["Message"]
        )
    ]
    assert not found, json.dumps(found, indent=1)
    assert not done.stderr


def _tasks(node: object) -> Iterator[JSON]:
    if isinstance(node, dict):
        if node.get("Type") == "Task":
            yield node
        for value in node.values():
            yield from _tasks(value)
    elif isinstance(node, list):
        for value in node:
            yield from _tasks(value)


def test_states_wait_at_least_as_long_as_their_functions_run() -> None:
    """A state that times out first would start the same work a second time beside the first."""
    for task in _tasks(json.loads(TEXT)):
        match = re.fullmatch(r"\$\{(\w+)FunctionArn\}", task["Arguments"].get("FunctionName", ""))
        if match is None:
            continue
        [name] = [name for name in STATES if camel(name) == match[1]]
        assert task["TimeoutSeconds"] >= SHAPES[name].seconds, name
