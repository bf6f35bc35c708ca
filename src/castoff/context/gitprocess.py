"""Runs the system's git: without the caller's configuration, hooks, credential helpers and prompts."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shlex
import signal
import subprocess
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.context.gitsource import hide_password
from castoff.errors import ContextError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from castoff.context.gitsource import GitSource

_PASSED_ON = ("PATH", "HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK", "TMPDIR")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_SETTINGS = (
    ("core.hooksPath", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.symlinks", "true"),
    ("core.pager", "cat"),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("gc.auto", "0"),
    ("init.defaultBranch", "main"),
    ("pack.threads", "1"),
    ("protocol.version", "2"),
    ("safe.directory", "*"),
    ("advice.detachedHead", "false"),
    # A transfer that goes on is never ended, one that gives a byte a second for a minute is.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
)
_PROTOCOLS = "http:https:git:ssh"
_UNREACHABLE = re.compile(
    r"could not resolve|couldn't resolve|connection refused|timed? ?out|unreachable|couldn't connect|failed to connect"
    r"|connection reset|no route to host|temporary failure",
    re.IGNORECASE,
)
_POLL = 0.5
_TAIL = 2000


@dataclass(frozen=True, slots=True)
class GitSettings:
    """What of the caller git is told.

    Attributes:
        environment: the caller's environment; only what is needed of it is passed on.
        headers: gives the value of the Authorization header for a host; "" for none.
    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Callable[[str], str] = lambda _host: ""


class Git:
    """Runs git for sources. Safe for several threads."""

    def __init__(self, settings: GitSettings) -> None:
        self._settings = settings

    def attempt(self, source: GitSource, *arguments: str) -> str | None:
        """Run git and return its output; None where it fails."""
        code, out, _err = self._run(source, arguments, {}, None)
        return None if code else out

    def run(
        self, source: GitSource, *arguments: str, extra: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> str:
        """Run git and return its output.

        Raises:
            ContextError: it fails.
        """
        code, out, err = self._run(source, arguments, extra or {}, cwd)
        if not code:
            return out
        text = " ".join(hide_password(err[-_TAIL:]).split()) or f"git ended with {code}"
        message = f"git can't fetch {source.shown}: {text}"
        if _UNREACHABLE.search(err):
            raise UnreachableError(message, hint="is the server up, and does this machine reach it?")
        hint = None
        if "terminal prompts disabled" in err or "Authentication failed" in err or "could not read" in err:
            hint = f"give the secret GIT_AUTH_TOKEN or GIT_AUTH_TOKEN.{source.host}"
        elif "Permission denied (publickey" in err:
            hint = "give an agent that holds the key: --ssh default"
        raise ContextError(message, hint=hint)

    def _run(
        self, source: GitSource, arguments: tuple[str, ...], extra: Mapping[str, str], cwd: str | None
    ) -> tuple[int, str, str]:
        environment = {**self._environment(source), **extra}
        try:
            process = subprocess.Popen(
                ["git", *arguments],
                env=environment,
                cwd=cwd or "/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                umask=0o022,
            )
        except FileNotFoundError as error:
            raise UnsupportedError(
                f"{source.shown} is a git repository, and this machine has no git",
                feature="git",
                hint="install the package git",
            ) from error
        with process:
            try:
                while True:
                    # Not without end: an interruption of this thread is seen between two waits only.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        out, err = process.communicate(timeout=_POLL)
                        break
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "replace")

    def _environment(self, source: GitSource) -> dict[str, str]:
        """Return the whole environment of git; secrets are in it, and not in its arguments."""
        given = self._settings.environment
        environment = {name: given[name] for name in (*_PASSED_ON, *_PROXIES) if given.get(name)}
        environment.setdefault("PATH", os.defpath)
        environment |= {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_SSH_COMMAND": _ssh(environment.get("HOME", "")),
            "LC_ALL": "C",
        }
        settings = [*_SETTINGS]
        parts = urllib.parse.urlsplit(source.remote) if "://" in source.remote else None
        if parts is not None and parts.scheme in ("http", "https"):
            header = self._settings.headers(parts.netloc.rpartition("@")[2])
            if not header and "@" in parts.netloc:
                user = urllib.parse.unquote_to_bytes(parts.netloc.rpartition("@")[0])
                header = f"Basic {base64.b64encode(user).decode('ascii')}"
            if header:
                host = parts.netloc.rpartition("@")[2]
                settings.append((f"http.{parts.scheme}://{host}/.extraHeader", f"Authorization: {header}"))
        environment["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (key, value) in enumerate(settings):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        return environment


class UnreachableError(ContextError):
    """The remote can't be reached."""


def _ssh(home: str) -> str:
    """Return the command for ssh; in a user namespace it would look for the files of root's home."""
    words = ["ssh", "-o", "BatchMode=yes", "-o", "ForwardAgent=no", "-o", "ClearAllForwardings=yes"]
    words += ["-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15"]
    if home:
        words += ["-o", f"UserKnownHostsFile={home}/.ssh/known_hosts"]
        if os.path.isfile(f"{home}/.ssh/config"):
            words += ["-F", f"{home}/.ssh/config"]
    return shlex.join(words)


def plain_remote(source: GitSource) -> str:
    """Return the remote as git is given it: an http URL without user and password, which go into a header."""
    if not source.remote.lower().startswith(("http://", "https://")):
        return source.remote
    parts = urllib.parse.urlsplit(source.remote)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
