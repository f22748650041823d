# SPDX-License-Identifier: Apache-2.0
"""Whole numbers in as many bytes as they need, seven bits a byte, the last of which is below 128."""

from dataclasses import dataclass

_MOST_BYTES = 10


def pack_unsigned(value: int) -> bytes:
    """Raises ValueError if the value is not a whole number from 0 to 2^64 - 1."""
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r} is not a whole number of 64 bits")
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def pack_signed(value: int) -> bytes:
    """Packs 0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return pack_unsigned(2 * value if value >= 0 else -2 * value - 1)


@dataclass
class Cursor:
    """Reads from the beginning of data on. All methods raise ValueError where the data end before."""

    data: bytes
    at: int = 0

    @property
    def left(self) -> int:
        """Returns the number of bytes that are left."""
        return len(self.data) - self.at

    def bytes(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise ValueError("it ends within a field")
        self.at += count
        return self.data[self.at - count : self.at]

    def unsigned(self) -> int:
        value = 0
        for place in range(_MOST_BYTES):
            digit = self.bytes(1)[0]
            value |= (digit & 127) << 7 * place
            if digit < 128:
                return value
        raise ValueError("a number is too long")

    def signed(self) -> int:
        value = self.unsigned()
        return value >> 1 if value % 2 == 0 else -(value >> 1) - 1

    def count(self) -> int:
        """Reads how many fields follow, of a byte at least."""
        value = self.unsigned()
        if value > self.left:
            raise ValueError("it ends within a list")
        return value
