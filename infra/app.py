"""``npx cdk synth``, or plainly ``python -m infra.app``: writes the CloudFormation template.

Reads the project's files and ``IMAGECLUST_*`` variables, and nothing else: no account, no Docker,
no call to AWS or git.
"""

import os
import sys

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks
from pydantic import ValidationError

from infra.packaging import ROOT
from infra.settings import StackSettings, misspelt, refusals
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
    """Raises SystemExit with a line for each setting that is wrong."""
    wrong = misspelt(os.environ)
    try:
        settings = StackSettings()
    except ValidationError as error:
        sys.exit("\n".join(refusals(error) + wrong))
    if wrong:
        sys.exit("\n".join(wrong))
    build(settings, outdir=os.environ.get("CDK_OUTDIR", str(ROOT / "cdk.out"))).synth()


if __name__ == "__main__":
    main()
