"""What is started: an application object behind a server, a console script, a module or a script."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from castoff_freeze.errors import EntryError

Kind = Literal["app", "console", "module", "script"]

_MODULE = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_OBJECT = re.compile(rf"({_MODULE}):({_MODULE})(\(\))?")
_SERVERS: dict[str, tuple[str, ...]] = {
    "uvicorn": ("{app}", "--host", "{host}", "--port", "{port}"),
    "hypercorn": ("{app}", "--bind", "{host}:{port}"),
    "gunicorn": ("{app}", "--bind", "{host}:{port}"),
    "waitress": ("--host={host}", "--port={port}", "{app}"),
}
"""The servers that an application object can be given to, and their arguments."""

_FORMS = "module:object for ASGI or WSGI, -m MODULE, a script's path, or a console script's name"
_START = """#!{python}
# Written by castoff-freeze.
import os
import sys

sys.path[:1] = [path for path in {paths} if path not in sys.path[1:]]
"""
_SERVE = """host = os.environ.get("HOST") or "0.0.0.0"
port = os.environ.get("PORT") or "8000"
sys.argv[1:1] = [word.format(app={app!r}, host=host, port=port) for word in {arguments!r}]
"""
_AS_MODULE = """import runpy

sys.argv[0] = {origin!r}  # as if the source were there
runpy._run_module_as_main({module!r}, alter_argv=False)
"""
_AS_SCRIPT = """import runpy

sys.argv[0] = {origin!r}  # as if the source were there
runpy.run_path({script!r}, run_name="__main__")
"""
_AS_FUNCTION = """from {module} import {top}

sys.argv[0] = {name!r}
sys.exit({function}())
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is started.

    Attributes:
        kind: how `target` is to be read.
        target: ``module:object`` of an app or a console script, a module's name, or a script's absolute path.
        server: the module that serves an app; "" for other kinds.
        name: what the process calls itself.
        arguments: always given, before those of the command line.
        origin: source that is started, which programs find as ``sys.argv[0]``.
    """

    kind: Kind
    target: str
    server: str = ""
    name: str = ""
    arguments: tuple[str, ...] = ()
    origin: str = ""

    @property
    def module(self) -> str:
        """Return the module that the application begins with; "" for a script."""
        return "" if self.kind == "script" else self.target.partition(":")[0]

    @property
    def script(self) -> str:
        """Return the path of a script; "" for other kinds."""
        return self.target if self.kind == "script" else ""

    def seeds(self) -> tuple[str, ...]:
        """Return the modules that are started by name."""
        names = (self.module, f"{self.module}.__main__" if self.kind == "module" else "", self.server)
        return tuple(name for name in (*names, f"{self.server}.__main__" if self.server else "") if name)

    def with_script(self, path: str) -> Entry:
        """Return the entry with its script at another path."""
        return replace(self, target=path)


def parse_entry(text: str, *, module: str = "", server: str = "", arguments: Sequence[str] = ()) -> Entry:
    """Read an entry: ``module:object``, a path of a script, or the name of a console script.

    A console script still lacks its target; `freeze` finds it among the installed entry points.

    Raises:
        EntryError: it is none of these.
    """
    more = tuple(arguments)
    if bool(text) == bool(module):
        raise EntryError(
            "name exactly one entry",
            hint=_FORMS,
        )
    if module:
        if not re.fullmatch(_MODULE, module):
            raise EntryError(f"{module!r} is not the name of a module")
        return Entry("module", module, name=module.partition(".")[0], arguments=more)
    if _OBJECT.fullmatch(text):
        if server and server not in _SERVERS:
            raise EntryError(f"{server!r} is not a server that is known here", hint=f"there are {', '.join(_SERVERS)}")
        return Entry("app", text, server=server, name=text.partition(":")[0].partition(".")[0], arguments=more)
    if text.endswith(".py") or "/" in text:
        path = os.path.abspath(text)
        if not os.path.isfile(path):
            raise EntryError(f"there is no script {text}")
        return Entry("script", path, name=os.path.basename(path).removesuffix(".py"), arguments=more, origin=path)
    if not re.fullmatch(r"[\w.-]+", text):
        raise EntryError(
            f"{text!r} is not an entry",
            hint=_FORMS,
        )
    return Entry("console", "", name=text, arguments=more)


def server_names() -> tuple[str, ...]:
    """Return the servers that an application object can be given to."""
    return tuple(_SERVERS)


def launcher(entry: Entry, python: str, paths: Sequence[str]) -> str:
    """Return the text of the executable script that starts an entry.

    An app listens on the variables HOST (default 0.0.0.0) and PORT (default 8000).

    Args:
        entry: what to start.
        python: absolute path of the interpreter.
        paths: goes before the standard library, in the place of the script's own folder.
    """
    text = _START.format(python=python, paths=list(paths))
    if entry.kind == "app":
        text += _SERVE.format(app=entry.target, arguments=[*_SERVERS[entry.server], *_quoted(entry.arguments)])
        return text + _AS_MODULE.format(module=entry.server, origin=entry.origin)
    if entry.arguments:
        text += f"sys.argv[1:1] = {list(entry.arguments)!r}\n"
    if entry.kind == "module":
        return text + _AS_MODULE.format(module=entry.target, origin=entry.origin)
    if entry.kind == "script":
        return text + _AS_SCRIPT.format(script=entry.target, origin=entry.origin)
    module, _, function = entry.target.partition(":")
    top = function.partition(".")[0]
    return text + _AS_FUNCTION.format(module=module, top=top, name=entry.name, function=function)


def _quoted(arguments: Sequence[str]) -> list[str]:
    return [word.replace("{", "{{").replace("}", "}}") for word in arguments]
