"""Archives that can't be read in place: pipes and compressed files, written out to a temporary file first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError
from castoff.layer.decompression import open_decompressed

if TYPE_CHECKING:
    import io
    from typing import BinaryIO

_BOMB_FREE = 1 << 30
_BOMB_RATIO = 200
_PIECE = 1 << 20


def spool(source: BinaryIO, target: io.FileIO, name: str) -> None:
    """Write an archive, uncompressed, to a file.

    Args:
        source: the archive, at its beginning; a pipe will do.
        target: where it goes.
        name: names it in messages.

    Raises:
        InvalidImageError: it is damaged, or turns into more than 200 times its size.
        OSError: the target can't be written.
    """
    counted = _Counted(source)
    stream = open_decompressed(counted)
    written = 0
    while piece := stream.read(_PIECE):
        written += len(piece)
        if written > _BOMB_FREE and written > _BOMB_RATIO * counted.count:
            raise InvalidImageError(
                f"{name} turns into more than {_BOMB_RATIO} times its size",
                hint="uncompress it yourself if you trust it",
            )
        view = memoryview(piece)
        while view:
            view = view[target.write(view) :]


class _Counted:
    """A file that counts what is read of it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.count = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        return data
