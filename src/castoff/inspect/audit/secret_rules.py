"""Secrets in the files of an image, those among them that a later layer hides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from castoff.fs.entry import display
from castoff.inspect.audit.finding import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.inspect.audit.evidence import Evidence, FileFact
    from castoff.inspect.audit.policy import Policy

_EXAMPLES = (b".example", b".sample", b".template", b".dist", b".tmpl", b".defaults")
_ENV_LINE = re.compile(rb"(?m)^[ \t]*(?:export[ \t]+)?[A-Za-z_]\w*[ \t]*=[ \t]*[^\s#]")
# No pattern spans lines: a file of nothing but line ends would take the square of its length.
_CREDENTIALS: tuple[tuple[re.Pattern[bytes], re.Pattern[bytes], str], ...] = tuple(
    (re.compile(path), re.compile(content), what)
    for path, content, what in (
        # path from its last slashes, what must be in the file, what it is
        (
            rb"(?:.*/)?\.(?:npmrc|yarnrc)",
            rb"(?m)^[^#;\n]*_(?:authToken|auth|password)[ \t]*=[ \t]*[^\s$]",
            "an account of npm",
        ),
        (rb"(?:.*/)?\.netrc", rb"(?m)\bpassword\s+\S", "passwords of netrc"),
        (rb"(?:.*/)?\.pypirc", rb"(?m)^[ \t]*password[ \t]*[=:][ \t]*\S", "an account of PyPI"),
        (rb"(?:.*/)?\.git-credentials", rb"://[^/\s:@]+:[^\s@]+@", "passwords of git"),
        (rb"(?:.*/)?\.pgpass", rb"(?m)^[^#\n]*(?::[^:\n]*){3}:[^:\s]", "passwords of PostgreSQL"),
        (rb"(?:.*/)?\.my\.cnf", rb"(?m)^[ \t]*password[ \t]*=[ \t]*\S", "a password of MySQL"),
        (rb"(?:.*/)?\.htpasswd", rb"(?m)^[^#:\n]+:\S", "hashes of passwords"),
        (rb"(?:.*/)?\.docker/config\.json", rb'"auth"\s*:\s*"[^"]', "an account of a registry"),
        (rb"(?:.*/)?\.dockercfg", rb'"auth"\s*:\s*"[^"]', "an account of a registry"),
        (rb"(?:.*/)?\.aws/credentials", rb"(?im)^[ \t]*aws_secret_access_key[ \t]*=[ \t]*\S", "keys of AWS"),
        (
            rb"(?:.*/)?(?:\.kube/config|kubeconfig)",
            rb"(?m)^[ \t]*(?:token|client-key-data):[ \t]*\S",
            "access to a cluster",
        ),
        (rb"(?:.*/)?\.cargo/credentials(?:\.toml)?", rb'(?m)^[ \t]*token[ \t]*=[ \t]*"[^"]', "a token of a registry"),
        (rb"(?:.*/)?credentials\.json", rb'"(?:client_secret|refresh_token)"\s*:\s*"[^"]', "an account of an API"),
    )
)


def check_secrets(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See which files hold secrets: by the shape of what is in them, and by what tools keep in files of that name."""
    for fact in evidence.tree.values():
        for rule, text in secrets_of(fact):
            yield Observation(rule, text, fact.path, fact.layer)
    for hidden in evidence.hidden:
        for _rule, text in secrets_of(hidden.fact):
            how = "replaced" if hidden.replaced else "removed"
            by = f"{how} by layer {hidden.layer + 1}, and still shipped"
            yield Observation("buried-secret", f"{text}; {by}", hidden.fact.path, hidden.fact.layer)


def secrets_of(fact: FileFact) -> Iterator[tuple[str, str]]:
    """Yield what a file holds: the rule that this breaks, and what it is."""
    if not fact.entry.is_file:
        return
    for secret in fact.content.secrets:
        yield "secret-file", f"holds a secret: {secret.kind} {secret.shown}"
    text = fact.content.text
    if text is None:
        return
    name = fact.entry.name
    if (name == b".env" or name.startswith(b".env.")) and not name.endswith(_EXAMPLES):
        if _ENV_LINE.search(text):
            yield "credential-file", f"{display(name)} sets variables of a deployment"
        return
    for path, content, what in _CREDENTIALS:
        if path.fullmatch(fact.path) and content.search(text):
            yield "credential-file", f"holds {what}"
