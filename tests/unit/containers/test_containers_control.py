"""Asking monitors that are only about to listen, about to end, or gone: each order of events is forced."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castoff.containers import containerstore, control
from castoff.containers.channel import listen_in, receive_request
from castoff.containers.containerstore import ContainerStore, NoContainerError
from castoff.containers.record import LOST_CODE, ContainerRecord, ContainerState
from castoff.sandbox.spec import ProcessSpec, RootSpec


class Watched:
    """A container whose lock this process holds as its monitor does, and what happens to it while somebody waits."""

    def __init__(self, folder: str, *, auto_remove: bool = False) -> None:
        self.store = ContainerStore(folder)
        self.container, self.lock = self.store.new()
        spec = ProcessSpec(root=RootSpec((), None, None), argv=("true",), env=(), cwd="/")
        record = ContainerRecord(self.container.id, "", "image", "sha256:0", 1.0, "", spec, auto_remove=auto_remove)
        self.store.register(self.container, record)
        self.container.write_state(ContainerState("running", pid=1))
        self.waits = 0
        self.listener = listen_in(self.container.path)
        self.listener.setblocking(True)

    def stop_listening(self) -> None:
        os.unlink(f"{self.container.path}/socket")
        self.listener.close()

    def let_go(self) -> None:
        os.close(self.lock)
        self.lock = -1

    def answer_one(self, reply: dict[str, int]) -> None:
        end, _ = self.listener.accept()
        with end:
            receive_request(end)
            end.send(json.dumps(reply).encode())

    def drop_one(self) -> None:
        """Take a request and end without an answer."""
        end, _ = self.listener.accept()
        with end:
            receive_request(end)
            self.stop_listening()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(str(tmp_path))
    yield made
    made.listener.close()
    if made.lock >= 0:
        os.close(made.lock)


@pytest.fixture
def while_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that says what happens each time that somebody has waited in vain, and at first."""

    def plan(*steps: Callable[[], object]) -> None:
        left = list(steps)

        def sleep(_: float) -> None:
            assert left, "waited once more than there was to wait for"
            left.pop(0)()

        for module in (control, containerstore):
            monkeypatch.setattr(module.time, "sleep", sleep)

    return plan


@contextlib.contextmanager
def beside(act: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread meanwhile."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def nothing() -> None:
    return


def test_the_end_is_told_by_the_monitor(watched: Watched, while_waiting: Callable[..., None]) -> None:
    while_waiting()
    with beside(lambda: watched.answer_one({"code": 3})):
        assert control.wait(watched.container) == 3


def test_a_monitor_that_does_not_listen_yet_is_waited_for(watched: Watched, while_waiting: Callable[..., None]) -> None:
    watched.stop_listening()
    watched.container.write_state(ContainerState())

    def listen() -> None:
        watched.listener = listen_in(watched.container.path)
        watched.listener.setblocking(True)
        threading.Thread(target=lambda: watched.answer_one({"code": 4}), daemon=True).start()

    while_waiting(nothing, listen)
    assert control.wait(watched.container) == 4


def test_stop_reaches_a_monitor_that_does_not_listen_yet(watched: Watched, while_waiting: Callable[..., None]) -> None:
    watched.stop_listening()
    watched.container.write_state(ContainerState())
    asked: list[dict[str, object]] = []

    def listen() -> None:
        watched.listener = listen_in(watched.container.path)
        watched.listener.setblocking(True)

    def serve() -> None:
        end, _ = watched.listener.accept()
        with end:
            asked.append(receive_request(end)[0])
            end.send(b'{"code": 0}')

    while_waiting(listen)
    end = control.begin_to_stop(watched.container, timeout=0)
    assert end is not None
    with beside(serve):
        control.finish_to_stop(watched.container, end)
    assert [request["op"] for request in asked] == ["stop"]


@pytest.mark.parametrize("verb", ["wait", "stop"])
def test_who_was_not_answered_waits_until_the_end_is_written(
    watched: Watched, while_waiting: Callable[..., None], verb: str
) -> None:
    # The monitor drops the connection; its lock is held, and the state says that the container runs.
    while_waiting(nothing, nothing, lambda: watched.container.write_state(ContainerState().ended(7)))
    with beside(watched.drop_one):
        if verb == "wait":
            assert control.wait(watched.container) == 7
        else:
            control.stop(watched.container)
    assert watched.container.state().exit_code == 7


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET])
def test_a_monitor_that_ends_between_connecting_and_asking(
    watched: Watched, while_waiting: Callable[..., None], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        watched.stop_listening()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(control, "send_request", refuse)
    while_waiting(nothing, lambda: watched.container.write_state(ContainerState().ended(5)))
    assert control.wait(watched.container) == 5
    with pytest.raises(control.NotRunningError):
        control.ask(watched.container, {"op": "kill"})


def test_a_killed_monitor_is_lost_once_its_lock_is_free(watched: Watched, while_waiting: Callable[..., None]) -> None:
    # The kernel closes what a process had open one after another: first the socket, then the lock.
    while_waiting(nothing, watched.let_go)
    with beside(watched.drop_one):
        assert control.wait(watched.container) == LOST_CODE


def test_a_container_that_is_removed_at_its_end_is_no_error_to_stop(
    watched: Watched, while_waiting: Callable[..., None]
) -> None:
    while_waiting(nothing, watched.container.remove)
    with beside(watched.drop_one):
        control.stop(watched.container)
    with pytest.raises(NoContainerError):
        watched.container.state()


def test_an_exited_container_is_not_asked(watched: Watched, while_waiting: Callable[..., None]) -> None:
    watched.stop_listening()
    watched.container.write_state(ContainerState().ended(9))
    while_waiting()
    assert control.wait(watched.container) == 9  # though its monitor, or who removes it, still holds the lock
    assert control.begin_to_stop(watched.container) is None


def test_a_container_that_another_process_removes_can_not_be_taken(
    watched: Watched, while_waiting: Callable[..., None]
) -> None:
    def remove() -> None:
        watched.container.remove()
        watched.let_go()

    watched.container.write_state(ContainerState().ended(0))
    while_waiting(nothing, remove)
    with pytest.raises(NoContainerError):
        watched.container.take()


def test_a_looker_does_not_keep_others_from_taking(
    watched: Watched, while_waiting: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.container.write_state(ContainerState().ended(0))
    monkeypatch.setattr(containerstore, "_LIVE_TIMEOUT", 0)  # how long one waits for a container that runs
    while_waiting(*[nothing] * 9, watched.let_go)
    os.close(watched.container.take())


def test_sweep_removes_what_was_to_go_with_its_end(tmp_path: Path) -> None:
    kept, gone, lives = (Watched(str(tmp_path), auto_remove=number > 0) for number in range(3))
    for each in (kept, gone):
        each.listener.close()
        each.let_go()
    control.sweep(lives.store)
    assert {each.id for each in lives.store} == {kept.container.id, lives.container.id}
    lives.listener.close()
    lives.let_go()
