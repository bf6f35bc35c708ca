"""``castoff registry serve`` as other programs see it: skopeo and buildah push to it and pull from it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image, random_index

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Run ``castoff registry serve`` on a free port, and yield host and port; it must end with 0."""
    command = [sys.executable, "-m", "castoff", "registry", "serve", "--dir", str(folder), "--listen", "127.0.0.1:0"]
    with (folder.parent / "log").open("ab") as log:
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith("serving "), (folder.parent / "log").read_text()
        yield line.strip().rpartition("//")[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()  # type: ignore[union-attr]
        assert process.wait() == 0


def run(*command: str, **env: str) -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(command, capture_output=True, env={**os.environ, **env}, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture
def policy(tmp_path: Path) -> list[str]:
    """Return the options that make skopeo and buildah ask no configuration of the machine."""
    path = tmp_path / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return ["--policy", str(path)]


def write_layout(store: Path) -> dict[str, str]:
    """Make a store with an image and an index, which is a layout, and return their digests by name."""
    with DirectoryStore.open_(str(store)) as opened:
        one = random_image(opened, "one:1", layers=3, size=100_000)
        several = random_index(opened, "several:1")
        opened.sync()
    return {"one:1": str(one.digest), "several:1": str(several.digest)}


def test_skopeo_copies_to_and_from_it(tmp_path: Path, policy: list[str], require: object) -> None:
    require.command("skopeo")  # type: ignore[attr-defined]
    digests = write_layout(tmp_path / "store")
    with serving(tmp_path / "registry") as netloc:
        for name, digest in digests.items():
            there, back = f"docker://{netloc}/team/{name}", tmp_path / name.partition(":")[0]
            plain = ["--dest-tls-verify=false", "--all", f"oci:{tmp_path}/store:{name}", there]
            run("skopeo", *policy, "copy", "--preserve-digests", *plain)
            inspected = json.loads(run("skopeo", *policy, "inspect", "--tls-verify=false", there))
            assert inspected["RepoTags"] == ["1"]
            raw = subprocess.run(
                ["skopeo", *policy, "inspect", "--raw", "--tls-verify=false", there], capture_output=True, check=True
            )
            (tmp_path / "raw").write_bytes(raw.stdout)
            assert run("skopeo", "manifest-digest", str(tmp_path / "raw")).strip() == digest
            run("skopeo", *policy, "copy", "--all", "--src-tls-verify=false", there, f"oci:{back}:1")
            listed = json.loads((back / "index.json").read_text())
            assert [item["digest"] for item in listed["manifests"]] == [digest]
        run("skopeo", *policy, "delete", "--tls-verify=false", f"docker://{netloc}/team/one:1")
        gone = ["skopeo", *policy, "inspect", "--tls-verify=false", f"docker://{netloc}/team/one:1"]
        assert b"manifest unknown" in subprocess.run(gone, capture_output=True, check=False).stderr.lower()
    with serving(tmp_path / "registry") as netloc:  # another process finds what was pushed
        run("skopeo", *policy, "inspect", "--tls-verify=false", f"docker://{netloc}/team/several:1")


def test_skopeo_with_a_password_and_tls(tmp_path: Path, policy: list[str], require: object) -> None:
    require.command("skopeo")  # type: ignore[attr-defined]
    require.command("openssl")  # type: ignore[attr-defined]
    write_layout(tmp_path / "store")
    subject = ["-subj", "/CN=castoff", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    run(*new, "-out", str(trusted / "ca.crt"), "-keyout", str(tmp_path / "key"))
    hashed = bcrypt.hashpw(b"Pa55-word", bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"ada:{hashed}\n")
    options = ["--tls-cert", f"{trusted}/ca.crt", "--tls-key", f"{tmp_path}/key", "--htpasswd", f"{tmp_path}/htpasswd"]
    with serving(tmp_path / "registry", *options) as netloc:
        copy = ["skopeo", *policy, "copy", "--dest-cert-dir", str(trusted)]
        place = [f"oci:{tmp_path}/store:one:1", f"docker://{netloc}/one:1"]
        refused = subprocess.run([*copy, *place], capture_output=True, check=False)
        assert refused.returncode != 0
        assert b"unauthorized" in refused.stderr.lower() or b"authentication required" in refused.stderr.lower()
        run(*copy, "--dest-creds", "ada:Pa55-word", *place)
    log = (tmp_path / "log").read_text()
    assert " 201" in log
    assert "Pa55" not in log
    assert hashed not in log


def test_buildah_pushes_to_it_and_pulls_from_it(tmp_path: Path, policy: list[str], require: object) -> None:
    require.command("buildah")  # type: ignore[attr-defined]
    require.root()  # type: ignore[attr-defined]
    digests = write_layout(tmp_path / "store")
    storage = ["--root", f"{tmp_path}/root", "--runroot", f"{tmp_path}/runroot", "--storage-driver", "vfs"]
    with serving(tmp_path / "registry") as netloc:
        from_layout = f"oci:{tmp_path}/store:one:1"
        signed = ["--signature-policy", policy[1]]
        image = run("buildah", *storage, "pull", "-q", *signed, from_layout).strip()
        run("buildah", *storage, "push", "-q", "--tls-verify=false", *signed, image, f"docker://{netloc}/b/one:1")
        again = run("buildah", *storage, "pull", "-q", "--tls-verify=false", *signed, f"docker://{netloc}/b/one:1")
        assert again.strip() == image
        inspected = json.loads(run("skopeo", *policy, "inspect", "--tls-verify=false", f"docker://{netloc}/b/one:1"))
        assert inspected["Digest"].startswith("sha256:")
    assert digests["one:1"]


def test_what_it_refuses_to_serve(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "castoff", "registry", "serve", "--listen", "127.0.0.1:0"]
    for options, code, words in (
        ([], 2, b"needs --dir DIR"),
        (["--dir", str(tmp_path / "a"), "--tls-key", "k"], 2, b"without --tls-cert"),
        (["--dir", str(tmp_path / "a"), "--htpasswd", "/nowhere/x"], 1, b"can't be read"),
        (["--dir", "/proc/version"], 6, b"can't make a registry"),
    ):
        done = subprocess.run([*command, *options], capture_output=True, check=False)
        assert (done.returncode, words in done.stderr, b"Traceback" in done.stderr) == (code, True, False), done.stderr


def test_a_second_server_of_a_folder_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path / "registry"):
        command = [sys.executable, "-m", "castoff", "registry", "serve", "--dir", str(tmp_path / "registry")]
        done = subprocess.run([*command, "--listen", "127.0.0.1:0"], capture_output=True, check=False)
    assert done.returncode == 6
    assert b"another process serves" in done.stderr
