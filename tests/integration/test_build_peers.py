"""Other tools read what castoff writes: skopeo, umoci, buildah, and the schemas of the specification."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from engine_rig import BUSYBOX, Engine, root_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

DOCKERFILE = """\
FROM busybox AS build
RUN mkdir /out && echo hello > /out/file && ln -s file /out/link && ln /out/file /out/hard && chown 7:8 /out/file
FROM busybox
WORKDIR /srv
COPY --from=build /out .
RUN rm /srv/hard && echo more >> /srv/file
ENV KEY=value
EXPOSE 8000/tcp
VOLUME /data
USER 65532
HEALTHCHECK --interval=3s CMD true
LABEL a=b
STOPSIGNAL SIGINT
ENTRYPOINT ["cat"]
CMD ["/srv/file"]
"""


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, castoff_command: list[str]) -> Iterator[Engine]:
    """Give an engine with an image ``t`` that has something of everything."""
    require = request.getfixturevalue("require")
    require.root()
    require.file(BUSYBOX, "busybox-static")
    for made in root_engine(castoff_command):
        made.make_base()
        made.good(made.context({"Dockerfile": DOCKERFILE}))
        yield made


def _run(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return done.stdout


def _manifest_digest(engine: Engine) -> str:
    path = os.path.join(engine.folder, "metadata.json")
    engine.good(engine.context({"Dockerfile": DOCKERFILE}), "--metadata-file", path)
    with open(path, encoding="utf-8") as file:
        return str(json.load(file)["containerimage.digest"])


def test_skopeo_reads_the_store_as_it_stands(engine: Engine, require: Any) -> None:
    skopeo = require.command("skopeo")
    told = json.loads(_run(skopeo, "inspect", f"oci:{engine.store}:t:latest"))
    assert told["Digest"] == _manifest_digest(engine)
    assert told["Architecture"] in ("amd64", "arm64")
    assert told["Env"][-1] == "KEY=value"
    assert told["Labels"] == {"a": "b"}


def test_an_image_goes_through_a_docker_archive_and_back(engine: Engine, require: Any) -> None:
    skopeo = require.command("skopeo")
    archive, layout = os.path.join(engine.folder, "d.tar"), os.path.join(engine.folder, "layout")
    _run(skopeo, "copy", "--insecure-policy", f"oci:{engine.store}:t:latest", f"docker-archive:{archive}:t:latest")
    _run(skopeo, "copy", "--insecure-policy", f"docker-archive:{archive}", f"oci:{layout}:t")
    before = json.loads(_run(skopeo, "inspect", "--config", f"oci:{engine.store}:t:latest"))
    after = json.loads(_run(skopeo, "inspect", "--config", f"oci:{layout}:t"))
    assert before["rootfs"] == after["rootfs"]
    assert before["config"] == after["config"]
    loaded = engine.castoff("load", "-i", archive)
    assert loaded.code == 0, loaded.err
    assert "t:latest" in loaded.out


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_archives_that_castoff_exports_are_read_by_skopeo(engine: Engine, require: Any, kind: str) -> None:
    skopeo = require.command("skopeo")
    dest = os.path.join(engine.folder, f"out.{kind}")
    context = engine.context({"Dockerfile": DOCKERFILE})
    image = engine.good(context, "-o", f"type={kind},dest={dest}").image
    told = json.loads(_run(skopeo, "inspect", "--raw", f"{kind}-archive:{dest}"))
    assert told["config"]["digest"] == image


def test_umoci_unpacks_a_layout(engine: Engine, require: Any) -> None:
    umoci = require.command("umoci")
    layout, bundle = os.path.join(engine.folder, "u"), os.path.join(engine.folder, "bundle")
    engine.good(engine.context({"Dockerfile": DOCKERFILE}), "-o", f"type=oci,tar=false,dest={layout}")
    _run(umoci, "unpack", "--image", f"{layout}:latest", bundle)
    root = os.path.join(bundle, "rootfs")
    with open(os.path.join(root, "srv/file"), encoding="ascii") as file:
        assert file.read() == "hello\nmore\n"
    status = os.lstat(os.path.join(root, "srv/file"))
    assert (status.st_uid, status.st_gid) == (7, 8)
    assert os.readlink(os.path.join(root, "srv/link")) == "file"
    assert not os.path.exists(os.path.join(root, "srv/hard"))
    with open(os.path.join(bundle, "config.json"), encoding="utf-8") as file:
        process = json.load(file)["process"]
    assert process["args"] == ["cat", "/srv/file"]
    assert process["cwd"] == "/srv"


def test_buildah_starts_from_the_store(engine: Engine, require: Any) -> None:
    buildah = require.command("buildah")
    require.command("runc")
    places = ["--root", f"{engine.folder}/b", "--runroot", f"{engine.folder}/r", "--storage-driver", "vfs"]
    policy = os.path.join(engine.folder, "policy.json")
    with open(policy, "w", encoding="ascii") as file:
        json.dump({"default": [{"type": "insecureAcceptAnything"}]}, file)
    # buildah makes a name of the path, and a name has no parts that begin with a dot.
    store = os.path.join(tempfile.mkdtemp(prefix="castoff-peer-", dir="/tmp"), "store")
    os.symlink(engine.store, store)
    name = _run(buildah, *places, "from", "--signature-policy", policy, f"oci:{store}:t:latest").strip()
    try:
        told = _run(buildah, *places, "run", "--isolation", "chroot", "--user", "0", name, "--", "cat", "/srv/file")
        assert told == "hello\nmore\n"
    finally:
        _run(buildah, *places, "rm", name)
        shutil.rmtree(os.path.dirname(store))


def test_the_schemas_of_the_specification_accept_what_is_written(engine: Engine) -> None:
    folder = os.environ.get(
        "CASTOFF_CONFORMANCE", os.path.join(os.path.dirname(__file__), "../../../shared/conformance")
    )
    path = os.path.join(folder, "oci_schema.json")
    if not os.path.exists(path):
        pytest.skip("the schemas of the image specification are absent (CASTOFF_CONFORMANCE)")
    with open(path, encoding="utf-8") as file:
        schemas: dict[str, dict[str, Any]] = json.load(file)["meta"]["schemas"]

    def check(name: str, data: bytes) -> None:
        jsonschema.validate(json.loads(data), _inlined(schemas, schemas[name], name))

    index = Path(engine.store, "index.json").read_bytes()
    check("image-index-schema.json", index)
    check("image-layout-schema.json", Path(engine.store, "oci-layout").read_bytes())
    for item in json.loads(index)["manifests"]:
        manifest = engine._blob(item["digest"])
        check("image-manifest-schema.json", manifest)
        check("config-schema.json", engine._blob(json.loads(manifest)["config"]["digest"]))


def _inlined(schemas: dict[str, dict[str, Any]], part: Any, here: str) -> Any:
    """Return a part of a schema with all references replaced by what they lead to."""
    if isinstance(part, list):
        return [_inlined(schemas, item, here) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        file, _, path = part["$ref"].partition("#")
        file = file or here
        target: Any = schemas[file]
        for step in filter(None, path.split("/")):
            target = target[step]
        return _inlined(schemas, target, file)
    return {key: _inlined(schemas, value, here) for key, value in part.items() if key not in ("id", "$schema")}
