"""Secrets told by their shape: private keys and tokens of well-known forms, and names that only secrets have.

A shape counts only with what follows it: the words ``BEGIN PRIVATE KEY`` alone are in every TLS library, and a token's
prefix alone is in every scanner. What is found is never shown whole.
"""

from __future__ import annotations

import re
from typing import NamedTuple

OVERLAP = 1 << 10
"""How many bytes of one block are looked at again with the next: no shape needs more."""
PRIVATE_KEY = "private key"
MAX_HITS = 8
"""How many secrets are told of in one file."""


class Secret(NamedTuple):
    """A secret that was found: what it is, and as much of it as may be shown."""

    kind: str
    shown: str


class _Shape(NamedTuple):
    """One shape. One of `markers` is in all that `pattern` matches; they are looked for first, as that is much faster.

    Without markers the pattern itself begins so that its search is fast.
    """

    kind: str
    markers: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


def _shape(kind: str, markers: str, pattern: str) -> _Shape:
    return _Shape(kind, tuple(markers.encode().split()), re.compile(pattern.encode()))


_GAP = r"(?:\\[rn]|\s)"
_SHAPES = (
    _Shape(
        PRIVATE_KEY,
        (b"PRIVATE KEY",),
        re.compile(
            rb"-----BEGIN (?:[A-Z]{2,9} )?PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|\s){1,8}"
            rb"(?:[A-Za-z-]{3,20}: [^\r\n]{0,100}\s{1,4}){0,4}[A-Za-z0-9+/=]{40}"
        ),
    ),
    _shape("private key of PuTTY", "PuTTY-User-Key-File-", r"PuTTY-User-Key-File-[23]: [a-z0-9-]{5,40}\s"),
    _shape("private key of age", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    _shape("access key of AWS", "", r"A[KS]IA[A-Z2-7]{16}(?![A-Za-z0-9+/=])"),
    _shape("token of GitHub", "", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _shape("token of GitHub", "github_pat_", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _shape("token of GitLab", "glpat-", r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,}"),
    _shape("token of Slack", "xox", r"xox[abprs]-\d{8,}-[A-Za-z0-9-]{10,}"),
    _shape("webhook of Slack", "hooks.slack.com/services/", r"hooks\.slack\.com/services/T\w{8,}/B\w{8,}/\w{20,}"),
    _shape("key of Stripe", "k_live_", r"(?<![A-Za-z0-9])[rs]k_live_[A-Za-z0-9]{20,}"),
    _shape("API key of Google", "AIza", r"(?<![A-Za-z0-9_-])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _shape("token of npm", "npm_", r"(?<![A-Za-z0-9_])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_])"),
    _shape("token of PyPI", "pypi-AgEIcHlwaS5vcmc", r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    _shape("key of SendGrid", "SG.", r"(?<![A-Za-z0-9])SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"),
    _shape("token of Hugging Face", "hf_", r"(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{34}(?![A-Za-z0-9_])"),
    _shape("key of Anthropic", "sk-ant-", r"sk-ant-[a-z0-9]{3,8}-[A-Za-z0-9_-]{60,}"),
    _shape("key of OpenAI", "sk-proj-", r"sk-proj-[A-Za-z0-9_-]{40,}"),
    _shape("token of Docker", "dckr_pat_", r"dckr_pat_[A-Za-z0-9_-]{27}"),
    _shape("token of Vault", "hvs.", r"(?<![A-Za-z0-9])hvs\.[A-Za-z0-9_-]{90,}"),
    _shape("token of DigitalOcean", "dop_v1_", r"dop_v1_[a-f0-9]{64}"),
    _shape("key of an Azure store", "AccountKey=", r"AccountKey=[A-Za-z0-9+/]{86}=="),
)
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x89PNG", b"\xff\xd8\xff", b"OggS", b"wOF2")
_DUMMY = re.compile(rb"(?i)example|placeholder|your[-_]?|x{6}|0{8}|12345678|abcdefgh|\.\.\.")
_FEWEST_KINDS = 9
"""How many different characters a secret has at least; what people make up has fewer."""

_SECRET_NAME = re.compile(
    r"(?i)(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|PWD_HASH|SECRET|SECRET_?KEY|TOKEN|API_?KEY|ACCESS_?KEY|AUTH_?KEY"
    r"|PRIVATE_?KEY|CREDENTIALS?)$"
)
_DULL_VALUE = re.compile(r"(?i)true|false|yes|no|on|off|none|null|\d{1,4}|/.*|\$.*|`.*|<.*>|\*+|x+|")
_ASSIGNMENT = re.compile(
    r"""(?<![\w.$-])([A-Za-z][A-Za-z0-9_]{2,60})=("[^"]{1,500}"|'[^']{1,500}'|[^\s"';&|]{1,500})"""
)
_URL = re.compile(r"""\b[a-z][a-z0-9+.-]{1,20}://[^/\s:@"']{1,100}:([^/\s:@"'$]{3,200})@[A-Za-z0-9.-]""")
_HEADER = re.compile(r"(?i)\bauthorization: *(?:bearer|basic|token) +([A-Za-z0-9+/=._-]{12,500})")
_OPTION = re.compile(r"(?i)\s--?(?:password|passwd|token|secret|api-?key)(?:=|\s+)([^\s\"'$;&|-][^\s\"';&|]{2,200})")


class Scanner:
    """Looks for secrets in the content of one file, block by block."""

    __slots__ = ("_packed", "_seen", "_tail")

    def __init__(self) -> None:
        self._packed: bool | None = None
        self._tail = b""
        self._seen: dict[bytes, Secret] = {}

    def feed(self, block: bytes) -> None:
        """Look at the next block. Compressed files are passed over: no shape shows in them."""
        if self._packed is None:
            self._packed = block.startswith(_PACKED)
        if self._packed:
            return
        data = self._tail + block if self._tail else block
        for shape in _SHAPES:
            if not shape.markers or any(marker in data for marker in shape.markers):
                self._match(shape, data)
        self._tail = data[-OVERLAP:]

    def found(self) -> tuple[Secret, ...]:
        """Return what was found, at most `MAX_HITS`."""
        return tuple(dict.fromkeys(self._seen.values()))[:MAX_HITS]

    def _match(self, shape: _Shape, data: bytes) -> None:
        for match in shape.pattern.finditer(data):
            if len(self._seen) >= MAX_HITS:
                return
            before = data[match.start() - 1 : match.start()] if match.start() else b""
            if not before.isalnum() and _is_plausible(match[0]):
                self._seen.setdefault(match[0], Secret(shape.kind, _masked(match[0].decode("ascii", "replace"))))


def find_secrets(data: bytes) -> tuple[Secret, ...]:
    """Return the secrets of well-known shapes in some bytes."""
    scanner = Scanner()
    scanner.feed(data)
    return scanner.found()


def secrets_in_text(text: str) -> tuple[Secret, ...]:
    """Return the secrets in an instruction or a value: of well-known shapes, in URLs, headers, options, assignments."""
    found = dict.fromkeys(find_secrets(text.encode("utf-8", "replace")))
    for pattern, kind in ((_URL, "password in a URL"), (_HEADER, "authorization header"), (_OPTION, "option")):
        for match in pattern.finditer(text):
            if _DULL_VALUE.fullmatch(match[1]) is None:
                found[Secret(kind, _masked(match[1]))] = None
    for match in _ASSIGNMENT.finditer(text):
        value = match[2].strip("\"'")
        if is_secret_variable(match[1], value):
            found[Secret(f"value of {match[1]}", _masked(value))] = None
    return tuple(found)[:MAX_HITS]


def is_secret_variable(name: str, value: str) -> bool:
    """Tell whether a variable has the name of a secret, and a value that is one and not where one is."""
    return _SECRET_NAME.search(name) is not None and _DULL_VALUE.fullmatch(value) is None


def _is_plausible(value: bytes) -> bool:
    body = value[-40:] if value.startswith(b"-----") else value
    return _DUMMY.search(body) is None and len(set(body)) >= _FEWEST_KINDS


def _masked(value: str) -> str:
    """Return the beginning of a secret: enough to tell which it is."""
    if value.startswith("-----"):
        return value[5:].partition("-----")[0]
    shown = "".join(c if c.isprintable() else "?" for c in value[: min(4, len(value) // 3)])
    return f"{shown}… ({len(value)} characters)"
