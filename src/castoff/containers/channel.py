"""How castoff talks with the monitor of a container: datagrams on a socket in the container's folder.

A connection begins with a request, a JSON object with ``op``; descriptors may come with it. What follows depends on it:

- ``stop`` (``signal``, ``timeout``), ``kill`` (``signal``), ``wait``, ``state``: one reply, a JSON object;
- ``exec`` (``argv``, ``env``, ``cwd``, ``user``, ``terminal``, with standard input, output and error as descriptors): a
  reply when the process has ended, with ``code``; until then the client may send frames of signals;
- ``attach`` (``rows``, ``columns``): frames in both directions.

A frame is one byte that says what it is, and its data: from the client ``i`` (input), ``c`` (no more input), ``r``
(size of the terminal, ``ROWS COLUMNS``), ``s`` (a signal's number); from the monitor ``o`` and ``e`` (output), ``x``
(the end: a JSON object with ``code``). A reply with ``error`` says in one sentence why there is no other.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

MAX_MESSAGE = 1 << 17
CHUNK = 1 << 15
"""How much input or output there is at most in one frame, in bytes."""
_NAME = "socket"
_BACKLOG = 64
_MAX_DESCRIPTORS = 3


def listen_in(folder: str) -> socket.socket:
    """Return the listening socket of a container's folder, which takes the place of an old one.

    Raises:
        OSError: it can't be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = f"{folder}/{_NAME}"
    if os.path.lexists(path):
        os.unlink(path)
    mask = os.umask(0o177)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A socket's path has 107 bytes at most, and a store's may be longer.
        listener.bind(f"/proc/self/fd/{handle}/{_NAME}")
    finally:
        os.close(handle)
        os.umask(mask)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def connect(folder: str) -> socket.socket:
    """Connect with the monitor of the container in a folder.

    Raises:
        OSError: nobody listens there.
    """
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end.connect(f"/proc/self/fd/{handle}/{_NAME}")
    except BaseException:
        end.close()
        raise
    finally:
        os.close(handle)
    return end


def send_request(end: socket.socket, request: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send a request.

    Raises:
        OSError: the other side is gone, or the request is too long (EMSGSIZE).
    """
    socket.send_fds(end, [json.dumps(request).encode()], descriptors)


def receive_message(end: socket.socket) -> bytes:
    """Take one message; nothing where the other side has gone.

    Raises:
        BlockingIOError: there is none yet, and the socket does not block.
    """
    for _ in range(2):
        try:
            return end.recv(MAX_MESSAGE)
        except ConnectionResetError:
            # The other side has gone without reading all that it was sent; what it sent itself is still there.
            continue
        except BlockingIOError:
            raise
        except OSError:
            break
    return b""


def receive_request(end: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Take a request and its descriptors, which are the caller's to close; an empty one where the client has gone.

    Raises:
        OSError: receiving failed.
        ValueError: it is no request; its descriptors are closed.
    """
    data, descriptors, _, _ = socket.recv_fds(end, MAX_MESSAGE, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    try:
        request = json.loads(data) if data else {}
    except ValueError:
        request = None
    if isinstance(request, dict):
        return request, descriptors
    for descriptor in descriptors:
        os.close(descriptor)
    raise ValueError("a request is a JSON object")
