"""``npx cdk synth``, or plainly ``python -m infra.app``: writes the CloudFormation template.

Reads the project's files and ``IMAGECLUST_*`` variables, and nothing else: no account, no Docker,
no call to AWS or git.
"""

import os

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks

from infra.packaging import ROOT
from infra.settings import StackSettings
from infra.stack import ImageclustStack


def build(settings: StackSettings, *, outdir: str) -> App:
    """The app, checked by cdk-nag while it synthesizes."""
    # Feature flags live here and not in cdk.json, so that both ways of synthesizing agree.
    app = App(
        outdir=outdir,
        analytics_reporting=False,
        context={"@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True},
    )
    ImageclustStack(app, settings.stack_name, settings=settings)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return app


def main() -> None:
    outdir = os.environ.get("CDK_OUTDIR", str(ROOT / "cdk.out"))
    build(StackSettings(), outdir=outdir).synth()


if __name__ == "__main__":
    main()
