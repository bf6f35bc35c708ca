"""What the scenarios build: trees, files, Dockerfiles and a small base image, made once and the same everywhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

MIB = 1 << 20
TREE_FILES = 20_000
TREE_BYTES = 200_000_000
BLOB_BYTES = 1024 * MIB
EPOCH = 315532800
BUSYBOX = "docker.io/library/busybox:bench"
GOLANG = "docker.io/library/golang:1.22-alpine"
STATIC = "gcr.io/distroless/static:nonroot"


@dataclass(frozen=True, slots=True)
class Base:
    """A base image: its reference, the OCI layout that holds it alone, and whether it can run a shell."""

    reference: str
    layout: str
    has_shell: bool


def once(path: str, make: Callable[[str], None]) -> str:
    """Return ``path``, made by ``make`` unless an earlier run finished it."""
    stamp = path + ".done"
    if not os.path.exists(stamp):
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        make(path)
        with open(stamp, "wb"):
            pass
    return path


def text_pool(rng: random.Random, size: int) -> bytes:
    """Return ``size`` bytes that compress like source code: words of a small vocabulary, some much commoner."""
    letters = "etaoinshrdlucmfwypvbgk_"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 11))) for _ in range(4000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]
    ends = rng.choices([" ", " ", " ", "(", ") ", ".", " = ", "\n    ", "\n"], k=size // 4)
    text = "".join(a + b for a, b in zip(rng.choices(words, weights, k=size // 4), ends, strict=True))
    return text.encode()[:size]


def make_tree(path: str) -> None:
    """Write the 20,000 files, 200 MB, in 420 folders."""
    rng = random.Random(20_000)
    pool = text_pool(rng, 8 * MIB)
    sizes = [min(rng.expovariate(1.0), 12.0) + 0.02 for _ in range(TREE_FILES)]
    scale = TREE_BYTES / sum(sizes)
    for number, size in enumerate(sizes):
        folder = os.path.join(path, f"d{number % 20:02}", f"s{number // 20 % 20:02}")
        if number < 400:
            os.makedirs(folder)
        length = int(size * scale)
        start = rng.randrange(len(pool) - length)
        with open(os.path.join(folder, f"file{number:05}.txt"), "wb") as file:
            file.write(pool[start : start + length])


def make_blob(path: str) -> None:
    """Write one file of 1 GiB, random and text by turns of 1 MiB."""
    rng = random.Random(1024)
    pool = text_pool(rng, 16 * MIB)
    with open(os.path.join(path, "blob"), "wb") as file:
        for part in range(BLOB_BYTES // MIB):
            start = rng.randrange(len(pool) - MIB)
            file.write(pool[start : start + MIB] if part % 2 else rng.randbytes(MIB))


def make_empty(path: str) -> None:
    """Leave the folder empty but for one small file: a context that is nearly nothing."""
    with open(os.path.join(path, "note"), "wb") as file:
        file.write(b"nothing to see\n")


def make_dockerfiles(path: str) -> None:
    """Write the Dockerfiles that have no folder of their own."""
    stages = "".join(f"FROM {BUSYBOX} AS s{n}\nRUN sleep 1 && echo {n} > /out{n}\n\n" for n in range(1, 9))
    copies = "".join(f"COPY --from=s{n} /out{n} /\n" for n in range(1, 9))
    texts = {
        "tree": "FROM scratch\nCOPY . /\n",
        "stages": f"{stages}FROM {BUSYBOX}\n{copies}",
        "steps": f"FROM {BUSYBOX}\n" + "".join(f"RUN echo {n} > /f{n}\n" for n in range(1, 51)),
    }
    for name, text in texts.items():
        with open(os.path.join(path, name), "w", encoding="utf-8") as file:
            file.write(text)


def make_busybox(path: str) -> None:
    """Write an OCI layout with a base image made of the system's static busybox."""
    busybox = "/bin/busybox"
    raw = _busybox_layer(busybox)
    config = {
        "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "created": "1980-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(raw).hexdigest()]},
        "history": [{"created": "1980-01-01T00:00:00Z", "created_by": "static busybox"}],
    }
    oci = "application/vnd.oci.image."
    layer = {"mediaType": oci + "layer.v1.tar+gzip", **_blob(path, gzip.compress(raw, 6, mtime=0))}
    stored = {"mediaType": oci + "config.v1+json", **_blob(path, json.dumps(config).encode())}
    manifest = {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": stored, "layers": [layer]}
    entry = {"mediaType": oci + "manifest.v1+json", **_blob(path, json.dumps(manifest).encode())}
    names = {"org.opencontainers.image.ref.name": BUSYBOX, "io.containerd.image.name": BUSYBOX}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": names}]}
    for name, value in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(os.path.join(path, name), "w", encoding="utf-8") as file:
            json.dump(value, file)


def _busybox_layer(busybox: str) -> bytes:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var"):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755, EPOCH
            archive.addfile(info)
        with open(busybox, "rb") as file:
            info = tarfile.TarInfo("bin/busybox")
            info.size, info.mode, info.mtime = os.fstat(file.fileno()).st_size, 0o755, EPOCH
            archive.addfile(info, file)
        for applet in sorted(set(listed) - {"busybox"}):
            info = tarfile.TarInfo("bin/" + applet)
            info.type, info.linkname, info.mode, info.mtime = tarfile.SYMTYPE, "busybox", 0o777, EPOCH
            archive.addfile(info)
        for name, text in (("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"), ("etc/group", b"root:x:0:\n")):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(text), 0o644, EPOCH
            archive.addfile(info, io.BytesIO(text))
    return buffer.getvalue()


def _blob(layout: str, data: bytes) -> dict[str, str | int]:
    name = hashlib.sha256(data).hexdigest()
    os.makedirs(os.path.join(layout, "blobs", "sha256"), exist_ok=True)
    with open(os.path.join(layout, "blobs", "sha256", name), "wb") as file:
        file.write(data)
    return {"digest": "sha256:" + name, "size": len(data)}
