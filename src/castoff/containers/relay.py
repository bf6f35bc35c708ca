"""The loop that forwards connections and datagrams from the host's network namespace into a container's.

Imports little: see `castoff.containers.forwarder`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time

_CHUNK = 1 << 16
_MAX_ACCEPTS = 64
_MAX_DATAGRAM = 65535
_UDP_IDLE = 60.0
_UDP_MAX_CLIENTS = 1024
_PAUSE = 0.1
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class _Stream:
    """One end of a forwarded connection: what was read from its peer and waits to be written here is `pending`."""

    __slots__ = ("attempt", "connecting", "finished", "mask", "peer", "pending", "port", "socket")

    def __init__(self, end: socket.socket, port: int) -> None:
        self.socket = end
        self.port = port
        self.peer: _Stream = self
        self.pending = b""
        self.finished = False  # nothing more will come from here
        self.connecting = False
        self.attempt = 0
        self.mask = 0


class Forwarder:
    """One loop over all listeners and connections."""

    def __init__(self, control: socket.socket, listeners: list[tuple[socket.socket, int]]) -> None:
        """Take the control socket and pairs of a listener and the port inside."""
        self._control = control
        self._epoll = select.epoll()
        self._listeners = {listener.fileno(): (listener, port) for listener, port in listeners}
        self._streams: dict[int, _Stream] = {}
        self._relays: dict[int, _DatagramRelay] = {}
        self._paused_until = 0.0
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._epoll.register(control.fileno(), select.EPOLLIN)
        for descriptor, (listener, port) in self._listeners.items():
            listener.setblocking(False)
            if listener.type == socket.SOCK_DGRAM:
                self._relays[descriptor] = _DatagramRelay(listener, port, self._epoll)
            self._epoll.register(descriptor, select.EPOLLIN)

    def serve(self) -> None:
        """Forward until the control socket is closed."""
        while True:
            timeout = None
            if self._paused_until:
                timeout = max(0.0, self._paused_until - time.monotonic())
            elif any(relay.clients for relay in self._relays.values()):
                timeout = _UDP_IDLE / 4
            for descriptor, events in self._epoll.poll(timeout):
                if descriptor == self._control.fileno():
                    return
                self._handle(descriptor, events)
            if self._paused_until and time.monotonic() >= self._paused_until:
                self._resume()
            for relay in self._relays.values():
                relay.forget_idle()

    def _handle(self, descriptor: int, events: int) -> None:
        stream = self._streams.get(descriptor)
        if stream is not None:
            try:
                self._advance(stream, events)
            except OSError:
                self._close(stream)
            return
        relay = self._relays.get(descriptor)
        if relay is not None:
            relay.from_outside()
        elif descriptor in self._listeners:
            self._accept(*self._listeners[descriptor])
        else:
            for relay in self._relays.values():
                relay.from_inside(descriptor)

    def _accept(self, listener: socket.socket, port: int) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                outer, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause()
                    return
                continue  # the client has gone already
            outer.setblocking(False)
            outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = _Stream(outer, port)
            try:
                self._connect(client, 0)
            except OSError:
                outer.close()

    def _connect(self, client: _Stream, attempt: int) -> None:
        family, address = _LOOPBACKS[attempt]
        inner = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected = _begin_to_connect(inner, (address, client.port))
        except OSError:
            inner.close()
            if attempt + 1 < len(_LOOPBACKS):
                self._connect(client, attempt + 1)
                return
            raise
        service = _Stream(inner, client.port)
        service.connecting = not connected
        service.attempt = attempt
        client.peer, service.peer = service, client
        self._streams[client.socket.fileno()] = client
        self._streams[inner.fileno()] = service
        self._update(client)
        self._update(service)

    def _connected(self, service: _Stream) -> bool:
        """Finish connecting; tell whether the connection stands."""
        code = service.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            service.connecting = False
            return True
        client = service.peer
        self._drop(service)
        if service.attempt + 1 < len(_LOOPBACKS):
            self._connect(client, service.attempt + 1)
        else:
            self._drop(client)
        return False

    def _advance(self, stream: _Stream, events: int) -> None:
        if stream.connecting and not self._connected(stream):
            return
        if events & select.EPOLLERR:
            code = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        if stream.pending:
            self._flush(stream)
        if events & (select.EPOLLIN | select.EPOLLHUP) and not stream.finished and not stream.peer.pending:
            self._read(stream)
        peer = stream.peer
        if stream.finished and peer.finished and not stream.pending and not peer.pending:
            self._close(stream)
            return
        self._update(stream)
        self._update(peer)

    def _read(self, stream: _Stream) -> None:
        peer = stream.peer
        try:
            size = stream.socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        if size == 0:
            stream.finished = True
            peer.socket.shutdown(socket.SHUT_WR)
            return
        try:
            sent = peer.socket.send(self._view[:size])
        except BlockingIOError:
            sent = 0
        if sent < size:
            peer.pending = bytes(self._view[sent:size])

    def _flush(self, stream: _Stream) -> None:
        try:
            sent = stream.socket.send(stream.pending)
        except BlockingIOError:
            return
        stream.pending = stream.pending[sent:]

    def _update(self, stream: _Stream) -> None:
        """Tell the kernel what to wait for. A stream that waits for nothing is not registered, lest it spin."""
        peer = stream.peer
        mask = 0
        if stream.pending or stream.connecting:
            mask |= select.EPOLLOUT
        if not (stream.finished or peer.pending or stream.connecting or peer.connecting):
            mask |= select.EPOLLIN
        if mask == stream.mask:
            return
        descriptor = stream.socket.fileno()
        if mask == 0:
            self._epoll.unregister(descriptor)
        elif stream.mask == 0:
            self._epoll.register(descriptor, mask)
        else:
            self._epoll.modify(descriptor, mask)
        stream.mask = mask

    def _drop(self, stream: _Stream) -> None:
        self._streams.pop(stream.socket.fileno(), None)
        stream.socket.close()

    def _close(self, stream: _Stream) -> None:
        self._drop(stream)
        self._drop(stream.peer)

    def _pause(self) -> None:
        """Stop accepting for a moment: descriptors have run out, and the listeners would wake the loop at once."""
        if not self._paused_until:
            for descriptor in self._listeners:
                self._epoll.unregister(descriptor)
        self._paused_until = time.monotonic() + _PAUSE

    def _resume(self) -> None:
        self._paused_until = 0.0
        for descriptor in self._listeners:
            self._epoll.register(descriptor, select.EPOLLIN)


def _begin_to_connect(end: socket.socket, address: tuple[str, int]) -> bool:
    """Connect without waiting; tell whether the connection stands already."""
    try:
        end.connect(address)
    except BlockingIOError:
        return False
    return True


class _DatagramRelay:
    """Forwards datagrams of one port; each client has a socket inside, which is forgotten when it is idle."""

    def __init__(self, listener: socket.socket, port: int, epoll: select.epoll) -> None:
        self._listener = listener
        self._port = port
        self._epoll = epoll
        self.clients: dict[tuple[str, int], tuple[socket.socket, float]] = {}
        self._addresses: dict[int, tuple[str, int]] = {}

    def from_outside(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                data, address = self._listener.recvfrom(_MAX_DATAGRAM)
            except OSError:
                return
            try:
                inner = self._inner(address)
                if inner is not None:
                    inner.send(data)
            except OSError:
                continue  # nobody listens inside; datagrams may be lost

    def _inner(self, address: tuple[str, int]) -> socket.socket | None:
        known = self.clients.get(address)
        if known is not None:
            self.clients[address] = (known[0], time.monotonic())
            return known[0]
        if len(self.clients) >= _UDP_MAX_CLIENTS:
            return None
        inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        inner.connect(("127.0.0.1", self._port))
        self.clients[address] = (inner, time.monotonic())
        self._addresses[inner.fileno()] = address
        self._epoll.register(inner.fileno(), select.EPOLLIN)
        return inner

    def from_inside(self, descriptor: int) -> None:
        address = self._addresses.get(descriptor)
        if address is None:
            return
        inner, _ = self.clients[address]
        try:
            data = inner.recv(_MAX_DATAGRAM)
            self.clients[address] = (inner, time.monotonic())
            self._listener.sendto(data, address)
        except OSError:
            return

    def forget_idle(self) -> None:
        limit = time.monotonic() - _UDP_IDLE
        for address in [address for address, (_, used) in self.clients.items() if used < limit]:
            inner, _ = self.clients.pop(address)
            del self._addresses[inner.fileno()]
            inner.close()
