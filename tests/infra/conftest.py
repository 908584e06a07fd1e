import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.infra import from_template

# The CDK works on Node 20, which its makers no longer support, and says so at each start.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
# By default it unpacks its packages under the tester's home, which may be read-only.
os.environ.setdefault("JSII_RUNTIME_PACKAGE_CACHE_ROOT", str(from_template.JSII_CACHE))


@pytest.fixture(scope="session")
def assembly() -> Path:
    return from_template.synthesized()


@pytest.fixture(scope="session")
def gpu_assembly() -> Path:
    return from_template.synthesized(gpu=True)


@pytest.fixture(scope="session")
def template(assembly: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((assembly / "imageclust.template.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def gpu_template(gpu_assembly: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((gpu_assembly / "imageclust.template.json").read_text())
    return loaded
