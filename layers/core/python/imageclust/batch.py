"""The embedding step as an AWS Batch job: ``python -m imageclust.batch embed …``.

It runs the same step as the Lambda map over the same manifest. What is stored is skipped, so a
job that Spot took away goes on where it stopped.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from imageclust.models import ImageRef, parse_json_lines
from imageclust.steps.embed import EmbedBatch, embed_batch
from imageclust.steps.usage import metered
from imageclust.wiring import Services, services

_BATCH = 256  # images a shard: enough to fill a GPU, few enough to lose little on interruption


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job (or one element of an array job); 0 when every image has an outcome."""
    parser = argparse.ArgumentParser(prog="python -m imageclust.batch")
    commands = parser.add_subparsers(dest="command", required=True)
    embed = commands.add_parser("embed", help="embed the images of a manifest")
    embed.add_argument("--run", required=True, help="id of the run")
    embed.add_argument("--collection", required=True)
    embed.add_argument("--model", required=True, help="embedder/preprocessing, as planned")
    embed.add_argument("--labeler", default="", help="labeler of the same inference")
    embed.add_argument("--manifest", required=True, help="s3:// address of the JSONL manifest")
    embed.add_argument("--jobs", type=int, default=1, help="number of jobs that share the work")
    options = parser.parse_args(argv)
    index = int(os.environ.get("AWS_BATCH_JOB_ARRAY_INDEX", "0"))
    done = embed_manifest(
        services(),
        run_id=options.run,
        model=(options.model, options.labeler),
        manifest=options.manifest,
        share=(index, max(1, options.jobs)),
    )
    print(f"embedded {done['embedded']}, rejected {done['rejected']}, reused {done['reused']}")
    return 0


def embed_manifest(
    services: Services,
    *,
    run_id: str,
    model: tuple[str, str],
    manifest: str,
    share: tuple[int, int],
) -> dict[str, int]:
    """Embed this job's share ``(index, jobs)`` of the manifest, batch by batch.

    ``model`` is (embedder/preprocessing, labeler or "") as the plan froze them.
    """
    refs = [ImageRef.from_json(row) for row in parse_json_lines(services.store.read(manifest))]
    index, jobs = share
    mine = refs[index::jobs]
    done = {"embedded": 0, "rejected": 0, "reused": 0}
    for start in range(0, len(mine), _BATCH):
        images = tuple(mine[start : start + _BATCH])
        with metered(services, "EmbedOnGpu", {"run_id": run_id, "first": images[0].uri}) as told:
            told["images"] = len(images)
            answer = embed_batch(services, EmbedBatch(run_id, model[0], images, model[1]))
        for name in done:
            done[name] += answer[name]
    return done


if __name__ == "__main__":
    sys.exit(main())
