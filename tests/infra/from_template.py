"""The synthesized template for tests: the real ``python -m infra.app``, once for each input.

Tests elsewhere make their buckets and tables from it, so neither can differ from what is deployed:
``resources_from_template().create(s3=..., dynamodb=..., ...)``.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "synth"
JSII_CACHE = ROOT / "build" / "jsii"
HERE = Path(__file__).parent

JSON = dict[str, Any]


def synthesized(*, gpu: bool = False) -> Path:
    """Folder of the cloud assembly, synthesized without network, credentials, Docker or git.

    Kept under ``build/synth`` by a digest of all that the template is made from.
    """
    target = CACHE / _inputs_digest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes, one synth
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                _synthesize(Path(scratch) / "made")
                (Path(scratch) / "made").rename(target)
    return target / ("gpu" if gpu else "plain")


def template(*, gpu: bool = False) -> JSON:
    """The CloudFormation template."""
    loaded: JSON = json.loads((synthesized(gpu=gpu) / "imageclust.template.json").read_text())
    return loaded


def resources(template: JSON, kind: str) -> dict[str, JSON]:
    """Resources of one CloudFormation type, by logical id."""
    return {name: entry for name, entry in template["Resources"].items() if entry["Type"] == kind}


@dataclass(frozen=True)
class Resources:
    """What the stack makes that a test needs: properties as CloudFormation spells them."""

    table: JSON
    uploads: JSON
    data: JSON
    upload_rule: JSON

    def create(
        self,
        *,
        s3: Any,
        dynamodb: Any,
        uploads_bucket: str,
        data_bucket: str,
        table_name: str,
    ) -> None:
        """Make the buckets and the table through boto3 clients (of moto)."""
        for name, shape in ((uploads_bucket, self.uploads), (data_bucket, self.data)):
            s3.create_bucket(Bucket=name)
            if "NotificationConfiguration" in shape:
                s3.put_bucket_notification_configuration(
                    Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
                )
            s3.put_bucket_cors(Bucket=name, CORSConfiguration={"CORSRules": _cors_rules(shape)})
        dynamodb.create_table(TableName=table_name, **self.table)

    def upload_pattern(self, uploads_bucket: str) -> str:
        """The upload rule's event pattern for a bucket of this name."""
        pattern = json.loads(json.dumps(self.upload_rule["EventPattern"]))
        pattern["detail"]["bucket"]["name"] = [uploads_bucket]
        return json.dumps(pattern)


def resources_from_template() -> Resources:
    """The buckets, the table and the upload rule of the template."""
    loaded = template()
    buckets = resources(loaded, "AWS::S3::Bucket")
    [table] = resources(loaded, "AWS::DynamoDB::Table").values()
    [rule] = (
        entry["Properties"]
        for entry in resources(loaded, "AWS::Events::Rule").values()
        if "aws.s3" in entry["Properties"].get("EventPattern", {}).get("source", [])
    )
    return Resources(
        table={
            name: table["Properties"][name]
            for name in ("AttributeDefinitions", "KeySchema", "BillingMode")
        },
        uploads=_named(buckets, "StorageUploads"),
        data=_named(buckets, "StorageData"),
        upload_rule=rule,
    )


def _named(found: dict[str, JSON], prefix: str) -> JSON:
    [properties] = (entry["Properties"] for name, entry in found.items() if name.startswith(prefix))
    return dict(properties)


def _cors_rules(shape: JSON) -> list[JSON]:
    return [
        {
            "AllowedMethods": rule["AllowedMethods"],
            "AllowedOrigins": rule["AllowedOrigins"],
            "AllowedHeaders": rule["AllowedHeaders"],
            "MaxAgeSeconds": rule["MaxAge"],
        }
        for rule in shape["CorsConfiguration"]["CorsRules"]
    ]


def _inputs_digest() -> str:
    """Changes with everything that the template is made from, the code in its assets aside."""
    digest = hashlib.sha256(sys.version.encode())
    files = [
        *sorted((ROOT / "infra").rglob("*.py")),
        *sorted((ROOT / "containers").iterdir()),
        ROOT / "layers" / "core" / "python" / "imageclust" / "settings.py",
        ROOT / "layers" / "deps" / "layers.toml",
        ROOT / "statemachine" / "cluster_images.asl.json",
        ROOT / "uv.lock",
        *sorted(HERE.glob("offline.*")),
    ]
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:24]


def _synthesize(folder: Path) -> None:
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("node is not on the PATH; the CDK needs Node 20 or newer")
    environment = {
        "HOME": str(folder),  # the tester's may be read-only
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(JSII_CACHE),
        "PATH": str(Path(node).parent),
        "PYTHONPATH": str(ROOT),
        "NODE_OPTIONS": f"--require={HERE / 'offline.cjs'}",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        "CDK_OUTDIR": str(folder / "plain"),
        "IMAGECLUST_BUILD_LAYERS": "0",
    }
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(HERE / "offline.py"), str(folder / "gpu")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"synth failed:\n{done.stdout}\n{done.stderr}")
    (folder / "output.txt").write_text(done.stdout + done.stderr)
