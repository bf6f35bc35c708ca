"""The parts of an audit: policies, shapes of secrets, ELF files, names of programs."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from audit_images import BASE64, GITHUB, KEY, LOADER, Need, Scratch, Step, elf, faulty_image, file, image_of, link
from hypothesis import given
from hypothesis import strategies as st

from castoff.errors import UsageError
from castoff.fs.entry import FileEntry
from castoff.inspect.audit.audit import audit
from castoff.inspect.audit.elf import read_elf
from castoff.inspect.audit.evidence import Content, FileFact
from castoff.inspect.audit.finding import RULES, Level, Observation
from castoff.inspect.audit.policy import Policy, glob_pattern
from castoff.inspect.audit.programs import classify
from castoff.inspect.audit.secret_rules import secrets_of
from castoff.inspect.audit.secrets import Scanner, find_secrets, is_secret_variable, secrets_in_text
from castoff.oci.config import ContainerConfig
from castoff.store.memory import MemoryStore


def test_a_policy_is_read_whole() -> None:
    policy = Policy.parse(
        b"""
        version = 1
        fail-on = "warning"
        user = 65532
        budget = "20MB"
        unpacked-budget = "1MiB"
        [rules]
        shell = "off"
        interpreter = "error"
        [[allow]]
        rule = "setuid"
        path = "/usr/bin/ping*"
        reason = "needed"
        [[allow]]
        rules = ["secret-file", "credential-file"]
        paths = ["**/testdata/**", "app/.env"]
        """
    )
    assert (policy.fail_on, policy.user, policy.budget, policy.unpacked_budget) == (
        Level.WARNING,
        "65532",
        20_000_000,
        1 << 20,
    )
    assert policy.levels == {"shell": Level.OFF, "interpreter": Level.ERROR}
    assert policy.allows(Observation("setuid", "", b"usr/bin/ping6"))
    assert not policy.allows(Observation("setuid", "", b"usr/bin/x/ping6"))
    assert not policy.allows(Observation("setgid", "", b"usr/bin/ping"))
    assert policy.allows(Observation("secret-file", "", b"src/a/testdata/x/key.pem"))
    assert not policy.allows(Observation("secret-file", "", None))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules = 3", "rules is a table"),
        ("[rules]\nshel = 'off'", "no rule 'shel'"),
        ("[rules]\nshell = 'fatal'", "no level 'fatal'"),
        ("[rules]\nshell = 3", "no level 3"),
        ("fail-on = 'off'", "no level 'off'"),
        ("version = 2", "version 2"),
        ("budget = 'many'", "size such as 20MB"),
        ("budget = true", "size such as 20MB"),
        ("budget = -1", "size such as 20MB"),
        ("limits = 1", "no key limits"),
        ("allow = 'x'", "list of tables"),
        ("[[allow]]\nreason = 'because'", "neither rule nor path"),
        ("[[allow]]\npath = 3", "a text or a list"),
        ("[[allow]]\nglob = 'x'", "no key allow.glob"),
        ("[[allow]]\nrule = 'x'", "no rule 'x'"),
        ("[[allow]]\npath = '[z-a]'", "can't be read"),
        ("user = []", "user is a text"),
        ("user = ", "no TOML"),
        ("\udcff", "no TOML"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        Policy.parse(text.encode("utf-8", "surrogateescape"), "p.toml")
    assert caught.value.message.startswith("p.toml")
    assert caught.value.exit_code == 2


def test_a_policy_decides(tmp_path: Path) -> None:
    image = faulty_image(MemoryStore().blobs)

    def run(text: str) -> tuple[bool, set[str], int]:
        report = audit(image, Scratch(str(tmp_path)), Policy.parse(text.encode()))
        return report.passed, {finding.rule.id for finding in report.findings}, report.allowed

    off = "\n".join(f'{rule.id} = "off"' for rule in RULES)
    assert run(f"[rules]\n{off}") == (True, set(), 0)
    notes = "\n".join(f'{rule.id} = "note"' for rule in RULES)
    passed, rules, _ = run(f"[rules]\n{notes}")
    assert passed
    assert "shell" in rules
    assert not run(f'fail-on = "note"\n[rules]\n{notes}')[0]
    _, rules, allowed = run('[[allow]]\nrule = "shell"\n')
    assert "shell" not in rules
    assert allowed == 3
    assert run('[[allow]]\npath = "**"')[1] & {"shell", "setuid", "unknown-user"} == {"unknown-user"}


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/usr/bin/su", ["usr/bin/su"], ["usr/bin/sudo", "x/usr/bin/su"]),
        ("usr/*/su", ["usr/bin/su"], ["usr/a/b/su"]),
        ("**/su", ["su", "a/su", "a/b/su"], ["a/sudo"]),
        ("opt/**", ["opt/a", "opt/a/b"], ["opt2"]),
        ("opt/", ["opt/a/b"], ["opt"]),
        ("*.pem", ["a.pem", "a/b.pem"], ["a.pem/b"]),
        ("a?c", ["abc", "x/abc"], ["a/c", "abbc"]),
        ("/a[!b]c", ["axc"], ["abc", "a/c"]),
        ("/a[bc", ["a[bc"], ["ab"]),
        ("/a.b", ["a.b"], ["axb"]),
    ],
)
def test_globs(pattern: str, yes: list[str], no: list[str]) -> None:
    compiled = glob_pattern(pattern)
    assert [text for text in yes if not compiled.fullmatch(text.encode())] == []
    assert [text for text in no if compiled.fullmatch(text.encode())] == []


@given(st.binary(max_size=200), st.lists(st.integers(1, 300), max_size=5), st.binary(max_size=200))
def test_a_secret_is_found_however_the_file_is_cut(before: bytes, cuts: list[int], after: bytes) -> None:
    data = before + b"\n" + KEY + b"\n" + GITHUB + b"\n" + after
    if data[:1] in (b"\x1f", b"B", b"\xfd", b"(", b"\x89", b"\xff", b"O", b"w"):
        data = b" " + data  # it would be taken for a compressed file
    scanner = Scanner()
    for cut in cuts:
        scanner.feed(data[:cut])
        data = data[cut:]
    scanner.feed(data)
    assert {"private key", "token of GitHub"} <= {secret.kind for secret in scanner.found()}


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN " + b"PRIVATE KEY-----\x00-----END",
        b"-----BEGIN PUBLIC KEY-----\n" + BASE64,
        b"-----BEGIN CERTIFICATE-----\n" + BASE64,
        b"AKIAIOSFODNN7EXAMPLE",
        b"xAK" + b"IAQYLPMN5HG7KJRT2Z",
        b"gh" + b"p_" + b"x" * 36,
        b"gh" + b"p_short",
        b"npm_config_registry and npm_package_name",
        b"SG.",
        b"hf_hub_download",
        b"\x1f\x8b" + GITHUB,
    ],
)
def test_what_only_looks_like_a_secret(data: bytes) -> None:
    assert find_secrets(data) == ()


def test_a_key_in_one_line_of_json() -> None:
    assert find_secrets(KEY.replace(b"\n", b"\\n"))


@pytest.mark.parametrize(
    "text",
    [
        "RUN |2 NPM_TOKEN=1f2e3d4c HOME=/ /bin/sh -c npm ci",
        'ENV API_KEY="4d3c2b1a5f6e"',
        "RUN curl -H 'Authorization: Bearer abcdef0123456789' https://x.example",
        "RUN git clone https://me:s3cr3tword@git.example/x",
        "RUN login --password hunter2hunter",
        "RUN echo " + GITHUB.decode(),
        "RUN export MYSQL_ROOT_PASSWORD=letmein; mysqld",
    ],
)
def test_secrets_in_instructions(text: str) -> None:
    assert secrets_in_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "RUN --mount=type=secret,id=t TOKEN=$(cat /run/secrets/t) make",
        "ENV PASSWORD_FILE=/run/secrets/p TOKEN_URL=https://x.example",
        "ENV SECRET_KEY=",
        "ENV TOKEN=${TOKEN}",
        "ENV DISABLE_TOKEN=true PASSWORD=0",
        "RUN login --password-stdin < /run/secrets/p",
        "RUN git clone https://$USER:$TOKEN@git.example/x",
        "ENV GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D",
        "COPY --from=builder /app /app # buildkit",
    ],
)
def test_no_secrets_in_instructions(text: str) -> None:
    assert secrets_in_text(text) == ()


def test_names_of_secret_variables() -> None:
    assert is_secret_variable("DB_PASSWORD", "a b c")
    assert is_secret_variable("token", "x1y2")
    assert not is_secret_variable("TOKENIZERS_PARALLELISM", "abc")
    assert not is_secret_variable("KEY", "abc")
    assert not is_secret_variable("SECRET", "/run/secrets/x")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("sh", "shell"),
        ("pip3.11", "package-manager"),
        ("aarch64-linux-gnu-gcc", "build-tool"),
        ("g++-12", "build-tool"),
        ("python3.11", "interpreter"),
        ("python", "interpreter"),
        ("curl", "network-tool"),
        ("su", "privilege-tool"),
        ("python-service", None),
        ("shutdown", None),
        ("goodbye", None),
        ("assets", None),
        ("devops-info-service", None),
    ],
)
def test_names_of_programs(name: str, rule: str | None) -> None:
    known = classify(name.encode())
    assert (known[0] if known else None) == rule


def test_elf_files_of_our_own_making() -> None:
    static = read_elf(io.BytesIO(elf(183)))
    assert static is not None
    assert (static.architecture, static.kind, static.is_dynamic) == ("arm64", "executable", False)
    dynamic = read_elf(io.BytesIO(elf(need=Need(LOADER, (b"a.so", b"b.so"), b"", b"$ORIGIN:/x"))))
    assert dynamic is not None
    assert (dynamic.interpreter, dynamic.needed, dynamic.runpath) == (LOADER, (b"a.so", b"b.so"), (b"$ORIGIN", b"/x"))
    library = read_elf(io.BytesIO(elf(kind=3, need=Need(LOADER, soname=b"libc.so.6"))))
    assert library is not None
    assert (library.kind, library.soname) == ("shared", b"libc.so.6")
    pie = read_elf(io.BytesIO(elf(kind=3, pie=True)))
    assert pie is not None
    assert (pie.kind, pie.is_dynamic) == ("executable", False)


@pytest.mark.parametrize("path", [sys.executable, "/bin/ls", "/bin/busybox", "/lib/x86_64-linux-gnu/libc.so.6"])
def test_elf_files_of_this_machine(path: str) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf is not installed (Debian package binutils)")
    if not Path(path).exists():
        pytest.skip(f"{path} is absent")
    told = subprocess.run([readelf, "-dlW", path], capture_output=True, text=True, check=True).stdout
    with open(path, "rb") as file:
        facts = read_elf(file)
    assert facts is not None
    assert [name.decode() for name in facts.needed] == re.findall(r"\(NEEDED\).*\[(.+)\]", told)
    interpreter = re.search(r"interpreter: (.+)\]", told)
    assert facts.interpreter.decode() == (interpreter[1] if interpreter else "")
    runpath = re.search(r"\((?:RUNPATH|RPATH)\).*\[(.+)\]", told)
    assert [part.decode() for part in facts.runpath] == (runpath[1].split(":") if runpath else [])


@given(st.integers(0, 400), st.integers(1, 8), st.binary(min_size=8, max_size=8))
def test_a_damaged_elf_file_is_no_error(offset: int, size: int, noise: bytes) -> None:
    data = bytearray(elf(need=Need(LOADER, (b"a.so", b"b.so"), b"x.so", b"$ORIGIN")))
    data[offset : offset + size] = noise[:size]
    read_elf(io.BytesIO(bytes(data)))
    read_elf(io.BytesIO(bytes(data[:offset])))


@pytest.mark.parametrize("line", [b"\n", b" ", b":", b"_auth ", b"password ", b"A=", b"\t=", b'"auth" '])
@pytest.mark.parametrize(
    "name", ["a/.env", ".npmrc", ".pgpass", ".pypirc", ".my.cnf", ".aws/credentials", ".kube/config", ".netrc"]
)
def test_no_file_takes_long_to_look_at(name: str, line: bytes) -> None:
    """Patterns that try every length at every place would need minutes here, which shows without a clock."""
    fact = FileFact(FileEntry(name.encode(), 0o100644), 0, Content(text=line * (60_000 // len(line))))
    assert len(list(secrets_of(fact))) <= 1


def test_long_links_lead_nowhere(tmp_path: Path) -> None:
    target = "/" + "./" * 2043 + "bin//tool"
    assert len(target) == 4096  # the longest that an archive may hold, and one byte more than the kernel follows
    changes = (file("bin/tool", elf(), 0o755), link("bin/sh", target))
    image = image_of(MemoryStore().blobs, [Step("COPY . /", changes)], ContainerConfig(user="1"))
    assert not [each for each in audit(image, Scratch(str(tmp_path))).findings if each.rule.id == "shell"]
