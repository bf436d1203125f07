"""Opens plain files and decompresses gzip and zstd files, of any number of members, as a stream."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import zstandard

_CHUNK = 1 << 16
# zstd unpacks each chunk whole: up to 128 KiB for every four bytes, so the chunk bounds the memory.
_ZSTD_CHUNK = 1 << 12
_GZIP_START = b"\x1f\x8b"
_WINDOW = 1 << 31  # the largest possible: `zstd --long=31`


class _Member(Protocol):
    """The common interface of zlib and zstandard for one compressed stream of a file."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, /, max_length: int = ...) -> bytes: ...


CODECS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
    ".zst": lambda: zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj(),
}
"""Suffixes of compressed files, and factories of decompressors for one member."""


def open_file(file: str | Path) -> io.BufferedReader:
    """The decompressed bytes of ``file``, seekable if it is not compressed.

    Reading raises an `OSError` without an errno where the file is damaged or truncated.
    """
    path = Path(file)
    return io.BufferedReader(_Unpacked(path)) if path.suffix in CODECS else path.open("rb")


class _Unpacked(io.RawIOBase):
    """The decompressed bytes of all members in sequence.

    Trailing zeros, which tapes and block devices leave, are ignored. So is other trailing data, as
    in gunzip, unless another member follows it.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._file = path.open("rb")
        self._suffix = path.suffix
        self._size = _CHUNK if self._suffix == ".gz" else _ZSTD_CHUNK
        self._member: _Member | None = None
        self._begun = False
        self._packed = b""
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            if self._member is None and not self._begin():
                return 0
            try:
                self._unpacked = memoryview(self._unpack())
            except (zlib.error, zstandard.ZstdError) as error:
                raise OSError(str(error)) from None
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count

    def _begin(self) -> bool:
        """Find the next member; return whether there is one."""
        while not (packed := self._packed.lstrip(b"\0")):
            self._packed = self._file.read(self._size)
            if not self._packed:
                return False
        self._packed = packed
        if self._suffix == ".gz" and self._begun:
            self._packed += self._file.read(1)
            if not self._packed.startswith(_GZIP_START) and not self._follows():
                return False
        self._member = CODECS[self._suffix]()
        self._begun = True
        return True

    def _follows(self) -> bool:
        """Read the rest of the file, and raise an `OSError` if another member begins in it."""
        before = b""
        while self._packed:
            if _GZIP_START + b"\x08" in before + self._packed:
                raise OSError("the data between two of its gzip members is damaged")
            before, self._packed = self._packed[-2:], self._file.read(_CHUNK)
        return False

    def _unpack(self) -> bytes:
        assert self._member is not None
        if not self._packed:
            self._packed = self._file.read(self._size)
            if not self._packed:
                raise OSError("it is truncated")
        if self._suffix == ".gz":
            found = self._member.decompress(self._packed, _CHUNK)
            self._packed = self._member.unconsumed_tail
        else:
            found = self._member.decompress(self._packed)
            self._packed = b""
        if self._member.eof:
            self._packed = self._member.unused_data
            self._member = None
        return found
