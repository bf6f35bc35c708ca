"""What is written down of containers: records, states, names, logs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from castoff.containers.containerstore import Container, ContainerStore, NoContainerError, snapshots_in_use
from castoff.containers.record import (
    LOST_CODE,
    ContainerRecord,
    ContainerState,
    HealthPlan,
    Limits,
    RestartPolicy,
)
from castoff.containers.volumes import NoVolumeError, VolumeStore
from castoff.errors import StoreError, UsageError
from castoff.mount import Mount, MountKind
from castoff.sandbox.spec import Network, ProcessSpec, RootSpec


def make_record(container_id: str, name: str = "", **fields: object) -> ContainerRecord:
    spec = ProcessSpec(
        root=RootSpec(("/l/1", "/l/2"), "/c/fs", "/c/work", userxattr=True),
        argv=("sh", "-c", "\udcff"),
        env=("A=\udcfe",),
        groups=(1, 2),
        mounts=(Mount(MountKind.TMPFS, "/t", size=3, mode=0o700), Mount(MountKind.BIND, "/b", source="/host")),
        network=Network.PRIVATE,
        hosts=(("h", "1.1.1.1"),),
        rlimits=(("nofile", 1, 2),),
    )
    record = ContainerRecord(container_id, name, "image:1", "sha256:0", 5.5, "snap", spec, labels=(("a", "b"),))
    return replace(record, **fields)  # type: ignore[arg-type]


def make(store: ContainerStore, name: str = "") -> tuple[Container, int]:
    container, lock = store.new()
    store.register(container, make_record(container.id, name))
    return container, lock


def test_record_is_read_as_it_was_written() -> None:
    record = make_record(
        "0" * 64,
        "n",
        ports=("80:80/tcp",),
        restart=RestartPolicy("on-failure", 3),
        limits=Limits(1, 0.5, 2),
        health=HealthPlan(("true",), retries=2),
    )
    assert ContainerRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_state_is_read_as_it_was_written() -> None:
    state = ContainerState("running", 5, 6, 7.0, 1.0, ports=("1:2/tcp",), health="starting")
    assert ContainerState.from_json(json.loads(json.dumps(state.to_json()))) == state
    ended = state.ended(3)
    assert (ended.status, ended.exit_code, ended.pid, ended.ports, ended.is_live) == ("exited", 3, 0, (), False)


@pytest.mark.parametrize(
    ("text", "code", "restarts", "applies"),
    [
        ("no", 1, 0, False),
        ("", 1, 0, False),
        ("always", 0, 99, True),
        ("unless-stopped", 0, 1, True),
        ("on-failure", 0, 0, False),
        ("on-failure", 1, 999, True),
        ("on-failure:2", 1, 1, True),
        ("on-failure:2", 1, 2, False),
    ],
)
def test_restart_policies(text: str, code: int, restarts: int, applies: bool) -> None:
    policy = RestartPolicy.parse(text)
    assert policy.applies(code, restarts) is applies
    assert RestartPolicy.parse(str(policy)) == policy


@pytest.mark.parametrize("text", ["yes", "on-failure:", "on-failure:-1", "no:3", "always:1", "on-failure:x"])
def test_what_is_no_restart_policy(text: str) -> None:
    with pytest.raises(UsageError):
        RestartPolicy.parse(text)


def test_finding(tmp_path: Path) -> None:
    store = ContainerStore(str(tmp_path))
    assert list(store) == []
    first, lock = make(store, "one")
    second, _ = make(store)
    assert store.find("one").id == first.id
    assert store.find(first.id).id == first.id
    assert store.find(second.id[:20]).id == second.id
    assert second.record().name
    with pytest.raises(NoContainerError):
        store.find("two")
    with pytest.raises(NoContainerError):
        store.find("")
    assert snapshots_in_use(str(tmp_path)) == {"snap"}
    third, _ = store.new()
    with pytest.raises(UsageError, match="taken"):
        store.register(third, make_record(third.id, "one"))
    with pytest.raises(UsageError, match="no name"):
        store.register(third, make_record(third.id, "a/b"))
    first.remove()
    os.close(lock)
    with pytest.raises(NoContainerError):
        first.record()
    with pytest.raises(NoContainerError):
        first.state()
    with pytest.raises(NoContainerError):
        first.take()


def test_ids_that_begin_alike(tmp_path: Path) -> None:
    store = ContainerStore(str(tmp_path))
    ids = [make(store)[0].id for _ in range(17)]  # two of them begin with the same digit
    digit = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)
    with pytest.raises(UsageError, match="containers have ids that begin"):
        store.find(digit)


def test_monitor_that_is_gone_shows(tmp_path: Path) -> None:
    container, lock = make(ContainerStore(str(tmp_path)))
    container.write_state(ContainerState("running", pid=5))
    assert container.is_alive()
    assert container.state().status == "running"
    os.close(lock)
    assert not container.is_alive()
    state = container.state()
    assert (state.status, state.exit_code, state.pid) == ("exited", LOST_CODE, 0)
    container.write_state(ContainerState().ended(7))
    assert container.state().exit_code == 7


def test_running_container_can_not_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container, _ = make(ContainerStore(str(tmp_path)))
    container.write_state(ContainerState("running"))
    monkeypatch.setattr("castoff.containers.containerstore._LIVE_TIMEOUT", 0)
    with pytest.raises(UsageError, match="is running"):
        container.take()


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    store = ContainerStore(str(tmp_path))
    container, _ = make(store, "one")
    for text in ("", "[]", "{}", '{"spec": 1}', "\x00"):
        Path(f"{container.path}/config.json").write_text(text)
        with pytest.raises(StoreError, match="damaged"):
            container.record()
    assert store.find(container.id[:12]).id == container.id
    Path(f"{container.path}/state.json").write_text("x")
    assert container.state().exit_code == LOST_CODE


def test_sweep_takes_what_nobody_makes_any_more(tmp_path: Path) -> None:
    store = ContainerStore(str(tmp_path))
    kept, _ = make(store)
    being_made, lock = store.new()
    store.sweep()
    assert os.path.isdir(being_made.path)
    os.close(lock)
    store.sweep()
    assert not os.path.exists(being_made.path)
    assert os.path.isdir(kept.path)


def test_volumes(tmp_path: Path) -> None:
    volumes = VolumeStore(str(tmp_path))
    assert list(volumes) == []
    assert volumes.find("data") is None
    for text in ("one", "two"):
        made = tmp_path / text
        made.mkdir()
        (made / text).touch()
        path = volumes.adopt("data", str(made))
    assert os.listdir(path) == ["one"]
    assert list(volumes) == ["data"]
    store = ContainerStore(str(tmp_path))
    container, lock = store.new()
    spec = replace(make_record("0").spec, mounts=(Mount(MountKind.BIND, "/d", source=path),))
    store.register(container, make_record(container.id, "user", spec=spec))
    with pytest.raises(StoreError, match="used by user"):
        volumes.remove("data")
    container.remove()
    os.close(lock)
    volumes.remove("data")
    with pytest.raises(NoVolumeError):
        volumes.remove("data")
    with pytest.raises(UsageError):
        volumes.find("../x")
