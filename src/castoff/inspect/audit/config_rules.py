"""What an image's config and history must keep: who it runs as, what it starts, and that they hold no secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.fs.entry import display
from castoff.inspect.audit.finding import Observation
from castoff.inspect.audit.secrets import secrets_in_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.inspect.audit.evidence import Evidence
    from castoff.inspect.audit.policy import Policy

_LOCKED = frozenset({b"", b"*", b"!", b"!!", b"x"})


def check_user(evidence: Evidence, policy: Policy) -> Iterator[Observation]:
    """See who the image runs as."""
    user = evidence.config.config.user
    instruction = evidence.instruction_of("USER")
    name = user.partition(":")[0]
    rows = passwd_rows(evidence)
    uid = _number(name)
    if uid is None and name:
        uid = next((_number(row[2]) for row in rows if row[0] == name.encode()), None)
        if uid is None:
            yield Observation(
                "unknown-user", f"USER is {user!r}, and /etc/passwd has no such user", None, None, instruction
            )
    if not name or uid == 0:
        what = "no USER is set, so that it runs as root" if not name else f"USER is {user!r}, which is root"
        yield Observation("root-user", what, None, None, instruction)
    if policy.user and not _is_user(policy.user, user, uid):
        actual = f"{user!r}" if user else "not set"
        yield Observation(
            "required-user", f"USER is {actual}, and the policy asks for {policy.user!r}", None, None, instruction
        )
    fact = evidence.resolve(b"etc/passwd")
    for row in rows:
        if _number(row[2]) == 0 and row[0] != b"root":
            path, layer = (fact.path, fact.layer) if fact else (b"etc/passwd", None)
            yield Observation("extra-root", f"the user {display(row[0])} has the id 0", path, layer)


def check_passwords(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See whether somebody can log in with a password, or without one."""
    for path in (b"etc/shadow", b"etc/passwd"):
        fact = evidence.resolve(path)
        if fact is None or fact.content.text is None:
            continue
        for line in fact.content.text.splitlines():
            row = line.split(b":")
            if len(row) < 2 or not row[0] or row[0].startswith(b"#"):
                continue
            if row[1].startswith(b"$") or (len(row[1]) == 13 and row[1].isalnum()):
                yield Observation("login-password", f"{display(row[0])} has a password", fact.path, fact.layer)
            elif path == b"etc/shadow" and not row[1]:
                yield Observation("login-password", f"{display(row[0])} needs no password", fact.path, fact.layer)


def check_entrypoint(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See whether what the image starts is there, and is for its platform."""
    start = evidence.entrypoint()
    if start is None:
        return
    word, fact = start
    instruction = evidence.instruction_of("ENTRYPOINT") or evidence.instruction_of("CMD")
    if fact is None:
        yield Observation(
            "missing-entrypoint", f"it starts {word!r}, and there is no such program", None, None, instruction
        )
        return
    script = fact.content.script.split()
    if script and evidence.find_program(script[0].decode("utf-8", "surrogateescape")) is None:
        text = f"{word!r} is a script for {display(script[0])}, which is not there"
        yield Observation("missing-entrypoint", text, fact.path, fact.layer)
    elf = fact.content.elf
    wanted = evidence.config.platform.architecture
    if elf is not None and elf.architecture != wanted:
        text = f"it starts {word!r}, which is for {elf.architecture}, and the image is for {wanted}"
        yield Observation("entrypoint-architecture", text, fact.path, fact.layer)


def check_config_secrets(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See whether variables, labels, arguments and health checks hold secrets."""
    config = evidence.config.config
    for item in config.env:
        name = item.partition("=")[0]
        for secret in secrets_in_text(item):
            text = f"the variable {name} holds a secret: {secret.kind} {secret.shown}"
            yield Observation("secret-in-config", text, None, None, evidence.instruction_of("ENV", name))
    for key, value in config.labels:
        for secret in secrets_in_text(value):
            text = f"the label {key} holds a secret: {secret.kind} {secret.shown}"
            yield Observation("secret-in-config", text, None, None, evidence.instruction_of("LABEL", key))
    check = config.healthcheck.test if config.healthcheck else ()
    for keyword, words in (("ENTRYPOINT", config.entrypoint), ("CMD", config.cmd), ("HEALTHCHECK", check)):
        for secret in secrets_in_text(" ".join(words or ())):
            text = f"{keyword} holds a secret: {secret.kind} {secret.shown}"
            yield Observation("secret-in-config", text, None, None, evidence.instruction_of(keyword))


def check_history_secrets(evidence: Evidence, _policy: Policy) -> Iterator[Observation]:
    """See whether the history holds secrets that the config does not hold too."""
    told = {secret for item in evidence.config.config.env for secret in secrets_in_text(item)}
    layer = -1
    for entry in evidence.config.history:
        if not entry.empty_layer:
            layer += 1
        for text in (entry.created_by, entry.comment):
            for secret in secrets_in_text(text):
                if secret in told:
                    continue
                told.add(secret)
                where = None if entry.empty_layer else layer
                message = f"an instruction holds a secret: {secret.kind} {secret.shown}"
                yield Observation("secret-in-history", message, None, where, entry.created_by)


def check_size(evidence: Evidence, policy: Policy) -> Iterator[Observation]:
    """See whether the layers keep to their budget."""
    for actual, allowed, what in (
        (evidence.compressed, policy.budget, "as they are stored"),
        (evidence.uncompressed, policy.unpacked_budget, "unpacked"),
    ):
        if allowed is not None and actual > allowed:
            yield Observation("size-budget", f"the layers have {actual} bytes {what}, and {allowed} are allowed")


def passwd_rows(evidence: Evidence) -> list[list[bytes]]:
    """Return the rows of the image's /etc/passwd that have an id."""
    fact = evidence.resolve(b"etc/passwd")
    text = fact.content.text if fact else None
    rows = [line.split(b":") for line in (text or b"").splitlines() if not line.startswith(b"#")]
    return [row for row in rows if len(row) > 2]


def _number(text: str | bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 12 and text.isascii() else None


def _is_user(wanted: str, user: str, uid: int | None) -> bool:
    """Tell whether USER is what a policy asks for: the same text, or the same user without a group."""
    return wanted in (user, user.partition(":")[0]) or (":" not in wanted and _number(wanted) == uid is not None)
