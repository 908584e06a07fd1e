"""The command line, ``imageclust``: run, search, score, compare, estimate, serve, models.

Exit codes: 0 done, 1 a run failed (the state and the reason are told), 2 bad arguments or a
configuration or folder that cannot work (told in one sentence).
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

# All that takes time is imported below ``main``: Ctrl-C while it loads is told in one line, too.
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from imageclust.models import JSON, RunConfig

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return _complain("stopped; the same command goes on where this one was", STOPPED)


def _main(argv: Sequence[str] | None) -> int:
    from imageclust.errors import ImageclustError, InvalidInput

    options = _parser().parse_args(argv)
    try:
        code: int = options.run_command(options)
    except InvalidInput as refused:
        return _complain(str(refused), REFUSED)
    except ImageclustError as failed:
        return _complain(str(failed), FAILED)
    except OSError as failed:
        return _complain(_said(failed, options), FAILED)
    return code


def _said(failed: OSError, options: argparse.Namespace) -> str:
    """What the system refused, and a way out where it was in the state folder."""
    from local.home import find_home

    told = failed.strerror or str(failed)
    if not failed.filename:
        return told
    home = find_home(options.home) if "home" in options else None
    if home and home in (Path(failed.filename), *Path(failed.filename).parents):
        return f"the state folder {home} cannot be used: {told}; choose another with --home"
    return f"{told}: {failed.filename}"


def _complain(sentence: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"imageclust: {sentence}", file=sys.stderr)
    return code


def _usage(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return REFUSED


def _parser() -> argparse.ArgumentParser:
    import argparse

    from imageclust import __version__

    parser = argparse.ArgumentParser(
        prog="imageclust",
        description="Photos in, named clusters out.",
        epilog="State lives in --home, else $IMAGECLUST_HOME, else .imageclust/.",
    )
    parser.add_argument("--version", action="version", version=f"imageclust {__version__}")
    parser.set_defaults(run_command=lambda _: _usage(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_run(commands)
    _add_search(commands)
    _add_score(commands)
    _add_compare(commands)
    _add_estimate(commands)
    _add_serve(commands)
    _add_models(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="cluster the pictures of a folder",
        description="Cluster the pictures of a folder, its sub-folders included. Photos are read "
        "where they lie and never changed. The same command again reuses what is stored.",
    )
    run.add_argument("photos", metavar="PHOTOS", help="the folder")
    run.add_argument(
        "--out", metavar="DIR", help="where the results go (default: NAME-clusters, here)"
    )
    run.add_argument("--collection", metavar="NAME", help="name of the collection")
    _add_config(run)
    run.add_argument("--embedder", metavar="KEY", help="see 'imageclust models list'")
    run.add_argument("--preprocess", metavar="NAME", help="center_crop, resize, letterbox, …")
    run.add_argument("--labels", choices=["full", "exemplars", "off"], help="which images to label")
    run.add_argument("--label-min-confidence", type=float, metavar="C",
                     help="leave out labels below it, 0 to 100")  # fmt: skip
    run.add_argument("--max-labels", type=int, metavar="N", help="at most so many labels an image")
    run.add_argument("--label-weight", type=float, metavar="W",
                     help="say of the labels beside the vectors, 0 (none) to 1")  # fmt: skip
    run.add_argument("--duplicates", choices=["exact", "confirmed"],
                     help="equal files only, or confirmed copies too (the default)")  # fmt: skip
    run.add_argument(
        "--captions", choices=["off", "exemplars", "all"], help="which images get a line of text"
    )
    run.add_argument("--keep-copy", action="append", dest="keepers", metavar="PATTERN",
                     help="a file, or glob, that stands for its copies; repeatable")  # fmt: skip
    _add_clustering(run)
    run.add_argument("--target-size", type=int, metavar="N", help="images a cluster, on average")
    run.add_argument("--search-seconds", type=float, metavar="S",
                     help="try nothing new after so long")  # fmt: skip
    for part, said in (
        ("silhouette", "how well the clusters are told apart"),
        ("balance", "how even their sizes are"),
        ("noise", "how few images are outliers"),
    ):
        run.add_argument(f"--{part}-weight", type=float, metavar="W",
                         help=f"say of {said} in the score that ranks")  # fmt: skip
    run.add_argument("--outliers", choices=["keep", "assign"], help="keep noise apart or not")
    run.add_argument("--home", metavar="DIR", help="the state folder")
    run.add_argument("--json", action="store_true", help="print the run record and nothing else")
    run.set_defaults(run_command=_run)


def _add_clustering(command: argparse.ArgumentParser) -> None:
    """Settings of a run that a comparison has, too."""
    from imageclust.models import Method, Mode

    command.add_argument("--method", metavar="M", choices=get_args(Method),
                         help=", ".join(get_args(Method)))  # fmt: skip
    command.add_argument("--mode", choices=get_args(Mode), help="how much to search")
    command.add_argument("--clusters", type=int, metavar="K", help="exactly so many clusters")
    command.add_argument("--min-size", type=int, metavar="N", help="fewest images a cluster")
    command.add_argument("--max-size", type=int, metavar="N", help="most images a cluster")
    command.add_argument("--sample", type=float, metavar="SHARE", help="share of the images to use")
    command.add_argument("--seed", type=int, metavar="N", help="seed of everything random")


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        metavar="JSON",
        help='any settings of a run, \'{"labels": "exemplars"}\', or a file of them; '
        "an option given beside it wins",
    )


def _given(options: argparse.Namespace) -> RunConfig:
    """The settings of a run: ``--config``, and over it the options. Raises InvalidInput."""
    from dataclasses import fields

    from imageclust.models import RunConfig

    own = {field.name: getattr(options, field.name, None) for field in fields(RunConfig)}
    given = {name: value for name, value in own.items() if value is not None}
    return RunConfig.from_json(_read_config(getattr(options, "config", None)) | given)


def _read_config(given: str | None) -> JSON:
    """The settings in a JSON file, or in the text itself. Raises InvalidInput."""
    from imageclust.errors import InvalidInput

    if not given:
        return {}
    try:
        text = given if given.lstrip().startswith("{") else Path(given).read_text("utf-8-sig")
        found = json.loads(text)
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {given}; --config takes one, or JSON") from None
    except ValueError as error:
        raise InvalidInput(f"--config is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput("--config must be a JSON object of settings")
    return found


def _run(options: argparse.Namespace) -> int:
    from imageclust import errors

    from local.home import FAILURES, find_home
    from local.run import run_folder

    home = find_home(options.home)
    outcome = run_folder(
        Path(options.photos),
        home=home,
        out=Path(options.out) if options.out else None,
        collection=options.collection,
        config=_given(options),
        quiet=options.json,
    )
    if options.json:
        print(json.dumps(outcome.record, indent=2))
    if outcome.failure:
        failure = outcome.failure
        sentence = failure["cause"]
        if outcome.record["state"] == "INVALID":
            return _complain(sentence, REFUSED)
        unforeseen = not hasattr(errors, failure["error"])
        more = f" ({home / FAILURES})" if unforeseen else ""
        told = f"the run failed at {failure['state']} ({failure['error']}): {sentence.rstrip('.')}"
        return _complain(f"{told}; {failure['advice']}{more}", FAILED)
    return DONE


def _add_search(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    search = commands.add_parser(
        "search",
        help="the pictures of a collection that show something",
        description="The pictures of a collection nearest to some words (for an embedder with a "
        "text tower, such as clip-vit-b32) or to another picture, each with its cluster.",
    )
    search.add_argument("text", metavar="TEXT", nargs="?", help="words, such as 'a red bicycle'")
    search.add_argument("--collection", metavar="NAME", help="where to search: its name, or "
                        "its folder's (default: the only one there is)")  # fmt: skip
    search.add_argument("--image", metavar="FILE", help="a picture to search for instead of words")
    search.add_argument("--top", type=int, default=10, metavar="K", help="how many (default: 10)")
    search.add_argument("--home", metavar="DIR", help="the state folder")
    search.add_argument("--json", action="store_true", help="print the answers as a JSON list")
    search.set_defaults(run_command=_search)


def _search(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from local.home import find_home
    from local.search import search_collection, table

    hits = search_collection(
        options.collection,
        home=find_home(options.home),
        text=options.text,
        image=Path(options.image) if options.image else None,
        top=options.top,
    )
    print(json.dumps([asdict(hit) for hit in hits], indent=2) if options.json else table(hits))
    return DONE


def _add_score(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    score = commands.add_parser(
        "score",
        help="a result against labels that you have",
        description="Normalized mutual information, adjusted Rand index and purity of a result "
        "against a CSV with a column 'path' or 'file' and a column 'label'.",
    )
    score.add_argument("results", metavar="RESULTS", help="the results folder of a run")
    score.add_argument("labels", metavar="LABELS.csv", help="which label each file has")
    score.add_argument("--json", action="store_true", help="print JSON")
    score.set_defaults(run_command=_score)


def _score(options: argparse.Namespace) -> int:
    from local.score import score_run

    score = score_run(Path(options.results), Path(options.labels))
    if options.json:
        print(json.dumps(score.to_json()))
        return DONE
    print(
        f"NMI {score.nmi:.3f}, ARI {score.ari:.3f}, purity {score.purity:.3f}: {score.files} files "
        f"of {score.classes} labels in {score.clusters} clusters; left out {score.outliers} "
        f"outliers, {score.unlabelled} without a label"
    )
    return DONE


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser(
        "compare",
        help="which embedder and preprocessing group a folder best",
        description="Embed and cluster a folder with every combination of embedder, preprocessing "
        "and resolution, and rank the results. Vectors are kept: a run of the best one reuses "
        "them.",
    )
    compare.add_argument("photos", metavar="PHOTOS", help="the folder")
    compare.add_argument(
        "--embedders",
        metavar="A,B",
        type=_names,
        default=("auto",),
        help="see 'imageclust models list'",
    )
    compare.add_argument(
        "--preprocess",
        dest="preprocessings",
        metavar="X,Y",
        type=_names,
        default=("default",),
        help="center_crop, resize, letterbox, …",
    )
    compare.add_argument(
        "--resolutions",
        metavar="N,M",
        type=_numbers,
        default=(),
        help="bring pictures to so many pixels on the short side first",
    )
    compare.add_argument(
        "--include",
        metavar="FILE",
        action="append",
        default=[],
        help="keep this file in the sample; may be given again",
    )
    compare.add_argument(
        "--pairs", metavar="CSV", help="columns first, second, rule (must-link or cannot-link)"
    )
    _add_clustering(compare)
    compare.add_argument(
        "--out", metavar="DIR", help="where the tables go (default: NAME-compare, here)"
    )
    compare.add_argument("--home", metavar="DIR", help="the state folder")
    compare.add_argument("--json", action="store_true", help="print compare.json and nothing else")
    compare.set_defaults(run_command=_compare)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    import argparse

    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"give whole numbers separated by commas, not {text!r}"
        ) from None


def _compare(options: argparse.Namespace) -> int:
    from local.compare import Comparison, compare_folder, table
    from local.home import find_home

    comparison = Comparison(
        embedders=options.embedders,
        preprocessings=options.preprocessings,
        resolutions=options.resolutions,
        config=_given(options),
        include=tuple(options.include),
        pairs=Path(options.pairs) if options.pairs else None,
    )
    told = compare_folder(
        Path(options.photos),
        comparison,
        home=find_home(options.home),
        out=Path(options.out) if options.out else None,
        quiet=options.json,
    )
    print(json.dumps(told, indent=2) if options.json else table(told))
    return DONE


def _add_estimate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    estimate = commands.add_parser(
        "estimate",
        help="what a run would cost on AWS, stage by stage",
        description="What a run of a folder, or of so many images, would cost on AWS. Nothing is "
        "read but the list of files. Vectors that the state folder holds are taken off.",
    )
    estimate.add_argument("photos", metavar="PHOTOS", nargs="?", help="the folder")
    estimate.add_argument("--images", type=int, metavar="N", help="so many distinct images")
    _add_config(estimate)
    estimate.add_argument("--region", default="us-east-1", metavar="NAME", help="AWS region")
    estimate.add_argument(
        "--prices", metavar="FILE", help='your own figures, {"rekognition_image": 0.0008}'
    )
    estimate.add_argument(
        "--from-scratch", action="store_true", help="as if nothing were stored already"
    )
    estimate.add_argument("--home", metavar="DIR", help="the state folder")
    estimate.add_argument("--json", action="store_true", help="print JSON and nothing else")
    estimate.set_defaults(run_command=_estimate)


def _estimate(options: argparse.Namespace) -> int:
    from local import estimate
    from local.home import find_home

    found = estimate.estimate_folder(
        Path(options.photos) if options.photos else None,
        images=options.images,
        config=_given(options),
        home=find_home(options.home),
        place=estimate.place_on_aws(
            options.region, Path(options.prices) if options.prices else None
        ),
        stored=not options.from_scratch,
    )
    print(json.dumps(found.to_json(), indent=2) if options.json else estimate.told(found))
    return DONE


def _port(text: str) -> int:
    from argparse import ArgumentTypeError

    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="answer the API and watch uploads/ in the state folder",
        description="Serve the API on this machine. A file dropped into uploads/COLLECTION/ of "
        "the state folder starts a run after a quiet period.",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=_port, default=8080, help="port to listen on")
    serve.add_argument("--home", metavar="DIR", help="the state folder")
    serve.set_defaults(run_command=_serve)


def _serve(options: argparse.Namespace) -> int:
    from local.home import find_home, open_services
    from local.serve import serve

    home = find_home(options.home)
    host = f"[{options.host}]" if ":" in options.host else options.host
    services = open_services(home, base_url=f"http://{host}:{options.port}")
    serve(services, home=home, host=options.host, port=options.port)
    return DONE


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    models = commands.add_parser("models", help="list, add or pull models")
    models.set_defaults(run_command=lambda _: _usage(models))
    actions = models.add_subparsers(title="actions", metavar="ACTION")
    listing = actions.add_parser("list", help="the models at hand")
    listing.set_defaults(run_command=_models_list)
    add = actions.add_parser("add", help="install a model from its card or its .onnx file")
    add.add_argument("file", metavar="FILE", help="NAME.json, or NAME.onnx beside it")
    add.set_defaults(run_command=_models_add)
    fetch = actions.add_parser(
        "pull",
        help="fetch a known model from its publisher",
        description="Fetch a known model from its publisher and check its digest. A download that "
        "broke off goes on where it stopped.",
    )
    fetch.add_argument("name", metavar="NAME", help="see 'imageclust models list'")
    fetch.set_defaults(run_command=_models_pull)
    for action in (listing, add, fetch):
        action.add_argument("--home", metavar="DIR", help="the state folder")


def _models_list(options: argparse.Namespace) -> int:
    from local.models import list_models

    return list_models(options)


def _models_add(options: argparse.Namespace) -> int:
    from local.models import add_model

    return add_model(options)


def _models_pull(options: argparse.Namespace) -> int:
    from local.models import pull_model

    return pull_model(options)


if __name__ == "__main__":
    sys.exit(main())
