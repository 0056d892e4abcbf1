"""Where the numbers of a parquet footer or page header stand (Thrift's compact protocol), so that each can become a lie."""

from collections.abc import Iterator
from dataclasses import dataclass

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
Path = tuple[int, ...]


@dataclass(frozen=True)
class Token:
    """One number of a structure: an integer, or the length of a text or list.

    Attributes
    ----------
    path : tuple of int
        Field numbers and places in lists that lead to it.
    start, end : int
        Its bytes.
    is_signed : bool
        Whether it is written as zigzag (integers), or plainly (lengths).
    """

    path: Path
    start: int
    end: int
    value: int
    is_signed: bool


def varint(value: int) -> bytes:
    """Write an unsigned number below 2^64."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(value: int) -> bytes:
    """Write a signed integer of 64 bits."""
    return varint((value << 1 ^ value >> 63) & (2**64 - 1))


def tokens(content: bytes, start: int = 0) -> tuple[list[Token], int]:
    """Return every number of the structure that starts at a place, and where the structure ends."""
    walker = _Walker(content, start)
    found = list(walker.structure(()))
    return found, walker.place


class _Walker:
    def __init__(self, content: bytes, place: int) -> None:
        self._content, self.place = content, place

    def _byte(self) -> int:
        self.place += 1
        return self._content[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def _token(self, path: Path, *, is_signed: bool) -> Token:
        start = self.place
        raw = self._varint()
        return Token(path, start, self.place, (raw >> 1) ^ -(raw & 1) if is_signed else raw, is_signed)

    def structure(self, path: Path) -> Iterator[Token]:
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else (lambda raw: raw >> 1 ^ -(raw & 1))(self._varint())
            yield from self._value(head & 0xF, (*path, field))

    def _value(self, kind: int, path: Path) -> Iterator[Token]:
        if kind in (_TRUE, _FALSE):
            return
        if kind == _BYTE:
            self.place += 1
        elif kind in (_I16, _I32, _I64):
            yield self._token(path, is_signed=True)
        elif kind == _DOUBLE:
            self.place += 8
        elif kind == _BINARY:
            length = self._token(path, is_signed=False)
            yield length
            self.place += length.value
        elif kind in (_LIST, _SET):
            head = self._byte()
            n = head >> 4
            if n == 15:
                size = self._token((*path, -1), is_signed=False)
                yield size
                n = size.value
            for place in range(n):
                yield from self._item(head & 0xF, (*path, place))
        elif kind == _STRUCT:
            yield from self.structure(path)
        else:
            raise ValueError(f"type {kind} isn't in parquet's own structures")

    def _item(self, kind: int, path: Path) -> Iterator[Token]:
        if kind in (_TRUE, _FALSE):
            self.place += 1
            return
        yield from self._value(kind, path)
