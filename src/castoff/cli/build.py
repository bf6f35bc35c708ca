"""castoff build: builds a Dockerfile, shows how, and says what came of it."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import SUPPRESS
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.cli.errors import report
from castoff.cli.explain import FORMS as EXPLAIN_FORMS
from castoff.cli.explain import ExplanationPrinter
from castoff.cli.registry_options import add_registry_arguments
from castoff.cli.session import chosen_mode, enter_namespace, show_progress
from castoff.errors import CastoffError, ExportError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.builder import BuildResult
    from castoff.cli.build_request import DockerfileSource
    from castoff.cli.parser import Parser
    from castoff.request import BuildRequest
    from castoff.sandbox.userns import Tier


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff build`, which are those of `docker buildx build`."""
    parser.add_argument("context", metavar="PATH", help="folder, URL or git repository of the context, or - for stdin")
    parser.many("--add-host", metavar="HOST:IP", text="add a line to the steps' /etc/hosts")
    parser.many("--allow", metavar="NAME", text="allow security.insecure, for RUN --security=insecure")
    parser.many("--annotation", metavar="[LEVEL:]KEY=VALUE", text="annotate the manifest, or what the levels name")
    parser.many("--build-arg", metavar="KEY=VALUE", text="set an ARG (KEY alone takes it from the environment)")
    parser.many("--cache-from", metavar="SPEC", text="take a cache: type=local,src=DIR or type=registry,ref=REF")
    parser.many("--cache-to", metavar="SPEC", text="leave a cache: type=local,dest=DIR|registry,ref=REF|inline,...")
    parser.many(
        "--build-context", metavar="NAME=VALUE", text="name a folder, URL, docker-image://REF or oci-layout://DIR"
    )
    parser.one("--call", metavar="METHOD", text="build, check, outline or targets, with ,format=json for JSON")
    parser.flag("--check", text="check the Dockerfile and build nothing: --call=check")
    parser.one("--cgroup-parent", metavar="CGROUP", text=SUPPRESS)
    parser.form("--explain", *EXPLAIN_FORMS, text="tell why each step ran; --explain=json as JSON on standard output")
    parser.one("-f", "--file", metavar="FILE", text="the Dockerfile (default: PATH/Dockerfile; - for stdin)")
    parser.one("--iidfile", metavar="FILE", text="write the image id to a file")
    parser.many("--label", metavar="KEY=VALUE", text="set a label of the image")
    parser.flag("--load", text="keep the image in the store (it always is)")
    parser.one("--metadata-file", metavar="FILE", text="write digests and names of the result to a JSON file")
    parser.one("--network", metavar="MODE", text="network of RUN steps: default, host or none", default="default")
    parser.flag("--no-cache", text="run every step anew")
    parser.many("--no-cache-filter", metavar="STAGE", text="run the steps of these stages anew")
    parser.many(
        "-o", "--output", metavar="SPEC", text="also write the result: type=oci|docker|local|tar,dest=PATH or registry"
    )
    parser.many("--platform", metavar="PLATFORM", text="platform to build for, such as linux/amd64")
    parser.one("--progress", metavar="MODE", text="auto, tty, plain, rawjson or quiet", default="auto")
    parser.form(
        "--pull", "always", "missing", "never", text="ask registries for newer bases; =missing (default), =never"
    )
    parser.flag("--push", text="push the image to where its references say: -o type=registry")
    parser.flag("-q", "--quiet", text="print nothing but the image id")
    parser.flag("--reproducible", text="make equal images of equal input; =false keeps times", default=True)
    parser.many("--secret", metavar="SPEC", text="give a secret: id=NAME,src=FILE or id=NAME,env=VARIABLE")
    add_registry_arguments(parser)
    parser.one("--shm-size", metavar="SIZE", text="size of the steps' /dev/shm, such as 64m")
    parser.many("--ssh", metavar="ID[=PATHS]", text="give an ssh agent: default, ID=SOCKET or ID=KEY[,KEY...]")
    parser.many("-t", "--tag", metavar="REF", text="give the image a reference")
    parser.one("--target", metavar="STAGE", text="build this stage")
    parser.many("--ulimit", metavar="NAME=SOFT[:HARD]", text="set a resource limit of the steps")


def run(args: Namespace) -> int:
    """Build, and return the exit code."""
    started = time.time()
    mode = chosen_mode(args)

    from castoff.cli.build_request import find_dockerfile, make_request

    source = find_dockerfile(args.context, args.file, fetch=True)
    request = make_request(args, os.environ, source)
    if args.call or args.check:
        code = _called(args, request, source)
        if code is not None:
            return code
    explaining = _explaining(args.explain, mode, request)

    from castoff.builder import build

    refusal: UnsupportedError | None = None
    tier: Tier | None = None
    try:
        tier = enter_namespace(os.environ)
    except UnsupportedError as error:
        refusal = error  # A build without RUN needs no namespace.
    try:
        with show_progress(mode, started) as observer:
            result = build(request, observer, refusal, explaining.sink, tier)
    except CastoffError as error:
        explaining.print_()
        return report(error, sys.stderr, os.environ, source.read)
    writes = []
    if args.iidfile:
        writes.append((args.iidfile, str(result.image_id)))
    if args.metadata_file:
        writes.append((args.metadata_file, metadata(result)))
    for path, text in writes:
        write_file(path, text)

    from castoff.cli.noop import write_record

    if request.dockerfile_data is not None or request.context_stream is not None:
        # The next run's standard input may be another, and the fast path does not read it.
        result = replace(result, inputs=None)
    shown = "quiet" if args.quiet else args.progress
    repeated = explaining.repeated(result.inputs) if result.inputs is not None else ("", "")
    write_record(args.command_line, request, result, observer.state, (shown, writes), repeated)
    explaining.print_()
    if mode == "quiet" and all(output.dest != "-" for output in request.outputs):
        sys.stdout.write(f"{result.image_id}\n")
    if os.environ.get("CASTOFF_KEEP_STORAGE"):
        from castoff.cli.prune import keep_limit

        keep_limit(args, os.environ)
    return 0


def _called(args: Namespace, request: BuildRequest, source: DockerfileSource) -> int | None:
    """Do what ``--call`` and ``--check`` ask for, and return the exit code; None where that is to build.

    Raises:
        UsageError: they can't be read, or say different things.
    """
    from castoff.cli.call import Call, answer

    call = Call.parse(args.call or "check")
    if args.check and call.method != "check":
        raise UsageError(f"--check and --call={args.call} ask for different things")
    if call.method == "build":
        return None
    try:
        from castoff.fetching import fetched_dockerfile

        with fetched_dockerfile(request) as local:
            return answer(call, local)
    except CastoffError as error:
        return report(error, sys.stderr, os.environ, source.read)


def _explaining(form: str, mode: str, request: BuildRequest) -> ExplanationPrinter:
    """Return what prints the explanation.

    Raises:
        UsageError: something else is to go to standard output too.
    """
    if form == "json":
        if mode == "quiet":
            raise UsageError("--explain=json and the image id would both go to standard output", hint="use --iidfile")
        if any(output.dest == "-" for output in request.outputs):
            raise UsageError("--explain=json and the image would both go to standard output", hint="give dest=FILE")
    return ExplanationPrinter(form)


def metadata(result: BuildResult) -> str:
    """Return the JSON of ``--metadata-file``, with buildx' keys."""
    value: dict[str, object] = {
        "containerimage.descriptor": result.manifest.to_json(),
        "containerimage.digest": str(result.manifest.digest),
    }
    if result.image_id != result.manifest.digest:  # else it is an index, which has no config
        value = {"containerimage.config.digest": str(result.image_id), **value}
    if result.references:
        value["image.name"] = ",".join(str(reference) for reference in result.references)
    return json.dumps(value, indent=2) + "\n"


def write_file(path: str, text: str) -> None:
    """Write a small file whole or not at all.

    Raises:
        ExportError: it can't be written.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe, or /dev/stdout
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
            return
        with open(temporary, "x", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise ExportError(f"{path} can't be written: {(error.strerror or str(error)).lower()}") from error
