"""From the arguments of `castoff build` to a `BuildRequest`."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.cli import values
from castoff.cli.errors import read_host_file
from castoff.cli.registry_options import overrides
from castoff.cli.root import store_root
from castoff.cli.session import source_epoch
from castoff.errors import ContextError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from castoff.buildcache.spec import CacheSource, CacheTarget
    from castoff.export.parse import Annotation, OutputSpec
    from castoff.layer.tarreader import Readable
    from castoff.request import BuildRequest, SecretSource, SshSource

_MAX_DOCKERFILE = 16 << 20
_TAR_MAGIC_AT = 257
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")
_REMOTE = ("http://", "https://", "git://", "git@", "github.com/", "ssh://")
_SCP = re.compile(r"[A-Za-z0-9_-]+@[A-Za-z0-9.-]+:.+")
_NETWORKS = ("default", "host", "none")
_HOST = "127.0.0.1"
"""Where a step finds the machine that builds, whose network it has."""
_ENTITLEMENTS = ("network.host", "security.insecure")


@dataclass(frozen=True, slots=True)
class DockerfileSource:
    """Where the Dockerfile is.

    Attributes:
        path: host path of the file; "" where `data` holds it.
        data: what came on standard input; None for a file.
        context: folder of the build context, or the URL to fetch it from; "" for none.
        stream: the archive on standard input that is the context; None for none.
        fetched: takes the Dockerfile of a context that has to be fetched or unpacked.
    """

    path: str
    data: bytes | None = field(repr=False)
    context: str
    stream: Readable | None = field(default=None, repr=False)
    fetched: list[bytes] = field(default_factory=list, repr=False)

    def read(self, name: str) -> bytes | None:
        """Return the text of the source that messages call `name`, for an excerpt; None where it can't be had."""
        if self.fetched:
            return self.fetched[-1]
        if self.data is not None:
            return self.data
        if os.path.basename(name) == os.path.basename(self.path):
            return read_host_file(self.path)
        return read_host_file(name)


def is_remote(context: str) -> bool:
    """Say whether a build context has to be fetched."""
    return context.startswith(_REMOTE) or (_SCP.match(context) is not None and not os.path.exists(context))


def find_dockerfile(context: str, file: str, *, fetch: bool = False) -> DockerfileSource:
    """Return where the Dockerfile is; one on standard input is read.

    Args:
        context: the argument of the command line.
        file: the value of ``-f``.
        fetch: whether the context may be a URL, a git repository, or an archive on standard input.

    Raises:
        UsageError: the context, or the two together, make no sense.
        ContextError: the folder or the file is not there.
    """
    if is_remote(context):
        if not fetch:
            raise UsageError(
                f"{context} is a remote context, which only castoff build fetches",
                hint="clone or download it, and name the folder",
            )
        return DockerfileSource("" if file == "-" else file, _read_stdin() if file == "-" else None, context)
    if context == "-":
        return _on_stdin(file, fetch=fetch)
    if not os.path.isdir(context):
        if os.path.exists(context):
            raise ContextError(
                f"the build context {context!r} is not a folder", hint="give a Dockerfile with -f, and its folder"
            )
        raise ContextError(f"there is no folder {context!r} to be the build context")
    if file == "-":
        return DockerfileSource("", _read_stdin(), context)
    path = file or os.path.join(context, "Dockerfile")
    if not os.path.exists(path):
        hint = None if file else "name it with -f"
        if file and not os.path.isabs(file) and os.path.exists(os.path.join(context, file)):
            hint = f"-f counts from the current folder: did you mean {os.path.join(context, file)}?"
        raise ContextError(f"there is no Dockerfile at {path}", hint=hint)
    return DockerfileSource(path, None, context)


def _on_stdin(file: str, *, fetch: bool) -> DockerfileSource:
    """Return what is on standard input: an archive that is the context, or a lone Dockerfile."""
    from castoff.context.archive import Peeked

    stream = Peeked(_stdin())
    if fetch and file != "-" and stream.is_archive:
        return DockerfileSource(file, None, "", stream)
    if file not in ("", "-"):
        raise UsageError("-f needs a folder as the context; with - the Dockerfile itself is on standard input")
    return DockerfileSource("", _read_stdin(stream), "")


def _stdin() -> Readable:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("standard input is a terminal, and a Dockerfile is to come from it", hint="redirect it")
    return sys.stdin.buffer


def _read_stdin(stream: Readable | None = None) -> bytes:
    """Return the Dockerfile on standard input, of which `stream` may hold the beginning."""
    stream = stream or _stdin()
    data = bytearray()
    while len(data) <= _MAX_DOCKERFILE and (block := stream.read(_MAX_DOCKERFILE + 1 - len(data))):
        data += block
    if data.startswith(_COMPRESSED) or data[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        raise UsageError(
            "an archive came on standard input, where castoff reads a Dockerfile",
            hint="give it as the context: castoff build -f FILE-IN-IT - <ARCHIVE",
        )
    if len(data) > _MAX_DOCKERFILE:
        raise ContextError(f"the Dockerfile on standard input has more than {_MAX_DOCKERFILE >> 20} MiB")
    return bytes(data)


def make_request(args: Namespace, environ: Mapping[str, str], source: DockerfileSource) -> BuildRequest:
    """Return what the arguments ask for.

    Raises:
        UsageError: a value is not well formed.
        InvalidReferenceError: a tag or a platform is not.
    """
    from castoff.oci.platform import Platform
    from castoff.oci.reference import Reference
    from castoff.request import BuildRequest

    if args.cgroup_parent:
        raise UsageError(
            "--cgroup-parent can't be done: steps run in the cgroup of castoff itself",
            hint="start castoff in the cgroup that is to hold them, such as with systemd-run --scope -p MemoryMax=2G",
        )
    if args.network not in _NETWORKS:
        raise UsageError(f"--network has no mode {args.network!r}", hint=f"there are {', '.join(_NETWORKS)}")
    for allowed in args.allow:
        if allowed not in _ENTITLEMENTS:
            raise UsageError(f"--allow knows nothing called {allowed!r}", hint=f"there are {', '.join(_ENTITLEMENTS)}")
    platforms = values.split_commas(args.platform)
    for platform in platforms:
        Platform.parse(platform)
    for tag in args.tag:
        if Reference.parse(tag).digest is not None:
            raise UsageError(f"-t {tag}: a new image can't be named by a digest", hint="give it a tag")
    outputs = _outputs(args)
    cache_from, cache_to = _caches(args)
    build_args = tuple(values.optional_pair(text, "--build-arg") for text in args.build_arg)
    return BuildRequest(
        store=store_root(args.root, environ),
        context=source.context,
        dockerfile=source.path,
        dockerfile_data=source.data,
        tags=tuple(args.tag),
        target=args.target,
        build_args=build_args,
        build_contexts=tuple(values.pair(text, "--build-context") for text in args.build_context),
        labels=tuple(_label(text) for text in args.label),
        annotations=_annotations(args.annotation),
        secrets=tuple(secret_source(text, environ) for text in args.secret),
        ssh=tuple(ssh_source(text, environ) for text in args.ssh),
        no_cache=args.no_cache,
        no_cache_filter=values.split_commas(args.no_cache_filter),
        platforms=platforms,
        outputs=outputs,
        pull=args.pull or "missing",
        registries=overrides(args),
        cache_from=cache_from,
        cache_to=cache_to,
        network=args.network,
        allow=tuple(args.allow),
        add_hosts=tuple(values.host_entry(text, _HOST) for text in args.add_host),
        ulimits=tuple(values.ulimit(text) for text in args.ulimit),
        shm_size=values.byte_size(args.shm_size, "--shm-size") if args.shm_size else 0,
        epoch=_epoch(build_args, environ),
        reproducible=args.reproducible,
        environment=tuple(environ.items()),
        context_stream=source.stream,
        on_dockerfile=source.fetched.append,
        stdout=sys.stdout.buffer if any(output.dest == "-" for output in outputs) else None,
    )


def _caches(args: Namespace) -> tuple[tuple[CacheSource, ...], tuple[CacheTarget, ...]]:
    if not args.cache_from and not args.cache_to:
        return (), ()
    from castoff.buildcache.spec import parse_cache_from, parse_cache_to

    sources = tuple(parse_cache_from(text) for text in args.cache_from)
    return sources, tuple(parse_cache_to(text, values.byte_size) for text in args.cache_to)


def _label(text: str) -> tuple[str, str]:
    key, value = values.optional_pair(text, "--label")
    return key, value or ""


def _annotations(texts: list[str]) -> tuple[Annotation, ...]:
    if not texts:
        return ()
    from castoff.export.parse import parse_annotations

    return tuple(item for text in texts for item in parse_annotations(text))


def _outputs(args: Namespace) -> tuple[OutputSpec, ...]:
    texts = [*args.output, *(["type=registry"] if args.push else [])]
    if not texts:
        return ()
    from castoff.export.parse import parse_output

    outputs = tuple(dict.fromkeys(parse_output(text) for text in texts))
    if sys.stdout.isatty() and any(output.dest == "-" for output in outputs):
        raise UsageError("an image is not written to a terminal", hint="redirect standard output, or give dest=FILE")
    return outputs


def _epoch(build_args: tuple[tuple[str, str | None], ...], environ: Mapping[str, str]) -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds, of the build arguments or else of the environment; None where neither is.

    As a build argument it may also be ``context`` or the name of a stage, which only the Dockerfile can tell.
    """
    name = "SOURCE_DATE_EPOCH"
    given = [value for key, value in build_args if key == name and value is not None]
    if given and not given[-1].isdigit():
        return None
    return source_epoch(given[-1] if given else environ.get(name, ""))


def ssh_source(text: str, environ: Mapping[str, str]) -> SshSource:
    """Return the source of an ssh agent: ``default``, or ``ID=SOCKET`` or ``ID=KEY[,KEY…]``.

    With an id alone it is the agent that SSH_AUTH_SOCK names.

    Raises:
        UsageError: it is not well formed, or the socket or a key is not there.
    """
    from castoff.request import SshSource

    name, mark, value = text.partition("=")
    if not name:
        raise UsageError(f"--ssh {text!r} has no id", hint="write --ssh default, or --ssh ID=SOCKET")
    paths = tuple(path for path in value.split(",") if path)
    if mark and not paths:
        raise UsageError(f"--ssh {text!r} names neither a socket nor a key")
    if not paths:
        agent = environ.get("SSH_AUTH_SOCK", "")
        if not agent:
            raise UsageError(
                f"--ssh {name}: SSH_AUTH_SOCK names no agent",
                hint="start one (ssh-agent), or give a key: --ssh ID=FILE",
            )
        paths = (agent,)
    for path in paths:
        if not os.path.exists(path):
            raise UsageError(f"--ssh {name}: there is nothing at {path}")
        if os.path.isdir(path):
            raise UsageError(f"--ssh {name}: {path} is a folder", hint="give the socket of an agent, or key files")
    return SshSource(name, tuple(map(os.path.abspath, paths)))


def secret_source(text: str, environ: Mapping[str, str]) -> SecretSource:
    """Return the source of a secret: ``id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]``.

    With an id alone it is the environment variable of that name, else the file of that name, as in Docker.

    Raises:
        UsageError: it is not well formed, or the variable or file is not there.
    """
    from castoff.request import SecretSource

    fields = values.csv_fields(text, "--secret")
    name, kind = fields.pop("id", ""), fields.pop("type", "")
    path = fields.pop("src", "") or fields.pop("source", "")
    variable = fields.pop("env", "")
    if fields:
        key = next(iter(fields))
        raise UsageError(f"--secret {text!r} has the unknown key {key!r}", hint="there are id, src, env and type")
    if kind not in ("", "file", "env"):
        raise UsageError(f"--secret {text!r} has the unknown type {kind!r}", hint="a secret is of type file or env")
    if kind == "env" and path:
        path, variable = "", variable or path
    name = name or os.path.basename(path) or variable
    if not name:
        raise UsageError(f"--secret {text!r} has no id")
    if not path and not variable:
        path, variable = ("", name) if kind == "env" or (not kind and name in environ) else (name, "")
    if path and variable:
        raise UsageError(f"--secret {text!r} names both a file and a variable")
    if variable:
        if variable not in environ:
            raise UsageError(f"--secret {name}: the environment has no variable {variable}")
        return SecretSource(name, value=os.fsencode(environ[variable]))
    if not os.path.isfile(path):
        raise UsageError(f"--secret {name}: there is no file {path}")
    return SecretSource(name, path=os.path.abspath(path))
