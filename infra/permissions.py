"""One way to give a role a permission: exact actions, exact resources, and the reason.

The reason travels with the policy (``Metadata`` of the template), answers cdk-nag where a resource
ends in a wildcard, and is printed in ``docs/security.md``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Acknowledgment, CfnResource, Stack, Validations
from aws_cdk import aws_iam as iam
from constructs import IConstruct

REASONS = "imageclust:reasons"
"""Metadata key of a policy: ``{Sid: reason}``."""

JSON = dict[str, Any]


def allow(
    role: iam.Role,
    sid: str,
    *,
    actions: Sequence[str],
    resources: Sequence[str],
    reason: str,
    conditions: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add one statement to the role's own policy; ``sid`` is unique within the role."""
    role.add_to_policy(
        iam.PolicyStatement(
            sid=sid,
            actions=list(actions),
            resources=list(resources),
            conditions={name: dict(test) for name, test in (conditions or {}).items()} or None,
        )
    )
    policy = role.node.find_child("DefaultPolicy").node.default_child
    if not isinstance(policy, CfnResource):
        raise TypeError(f"{role.node.path} has no policy of its own")
    reasons = dict(policy.get_metadata(REASONS) or {})
    policy.add_metadata(REASONS, reasons | {sid: reason})
    for resource in resources:
        acknowledge_wildcard(role, resource, reason=reason)


def acknowledge_wildcard(scope: IConstruct, resource: str, *, reason: str) -> None:
    """Answer cdk-nag's question about one resource that holds ``*``; others need no answer."""
    shown = _as_nag_shows(Stack.of(scope).resolve(resource))
    if "*" in shown:
        acknowledge(scope, f"AwsSolutions-IAM5[Resource::{shown}]", reason=reason)


def acknowledge(scope: IConstruct, rule: str, *, reason: str) -> None:
    """Answer one finding of cdk-nag on one construct."""
    Validations.of(scope).acknowledge(Acknowledgment(id=rule, reason=reason))


def _as_nag_shows(value: object) -> str:
    """A resolved CloudFormation value as cdk-nag spells it in a finding's id."""
    match value:
        case str():
            return value
        case {"Ref": str(name)}:
            return f"<{name}>"
        case {"Fn::GetAtt": [str(name), str(attribute)]}:
            return f"<{name}.{attribute}>"
        case {"Fn::Join": [str(separator), list(parts)]}:
            return separator.join(_as_nag_shows(part) for part in parts)
    raise TypeError(f"cannot tell how cdk-nag shows {value!r}")
