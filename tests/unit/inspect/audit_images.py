"""Images for audits: one that is clean, and one with a fault of every kind. No secret here is one of anybody's."""

from __future__ import annotations

import io
import os
import stat
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from castoff.fs.changes import Added, Change, Removed
from castoff.fs.entry import FileEntry
from castoff.image.image import StoredImage
from castoff.image.mutate import DraftImage, append_history, append_layer, with_config
from castoff.oci.config import ContainerConfig, History, ImageConfig
from castoff.oci.platform import Platform
from castoff.testing.random_images import layer_of, random_bytes

if TYPE_CHECKING:
    from castoff.store.blobs import BlobStore

PLATFORM = Platform("linux", "amd64")
TIME = "1980-01-01T00:00:00Z"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
BASE64 = b"MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQC7VJTUt9Us8cKj\n" * 4
# Written in two parts: programs that look for secrets look through this repository too.
KEY = b"-----BEGIN " + b"PRIVATE KEY-----\n" + BASE64 + b"-----END " + b"PRIVATE KEY-----\n"
ENCRYPTED_KEY = (
    b"-----BEGIN "
    + b"RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF\n\n"
    + BASE64
)
GITHUB = b"gh" + b"p_" + b"16C7e42F292c6912E7710c838347Ae178B4a"
AWS = b"AK" + b"IA" + b"QYLPMN5HG7KJRT2Z"
SLACK = b"xox" + b"b-" + b"263594206564-FGqddMF8t08v8N7Oq4i57vs1"


class Need(NamedTuple):
    """What an ELF file asks for."""

    interpreter: bytes = b""
    needed: tuple[bytes, ...] = ()
    soname: bytes = b""
    runpath: bytes = b""


def elf(machine: int = 62, kind: int = 2, need: Need | None = None, *, pie: bool = False) -> bytes:
    """Return a 64-bit little-endian ELF file with program headers and, where it needs something, a dynamic section."""
    need = need or Need()
    strings = b"\0"
    tags: list[tuple[int, int]] = []

    def name(text: bytes) -> int:
        nonlocal strings
        at = len(strings)
        strings += text + b"\0"
        return at

    tags += [(1, name(text)) for text in need.needed]
    if need.soname:
        tags.append((14, name(need.soname)))
    if need.runpath:
        tags.append((29, name(need.runpath)))
    if pie:
        tags.append((0x6FFFFFFB, 0x08000000))
    segments = 1 + bool(need.interpreter) + bool(tags)
    start = 64 + 56 * segments
    loader = need.interpreter + b"\0" if need.interpreter else b""
    strings_at = start + len(loader)
    dynamic_at = strings_at + len(strings)
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in [*tags, (5, 0x400000 + strings_at), (0, 0)]) if tags else b""
    total = dynamic_at + len(dynamic)

    def header(kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 5, offset, 0x400000 + offset, 0, size, size, 8)

    table = header(1, 0, total)
    if loader:
        table += header(3, start, len(loader))
    if tags:
        table += header(2, dynamic_at, len(dynamic))
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0x400000, 64, 0, 0, 64, 56, segments, 64, 0, 0)
    return head + table + loader + strings + dynamic


def folder(path: str, mode: int = 0o755) -> Change:
    """Return a folder."""
    return Added(FileEntry(path.encode(), stat.S_IFDIR | mode))


def file(path: str, data: bytes = b"x", mode: int = 0o644) -> Change:
    """Return a file."""
    return Added(FileEntry(path.encode(), stat.S_IFREG | mode, size=len(data), data=data))


def link(path: str, target: str) -> Change:
    """Return a symbolic link."""
    return Added(FileEntry(path.encode(), stat.S_IFLNK | 0o777, link=target.encode()))


class Scratch:
    """Temporary files in a folder, each counted."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.count = 0

    def new_file(self) -> io.FileIO:
        """Return a new file."""
        self.count += 1
        return io.FileIO(f"{self.folder}/{self.count}", "x+")


class Step(NamedTuple):
    """An instruction, and what it changes; nothing where it makes no layer."""

    created_by: str
    changes: tuple[Change, ...] | None = None


def image_of(
    blobs: BlobStore, steps: list[Step], config: ContainerConfig, platform: Platform = PLATFORM
) -> StoredImage:
    """Return an image in a store."""
    draft = DraftImage(ImageConfig(platform, created=TIME))
    for step in steps:
        history = History(TIME, step.created_by)
        if step.changes is None:
            draft = append_history(draft, history)
        else:
            draft = append_layer(draft, layer_of(blobs, sorted(step.changes, key=_path)), history)
    return StoredImage(blobs, with_config(draft, config).store(blobs, platform))


def _path(change: Change) -> bytes:
    return change.path


LOADER = b"/lib64/ld-linux-x86-64.so.2"
BASE: tuple[Change, ...] = (
    folder("etc"),
    file("etc/passwd", b"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:n:/home/nonroot:/sbin/nologin\n"),
    file("etc/shadow", b"root:*:19000:0:99999:7:::\nnonroot:!:19000:0:99999:7:::\n", 0o640),
    file("etc/ssl/certs/ca-certificates.crt", b"-----BEGIN CERTIFICATE-----\n" + BASE64),
    folder("tmp", 0o1777),
    file("lib/x86_64-linux-gnu/libc.so.6", elf(kind=3, need=Need(LOADER, soname=b"libc.so.6"))),
    file("lib64/ld-linux-x86-64.so.2", elf(kind=3, need=Need(soname=b"ld-linux-x86-64.so.2")), 0o755),
)
TOOL = elf(kind=3, need=Need(LOADER, (b"libc.so.6", b"libown.so"), b"", b"$ORIGIN/libs"), pie=True)
DECOYS: tuple[Change, ...] = (
    # What looks like a fault and is none.
    file("usr/share/bash-completion/completions/curl", b"# completes curl\n"),
    file("usr/share/doc/sh", b"#!/bin/sh\n", 0o755),
    file("app/.env.example", b"DB_PASSWORD=secret-of-nobody\n"),
    file("app/.env", b"# nothing is set here\n"),
    file("app/.npmrc", b"registry=https://registry.example/\n//registry.example/:_authToken=${NPM_TOKEN}\n"),
    file("app/tls.py", b"HEAD = '-----BEGIN RSA PRIVATE KEY-----'\nif HEAD in text: ...\n"),
    file("app/docs.txt", b"key AKIAIOSFODNN7EXAMPLE, token " + b"gh" + b"p_" + b"x" * 36 + b"\n"),
    file("app/packed.gz", b"\x1f\x8b" + AWS + b"\n"),
    file("lib/x86_64-linux-gnu/libtls.so.1", elf(kind=3, need=Need(soname=b"libtls.so.1")) + KEY),
    file(
        "app/plugin.so",
        elf(kind=3, need=Need(needed=(b"libc.so.6", b"libown.so"), soname=b"plugin.so")),
    ),
    file("app/libs/libown.so", elf(kind=3, need=Need(soname=b"libown.so"))),
    file("app/tool", TOOL, 0o755),
    file("app/object.o", elf(183, 1)),
    link("app/home", "/tmp"),
    folder("var/mail", 0o2775),
    file("root/.docker/config.json", b'{"auths": {}}\n'),
)
CLEAN = ContainerConfig(
    user="nonroot:nonroot",
    env=("PATH=/usr/bin", "DB_PASSWORD_FILE=/run/secrets/db", "GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D"),
    entrypoint=("/app/server",),
    labels=(("org.opencontainers.image.source", "https://git.example/team/app"),),
)
CLEAN_STEPS = [
    Step("castoff base assemble static.toml", BASE),
    Step("USER nonroot:nonroot"),
    Step("ENV DB_PASSWORD_FILE=/run/secrets/db"),
    Step("COPY server /app/ # buildkit", (file("app/server", elf(), 0o755), *DECOYS)),
    Step("RUN --mount=type=secret,id=npm NPM_TOKEN=$(cat /run/secrets/npm) make # buildkit", (file("app/made"),)),
    Step('ENTRYPOINT ["/app/server"]'),
]


def clean_image(blobs: BlobStore) -> StoredImage:
    """Return an image without a fault."""
    return image_of(blobs, CLEAN_STEPS, CLEAN)


def _busybox() -> bytes:
    return elf() + b"BusyBox v1.36.1 (Debian 1:1.36.1-9) multi-call binary\0"


FAULTS: tuple[Change, ...] = (
    file(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    ),
    file("etc/shadow", b"root:$6$saltsalt$abcdefghij:19000:0:99999:7:::\nguest::19000:0:99999:7:::\n"),
    file("app/server", elf(183), 0o755),
    file("app/other-arch", elf(243), 0o755),
    file("app/needs-loader", elf(need=Need(b"/lib/ld-musl-x86_64.so.1")), 0o755),
    file("app/needs-library", elf(need=Need(LOADER, (b"libc.so.6", b"libgone.so.7"))), 0o755),
    file("lib64/ld-linux-x86-64.so.2", elf(kind=3, need=Need(soname=b"ld-linux-x86-64.so.2")), 0o755),
    file("lib/x86_64-linux-gnu/libc.so.6", elf(kind=3, need=Need(soname=b"libc.so.6"))),
    file("bin/busybox", _busybox(), 0o755),
    link("bin/sh", "busybox"),
    file("opt/helper", _busybox(), 0o755),
    file("sbin/apk", elf(), 0o755),
    file("usr/lib/python3.11/site-packages/pip/__main__.py", b"import pip\n"),
    file("usr/bin/perl5.36.0", elf(), 0o755),
    file("usr/bin/x86_64-linux-gnu-gcc-12", elf(), 0o755),
    file("usr/local/bin/curl", elf(), 0o755),
    file("usr/bin/sudo", elf(), 0o755),
    file("usr/bin/mount", elf(), 0o4755),
    file("usr/bin/wall", elf(), 0o2755),
    Added(
        FileEntry(
            b"usr/bin/ping", stat.S_IFREG | 0o755, size=3, data=b"abc", xattrs=((b"security.capability", CAPABILITY),)
        )
    ),
    file("app/config.ini", b"a=1\n", 0o666),
    folder("app/upload", 0o777),
    Added(FileEntry(b"dev/sda", stat.S_IFBLK | 0o600, rdev=os.makedev(8, 0))),
    file("app/tls.key", KEY),
    file("app/encrypted.key", ENCRYPTED_KEY),
    # Not at the beginning, and across the blocks that a file is read in.
    file(
        "app/data.bin", random_bytes((1 << 20) - 20 - 512, "pad") + b"\n" + GITHUB + b"\n" + random_bytes(4000, "end")
    ),
    file("app/settings.json", b'{"key": "' + AWS + b'", "hook": "' + SLACK + b'"}\n'),
    file("app/.env", b"# deployment\nexport DB_URL=postgres\n"),
    file("root/.npmrc", b"//registry.example/:_authToken=" + b"0f8e7d6c5b4a39281706" + b"\n"),
    file("root/.docker/config.json", b'{"auths": {"r.example": {"auth": "dXNlcjpwYXNz"}}}\n'),
    file("app/deploy.key", KEY.replace(b"MII", b"MIJ")),
    file("app/first.txt", b"token=" + GITHUB[::1].replace(b"16C7", b"27D8") + b"\n"),
    file("app/big.bin", random_bytes(200_000, "big")),
    file("app/large-log", random_bytes(50_000, "log")),
    file("var/cache/apt/archives/less_1.deb", b"!<arch>\n"),
    file("app/.git/HEAD", b"ref: refs/heads/main\n"),
    folder("app/.git"),
)
AFTERWARDS: tuple[Change, ...] = (
    Removed(b"app/deploy.key"),
    Removed(b"app/large-log"),
    file("app/first.txt", b"token=\n"),
    file("app/big.bin", random_bytes(200_000, "bigger")),
)
FAULTY = replace(
    CLEAN,
    user="app",
    env=("PATH=/usr/bin", "DB_PASSWORD=correct horse battery"),
    labels=(("origin", "https://builder:hunter22hunter@git.example/team/app"),),
)
ARGUMENT = "RUN |1 DEPLOY_TOKEN=f3b1c0de77aa /bin/sh -c make # buildkit"
FAULTY_STEPS = [
    Step("COPY rootfs / # buildkit", FAULTS),
    Step("ENV DB_PASSWORD=correct horse battery"),
    Step("USER app"),
    Step("LABEL origin=https://builder:hunter22hunter@git.example/team/app"),
    Step(ARGUMENT, AFTERWARDS),
    Step('ENTRYPOINT ["/app/server"]'),
]
POLICY = b'user = "65532"\nbudget = "100kB"\n[rules]\ndynamic-binary = "warning"\n'

# Each fault: what to call it, its rule, its path, its layer from 0 (None: the config), a part of its message.
PLANTED: tuple[tuple[str, str, str | None, int | None, str], ...] = (
    ("user that is not there", "unknown-user", None, None, "'app'"),
    ("user of the policy", "required-user", None, None, "65532"),
    ("second root", "extra-root", "etc/passwd", 0, "toor"),
    ("password", "login-password", "etc/shadow", 0, "root has a password"),
    ("no password", "login-password", "etc/shadow", 0, "guest needs no password"),
    ("entrypoint of another architecture", "entrypoint-architecture", "app/server", 0, "arm64"),
    ("binary of another architecture", "foreign-binary", "app/other-arch", 0, "riscv64"),
    ("loader", "missing-loader", "app/needs-loader", 0, "ld-musl"),
    ("library", "missing-library", "app/needs-library", 0, "libgone.so.7"),
    ("dynamic program", "dynamic-binary", "app/needs-library", 0, "dynamically"),
    ("shell by a link", "shell", "bin/sh", 0, "busybox"),
    ("shell under another name", "shell", "opt/helper", 0, "busybox"),
    ("package manager", "package-manager", "sbin/apk", 0, "apk"),
    ("pip as a module", "package-manager", "usr/lib/python3.11/site-packages/pip/__main__.py", 0, "pip"),
    ("interpreter", "interpreter", "usr/bin/perl5.36.0", 0, "perl"),
    ("compiler", "build-tool", "usr/bin/x86_64-linux-gnu-gcc-12", 0, "gcc"),
    ("download tool", "network-tool", "usr/local/bin/curl", 0, "curl"),
    ("sudo", "privilege-tool", "usr/bin/sudo", 0, "sudo"),
    ("setuid", "setuid", "usr/bin/mount", 0, "user 0"),
    ("setgid", "setgid", "usr/bin/wall", 0, "group 0"),
    ("capability", "file-capability", "usr/bin/ping", 0, "capabilities"),
    ("writable file", "world-writable", "app/config.ini", 0, "0666"),
    ("writable folder", "world-writable", "app/upload", 0, "sticky"),
    ("device", "device-node", "dev/sda", 0, "device"),
    ("private key", "secret-file", "app/tls.key", 0, "private key"),
    ("encrypted key", "secret-file", "app/encrypted.key", 0, "RSA PRIVATE KEY"),
    ("token across blocks", "secret-file", "app/data.bin", 0, "GitHub"),
    ("access key", "secret-file", "app/settings.json", 0, "AWS"),
    ("second secret of a file", "secret-file", "app/settings.json", 0, "Slack"),
    (".env", "credential-file", "app/.env", 0, ".env"),
    ("npm account", "credential-file", "root/.npmrc", 0, "npm"),
    ("registry account", "credential-file", "root/.docker/config.json", 0, "registry"),
    ("key that is removed later", "buried-secret", "app/deploy.key", 0, "removed by layer 2"),
    ("token that is replaced later", "buried-secret", "app/first.txt", 0, "replaced by layer 2"),
    ("variable", "secret-in-config", None, None, "DB_PASSWORD"),
    ("label", "secret-in-config", None, None, "URL"),
    ("build argument", "secret-in-history", None, 1, "DEPLOY_TOKEN"),
    ("removed file", "deleted-file", "app/large-log", 1, "50000 bytes"),
    ("replaced file", "replaced-file", "app/big.bin", 1, "200000 bytes"),
    ("downloads of apt", "package-cache", "var/cache/apt/archives", 0, "apt"),
    ("repository", "version-control", "app/.git", 0, "repository"),
    ("no certificates", "ca-bundle", None, None, "TLS"),
    ("weight", "size-budget", None, None, "100000 are allowed"),
)


def faulty_image(blobs: BlobStore) -> StoredImage:
    """Return the image with all the faults."""
    return image_of(blobs, FAULTY_STEPS, FAULTY)
