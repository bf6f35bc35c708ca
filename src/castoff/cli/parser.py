"""The tree of verbs and the conventions that their options share, which are those of Docker's command line.

Only the parser of the verb in use is made. An option may stand before or after the arguments (except for `run`, where
the image ends the options); a boolean option may be given a value (``--no-cache=false``); options are never
abbreviated; an unknown one is answered with the nearest that there is.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, cast

from castoff.errors import UsageError

VERBS: dict[str, tuple[str, str]] = {
    "build": ("build", "build an image from a Dockerfile"),
    "check": ("check", "check a Dockerfile without building it"),
    "lock": ("lock", "write down what the names in a Dockerfile stand for"),
    "run": ("run", "run a process in a new container from an image"),
    "ps": ("ps", "list containers"),
    "logs": ("logs", "show what a container has printed"),
    "exec": ("exec_", "run a further process in a running container"),
    "attach": ("attach", "join the terminal to a running container"),
    "stop": ("stop", "ask containers to end, and kill those that do not"),
    "start": ("start", "start containers that have ended"),
    "kill": ("kill", "send containers a signal"),
    "wait": ("wait", "wait for the end of containers"),
    "rm": ("rm", "remove containers with all their files"),
    "port": ("port", "show which ports of this machine lead to a container"),
    "volume ls": ("volume_ls", "list named volumes"),
    "volume rm": ("volume_rm", "remove named volumes with all that is in them"),
    "images": ("images", "list the images in the store"),
    "inspect": ("inspect", "show all that is known of an image, as JSON"),
    "history": ("history", "show the instructions that made an image"),
    "tag": ("tag", "give an image a further reference"),
    "rmi": ("rmi", "remove references, and images that have none left"),
    "pull": ("pull", "bring an image from a registry into the store"),
    "push": ("push", "push images to registries"),
    "login": ("login", "keep a user and a password for a registry"),
    "logout": ("logout", "forget the user and the password of a registry"),
    "prune": ("prune", "remove images without a name, the build cache, and what nothing needs"),
    "save": ("save", "write an image to an archive"),
    "load": ("load", "read images from an archive or an OCI layout"),
    "size": ("size", "show what an image and its layers weigh"),
    "audit": ("audit", "show what an image holds that a runtime image must not hold"),
    "freeze": ("freeze", "turn a Python service into a minimal runtime tree, in a builder stage"),
    "context ls": ("context_ls", "list what a build context holds, and what is left out, and why"),
    "base assemble": ("base_assemble", "make a base image from distribution packages"),
    "base lock": ("base_lock", "choose the packages of a base image, and write them beside its recipe"),
    "registry serve": ("registry_serve", "serve a registry from a folder"),
    "completion": ("completion", "print what completes castoff's words in a shell"),
    "manpage": ("manpage", "write the manual pages"),
    "doctor": ("doctor", "tell what this machine can do, and what to do about the rest"),
}
"""Every verb, the module of `castoff.cli` that does it, and its line of help."""

_ALIASES = {
    "buildx build": "build",
    "builder build": "build",
    "image build": "build",
    "image ls": "images",
    "image list": "images",
    "image inspect": "inspect",
    "image history": "history",
    "image tag": "tag",
    "image rm": "rmi",
    "system prune": "prune",
    "builder prune": "prune",
    "buildx prune": "prune",
    "image save": "save",
    "image load": "load",
    "image pull": "pull",
    "image push": "push",
    "container run": "run",
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    "container logs": "logs",
    "container exec": "exec",
    "container attach": "attach",
    "container stop": "stop",
    "container start": "start",
    "container kill": "kill",
    "container wait": "wait",
    "container rm": "rm",
    "container port": "port",
    "container inspect": "inspect",
}
_TRUE = ("true", "1", "t", "T", "TRUE", "True")
_FALSE = ("false", "0", "f", "F", "FALSE", "False")


class Verb(Protocol):
    """A module of `castoff.cli` that does one verb."""

    def add_arguments(self, parser: Parser) -> None:
        """Declare the verb's options and arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do what was asked and return the exit code."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError`, and whose boolean options take values."""

    def __init__(self, prog: str, description: str, *, help_names: tuple[str, ...] = ("-h", "--help")) -> None:
        super().__init__(
            prog=prog,
            description=description[:1].upper() + description[1:] + ".",
            allow_abbrev=False,
            add_help=False,
            formatter_class=_Formatter,
        )
        self.add_argument(*help_names, action="help", help="show this help and exit")

    def flag(self, *names: str, text: str = argparse.SUPPRESS, default: bool = False) -> None:
        """Declare a boolean option: ``--name``, ``--name=true``, ``--name=false``; one without a text is not listed."""
        dest = next(name for name in names if name.startswith("--"))[2:].replace("-", "_")
        self.add_argument(*names, dest=dest, action="store_true", default=default, help=text)
        for values, action in ((_TRUE, "store_true"), (_FALSE, "store_false")):
            spelled = [f"{name}={value}" for name in names for value in values]
            # An option string that holds "=" is looked up as a whole before argparse splits at the sign.
            self.add_argument(*spelled, dest=dest, action=action, default=default, help=argparse.SUPPRESS)

    def form(self, name: str, *forms: str, text: str) -> None:
        """Declare a boolean option that may also be given a form: ``--name`` is the first one, ``--name=FORM``.

        Its value is the form, or "".
        """
        dest = name[2:].replace("-", "_")
        self.add_argument(name, dest=dest, action="store_const", const=forms[0], default="", help=text)
        for values, const in ((_TRUE, forms[0]), (_FALSE, ""), *(((form,), form) for form in forms)):
            spelled = [f"{name}={value}" for value in values]
            self.add_argument(
                *spelled, dest=dest, action="store_const", const=const, default="", help=argparse.SUPPRESS
            )

    def many(self, *names: str, metavar: str, text: str) -> None:
        """Declare an option that may be given more than once; its value is a list."""
        self.add_argument(*names, action="append", default=[], metavar=metavar, help=text)

    def one(self, *names: str, metavar: str, text: str, default: str | None = "") -> None:
        """Declare an option with one value, of which the last counts."""
        self.add_argument(*names, default=default, metavar=metavar, help=text)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Read the arguments of a verb.

        Raises:
            UsageError: naming the argument that is wrong, and the nearest option for one that is unknown.
        """
        ends_options = any(action.nargs == argparse.REMAINDER for action in self._actions)
        parse = self.parse_known_args if ends_options else self.parse_known_intermixed_args
        args, unknown = parse(argv)
        if unknown:
            name = unknown[0].partition("=")[0]
            if not name.startswith("-"):
                raise UsageError(f"{self.prog} takes no argument {name!r} here", hint=self._help_hint)
            raise UsageError(f"{self.prog} has no option {name}", hint=self._nearest(name) or self._help_hint)
        return args

    def _nearest(self, name: str) -> str | None:
        from castoff.dockerfile.suggest import hint

        names = [option for option in self._option_string_actions if "=" not in option and option.startswith("--")]
        return hint(name, names) if name.startswith("--") else None

    @property
    def _help_hint(self) -> str:
        return f"{self.prog} --help lists what there is"

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found."""
        message = message.removeprefix("argument ")
        if message.startswith("the following arguments are required: "):
            raise UsageError(f"{self.prog} needs {message.partition(': ')[2]}", hint=self._help_hint)
        if ": ignored explicit argument" in message:
            option, _, value = message.partition(": ignored explicit argument ")
            values = [name.partition("=")[2] for name in self._option_string_actions if name.startswith(f"{option}=")]
            forms = [form for form in values if form not in _TRUE + _FALSE]
            allowed = f"one of {', '.join(forms)}, true or false" if forms else "either true or false"
            raise UsageError(f"{self.prog}: {option} is {allowed}, not {value}")
        if message.endswith(": expected one argument"):
            raise UsageError(f"{self.prog}: {message.rpartition(': ')[0]} needs a value", hint=self._help_hint)
        raise UsageError(f"{self.prog}: {message}", hint=self._help_hint)


class _Formatter(argparse.HelpFormatter):
    """Help with a wider column for the options."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=32, width=100, **options)


class Command:
    """A verb with its parsed arguments."""

    __slots__ = ("args", "verb")

    def __init__(self, verb: str, args: argparse.Namespace) -> None:
        self.verb = verb
        self.args = args

    @property
    def run(self) -> Callable[[argparse.Namespace], int]:
        """The function that does it."""
        return _module(self.verb).run


def _module(verb: str) -> Verb:
    return cast("Verb", importlib.import_module(f"castoff.cli.{VERBS[verb][0]}"))


def split_global(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the value of a ``--root`` that stands before the verb, and the rest.

    Raises:
        UsageError: it has no value.
    """
    root, rest = None, list(argv)
    while rest and (rest[0] == "--root" or rest[0].startswith("--root=")):
        if rest[0] == "--root":
            if len(rest) < 2:
                raise UsageError("--root needs a folder")
            root = rest[1]
            del rest[:2]
        else:
            root = rest.pop(0).partition("=")[2]
    return root, rest


def split_verb(rest: list[str]) -> tuple[str, list[str]]:
    """Return the verb and its arguments; Docker's longer forms, such as ``image ls``, stand for the verbs.

    Raises:
        UsageError: there is no such verb; the nearest is named.
    """
    pair = " ".join(rest[:2])
    verb = _ALIASES.get(pair, pair)
    if len(rest) > 1 and verb in VERBS:
        return verb, rest[2:]
    if rest[0] in VERBS:
        return rest[0], rest[1:]
    from castoff.dockerfile.suggest import hint

    groups = [verb for verb in VERBS if verb.startswith(f"{rest[0]} ")]
    if groups:
        raise UsageError(f"castoff {rest[0]} needs another word", hint=f"there are castoff {', castoff '.join(groups)}")
    kind = "option" if rest[0].startswith("-") else "verb"
    known = ["--root", "--version", "--help"] if kind == "option" else [verb.partition(" ")[0] for verb in VERBS]
    raise UsageError(f"castoff has no {kind} {rest[0]!r}", hint=hint(rest[0], known) or "castoff --help lists them")


def parse_verb(verb: str, argv: Sequence[str], root: str | None) -> Command:
    """Read the arguments of a verb; `root` is a ``--root`` that stood before it.

    Raises:
        UsageError: an argument is wrong.
    """
    return Command(verb, parser_of(verb, root).parse(argv))


def parser_of(verb: str, root: str | None = None) -> Parser:
    """Return the parser of a verb; completion and manual pages are made of it too."""
    # In `run`, -h is the host name, as in Docker.
    help_names = ("--help",) if verb == "run" else ("-h", "--help")
    parser = Parser(f"castoff {verb}", VERBS[verb][1], help_names=help_names)
    _module(verb).add_arguments(parser)
    parser.one("--root", metavar="DIR", text="folder of the store", default=root)
    return parser


def help_text() -> str:
    """Return the help of castoff itself: only what works."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{text}" for verb, (_, text) in VERBS.items())
    return (
        "usage: castoff [--root DIR] VERB …\n\n"
        "Build multi-stage Dockerfiles into minimal, reproducible images: no Docker, no daemon, no root.\n\n"
        f"verbs:\n{verbs}\n\n"
        "options:\n"
        "  --root DIR  folder of the store (else $CASTOFF_ROOT, else $XDG_DATA_HOME/castoff;\n"
        "              for root /var/lib/castoff)\n"
        "  --version   show the version and exit\n"
        "  -h, --help  show this help and exit\n\n"
        "castoff VERB --help tells more of a verb.\n"
    )
