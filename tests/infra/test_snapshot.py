"""The whole template, asset hashes masked: a change of what is deployed shows in review.

``pytest tests/infra --snapshot-update`` after a change that was meant.
"""

import json
import re
from typing import Any

from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from infra.stack import DEFINITION

JSON = dict[str, Any]


def _masked(template: JSON) -> JSON:
    """Without what changes with the code in the assets; the workflow is a file of its own."""
    text = json.dumps(template)
    text = re.sub(r"\b[0-9a-f]{64}\b", "ASSET", text)
    text = re.sub(r"(ApiRestDeployment[0-9A-F]{8})[0-9a-f]{32}", r"\1", text)
    masked: JSON = json.loads(text)
    for entry in masked["Resources"].values():
        if entry["Type"] == "AWS::StepFunctions::StateMachine":
            entry["Properties"]["DefinitionString"] = f"the text of {DEFINITION.name}"
    return masked


def test_template(template: JSON, snapshot: SnapshotAssertion) -> None:
    assert _masked(template) == snapshot(extension_class=JSONSnapshotExtension)


def test_what_the_gpu_adds(template: JSON, gpu_template: JSON, snapshot: SnapshotAssertion) -> None:
    plain = _masked(template)["Resources"]
    changed = {
        name: entry
        for name, entry in _masked(gpu_template)["Resources"].items()
        if plain.get(name) != entry
    }
    assert changed == snapshot(extension_class=JSONSnapshotExtension)
