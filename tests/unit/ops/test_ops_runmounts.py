"""``RUN --mount``: which caches are one cache, what decides a key, what a step gets to see."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ops_rig import OpsRig, file_, folder

from castoff.errors import StepError
from castoff.mount import Mount, MountKind
from castoff.ops.runmounts import MountPlan, Prepared, mount_sources
from castoff.plan.step import (
    BindMount,
    CacheMount,
    ContextSource,
    InlineFile,
    RunStep,
    SecretMount,
    SshMount,
    StageSource,
    TmpfsMount,
)

STAGE = StageSource(0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OpsRig]:
    made = OpsRig(tmp_path)
    yield made
    made.store.close()


class Mounter:
    """Plans the mounts of one RUN step over a rig."""

    def __init__(self, rig: OpsRig) -> None:
        self.rig = rig
        self.stage = rig.filesystem(folder("data", 0o711, 3, 4), file_("data/seed", b"seed"), file_("other"))
        self.secrets: dict[str, bytes] = {}

    def _plan(self, mounts: tuple[Any, ...], **step: Any) -> MountPlan:
        run = RunStep(("true",), (), mounts=mounts, **step)
        sources = [self.stage if source == STAGE else self.rig.context() for source in mount_sources(run)]
        return MountPlan(self.rig.workspace, run, [self.rig.filesystem(), *sources])

    def key(self, *mounts: Any) -> tuple[object, ...]:
        return self._plan(mounts).key()

    def prepare(self, *mounts: Any, **step: Any) -> Prepared:
        with contextlib.ExitStack() as stack:
            return self._plan(mounts, **step).prepare(stack, self.secrets)

    def cache(self, **cache: Any) -> str:
        """Return the host path of a cache."""
        (mount,) = self.prepare(CacheMount("/c", **{"id": "/c", **cache})).mounts
        assert mount.kind is MountKind.BIND
        return mount.source


@pytest.fixture
def mounter(rig: OpsRig) -> Mounter:
    return Mounter(rig)


def test_a_cache_is_known_by_its_id_and_stays(mounter: Mounter) -> None:
    path = mounter.cache()
    Path(path, "kept").touch()
    assert mounter.cache() == path
    assert os.listdir(path) == ["kept"]
    assert mounter.cache(id="/other") != path
    assert mounter.cache(sharing="locked") == path


def test_caches_that_are_born_different_are_different(mounter: Mounter) -> None:
    given: list[dict[str, Any]] = [
        {},
        {"mode": 0o700},
        {"mode": 0o1777},
        {"source": STAGE},
        {"source": STAGE, "source_path": "/data"},
    ]
    paths = [mounter.cache(**options) for options in given]
    assert len(set(paths)) == len(paths)
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in paths[:3]] == [0o755, 0o700, 0o1777]
    assert sorted(os.listdir(paths[3])) == ["data", "other"]
    assert os.listdir(paths[4]) == ["seed"]


def test_a_cache_of_another_owner_is_another_cache(mounter: Mounter) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a folder to another user")
    paths = [mounter.cache(), mounter.cache(uid=10), mounter.cache(uid=10, gid=20), mounter.cache(uid=0)]
    assert len(set(paths)) == len(paths)
    assert [(os.stat(path).st_uid, os.stat(path).st_gid) for path in paths] == [(0, 0), (10, 0), (10, 20), (0, 0)]


@pytest.mark.parametrize("name", ["../../../etc", "/", "a/../../b", "x" * 5000, "\n", "."])
def test_no_id_leads_out_of_the_store(mounter: Mounter, name: str) -> None:
    path = mounter.cache(id=name)
    assert os.path.dirname(path) == os.path.join(mounter.rig.store.root, "cache-mounts")


def test_a_source_path_of_a_cache_stays_in_its_source(mounter: Mounter) -> None:
    assert os.listdir(mounter.cache(source=STAGE, source_path="/../../data")) == ["seed"]


def test_keys_hold_the_content_that_is_bound_and_no_content_of_secrets(mounter: Mounter) -> None:
    root = mounter.rig.path / "context"
    root.mkdir()
    (root / "used").write_text("1")
    (root / "unused").write_text("1")
    bind, secret = BindMount("/m", ContextSource(), "/used"), SecretMount("token", "/run/secrets/token")
    key = mounter.key(bind, secret)
    (root / "unused").write_text("2")
    mounter.secrets["token"] = b"changed"
    assert mounter.key(bind, secret) == key
    (root / "used").write_text("2")
    assert mounter.key(bind, secret) != key


def test_caches_have_no_content_in_keys_and_a_definition(mounter: Mounter) -> None:
    key = mounter.key(CacheMount("/c", "/c"))
    Path(mounter.cache(), "file").touch()
    assert mounter.key(CacheMount("/c", "/c")) == key
    assert mounter.key(CacheMount("/c", "/d")) != key


def test_secrets_are_files_or_variables_and_required_ones_must_be_there(mounter: Mounter) -> None:
    secret = SecretMount("token", "/run/secrets/token", env="TOKEN", mode=0o440, uid=5, gid=6)
    assert mounter.prepare(secret) == Prepared()
    with pytest.raises(StepError, match="secret token: not found") as caught:
        mounter.prepare(SecretMount("token", "/t", required=True))
    assert "--secret id=token" in (caught.value.hint or "")
    mounter.secrets["token"] = b"hush"
    prepared = mounter.prepare(secret)
    assert prepared.env == {"TOKEN": "hush"}
    assert prepared.mounts == (
        Mount(MountKind.FILE, "/run/secrets/token", readonly=True, mode=0o440, data=b"hush", uid=5, gid=6),
    )
    assert "hush" not in repr(prepared.mounts)


def test_a_required_ssh_agent_that_was_not_given_is_an_error(mounter: Mounter) -> None:
    assert mounter.prepare(SshMount()).mounts == ()
    with pytest.raises(StepError, match="no ssh agent deploy was given") as caught:
        mounter.prepare(SshMount("deploy", required=True))
    assert caught.value.hint is not None
    assert "--ssh deploy" in caught.value.hint


def test_scripts_and_memory_are_mounted_where_they_are_wanted(mounter: Mounter) -> None:
    scripts = (InlineFile("EOF", b"#!/bin/sh\n"),)
    script, memory = sorted(
        mounter.prepare(TmpfsMount("/tmp/x", 4096), scripts=scripts).mounts, key=lambda mount: mount.target
    )
    assert (script.target, script.data, script.mode) == ("/dev/pipes/EOF", b"#!/bin/sh\n", 0o755)
    assert (memory.kind, memory.size) == (MountKind.TMPFS, 4096)
