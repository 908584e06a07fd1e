"""``docs/security.md``, made from the synthesized templates: role → actions → resources → reason.

``python -m infra.security`` writes the page; a test fails when it no longer matches.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from infra.app import build
from infra.packaging import ROOT
from infra.permissions import REASONS
from infra.settings import StackSettings

JSON = dict[str, Any]
PAGE = ROOT / "docs" / "security.md"

_HEAD = """\
# Security

Made by `python -m infra.security` from the synthesized template; a test keeps it true.

- **Buckets**: no public access, encrypted (SSE-S3), TLS 1.2 or newer only, access logs kept 90
  days. Browsers reach objects through presigned links that live an hour at most.
- **Table and vectors**: encrypted at rest; the table can be restored to any second of 35 days.
- **API**: an API key on every request, a usage plan with rate limits and a daily quota. A key says
  that a caller may ask, not who they are: to tell people apart, put a Cognito, IAM or Lambda
  authorizer on the `ANY` method in `infra/constructs/api.py`.
- **Network**: functions run outside any VPC. With the GPU on, its instances have public subnets
  (no NAT gateway to pay for) and a security group that lets nothing in.
- **Logs** hold ids and counts. The workflow's log leaves out execution data.
- **Uploads are hostile until decoded**: a file is judged by its bytes, never by its name; what
  cannot be decoded safely becomes a rejected image with a reason.

## Who may do what

Every role has a policy of its own. `*` in a resource stands for "each object under this prefix"
unless the reason says that the service knows no resources for that call.
"""

_GPU_HEAD = """
## With the GPU on (`IMAGECLUST_GPU=1`)

These roles come, and the workflow's role may do this besides.
"""

_COLUMNS = "| may | on | because |\n| --- | --- | --- |\n"


@dataclass(frozen=True, order=True)
class Permission:
    """One row: a role, what it may do, on what, and why."""

    role: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    reason: str = ""


def permissions(template: JSON) -> list[Permission]:
    """Every permission of every role of a template, in the order of the roles' names."""
    return sorted(_permissions(template["Resources"]))


def security_page(plain: JSON, gpu: JSON) -> str:
    """The page as Markdown, from the templates without and with the GPU."""
    without = permissions(plain)
    added = [permission for permission in permissions(gpu) if permission not in without]
    return _HEAD + "\n" + _table(without) + _GPU_HEAD + "\n" + _table(added)


def _permissions(resources: JSON) -> Iterator[Permission]:
    roles = {name: entry for name, entry in resources.items() if _is(entry, "AWS::IAM::Role")}
    for name, entry in roles.items():
        for policy in entry["Properties"].get("ManagedPolicyArns", []):
            yield Permission(
                _role(resources, name),
                ("what AWS says in",),
                (_text(policy),),
                "AWS keeps this policy in step with its service",
            )
    for entry in resources.values():
        if not _is(entry, "AWS::IAM::Policy"):
            continue
        reasons = entry.get("Metadata", {}).get(REASONS, {})
        for statement in entry["Properties"]["PolicyDocument"]["Statement"]:
            for role in entry["Properties"]["Roles"]:
                yield Permission(
                    _role(resources, role["Ref"]),
                    tuple(_texts(statement["Action"])),
                    tuple(_texts(statement["Resource"])),
                    reasons.get(statement.get("Sid", ""), "")
                    or _cdk_reason(_texts(statement["Action"])),
                )


def _role(resources: JSON, name: str) -> str:
    """A role's name and who takes it."""
    trusted = resources[name]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    takers = [
        _text(statement["Principal"]["Service"])
        + (", for this account's own resources only" if "Condition" in statement else "")
        for statement in trusted
    ]
    return f"{_short(name)} (taken by {'; '.join(takers)})"


def _cdk_reason(actions: Iterable[str]) -> str:
    """Why the CDK adds a statement by itself."""
    for prefix, reason in _CDK_REASONS.items():
        if any(action.startswith(prefix) for action in actions):
            return reason
    return ""


_CDK_REASONS = {
    "xray:": "traces; no resources to name",
    "logs:CreateLogDelivery": "the workflow's log; no resources to name",
    "logs:": "its own log group",
    "sqs:": "the queue of upload events",
    "ecr:GetAuthorizationToken": "no resources to name",
    "ecr:": "the container image",
}


def _table(rows: Iterable[Permission]) -> str:
    parts = []
    for role, group in groupby(rows, key=lambda row: row.role):
        lines = [
            f"| {_cell(row.actions)} | {_cell(row.resources)} | {row.reason} |" for row in group
        ]
        parts.append(f"### {role}\n\n{_COLUMNS}" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _cell(texts: Iterable[str]) -> str:
    return "<br>".join(text.replace("|", "\\|") for text in texts)


def _is(entry: Mapping[str, Any], kind: str) -> bool:
    return bool(entry["Type"] == kind)


def _texts(value: object) -> list[str]:
    return [_text(item) for item in value] if isinstance(value, list) else [_text(value)]


def _text(value: object) -> str:
    """A CloudFormation value in words a reader knows: no hashes, no account, no region."""
    match value:
        case str():
            return re.sub(r"\$\{AWS::\w+\}", "…", re.sub(r"-[0-9A-F]{8}(?=/|$)", "", value))
        case {"Ref": str(name)}:
            return "" if name.startswith("AWS::") else _short(name)
        case {"Fn::GetAtt": [str(name), _]}:
            return _short(name)
        case {"Fn::Sub": str(text)}:
            return _text(text)
        case {"Fn::Join": [str(separator), list(parts)]}:
            return _plain_arn(separator.join(_text(part) for part in parts))
    raise TypeError(f"unexpected value in a policy: {value!r}")


def _plain_arn(arn: str) -> str:
    """``arn::states:::execution:x`` → ``states execution:x``."""
    match = re.fullmatch(r"arn::([\w-]+):(\*?):(\w*):(.+)", arn)
    if match is None:
        return arn
    return f"{match[1]} {match[4]}{' in any region' if match[2] else ''}"


def _short(logical_id: str) -> str:
    """A logical id without the CDK's hash and our construct of all functions."""
    return re.sub(r"[0-9A-F]{8}$", "", logical_id).removeprefix("Handlers")


def _synthesize(*, gpu: bool) -> JSON:
    with tempfile.TemporaryDirectory() as folder:
        settings = StackSettings(gpu=gpu, build_layers=False)
        build(settings, outdir=folder).synth()
        template: JSON = json.loads((Path(folder) / "imageclust.template.json").read_text("utf-8"))
        return template


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(security_page(_synthesize(gpu=False), _synthesize(gpu=True)), "utf-8")


if __name__ == "__main__":
    main()
