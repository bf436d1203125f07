"""The character for each byte in GPT-2's vocabulary and all later byte-level ones."""


def _letters() -> str:
    """Printable Latin-1 stands for itself, the n-th other byte is character 256 + n."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0x100)} - {0xAD}
    others = (byte for byte in range(256) if byte not in printable)
    shifted = {byte: 256 + n for n, byte in enumerate(others)}
    return "".join(chr(shifted.get(byte, byte)) for byte in range(256))


LETTERS = _letters()
_BYTES = {letter: byte for byte, letter in enumerate(LETTERS)}


def as_letters(data: bytes) -> str:
    """The letters that stand for bytes."""
    return "".join(map(LETTERS.__getitem__, data))


def as_bytes(letters: str) -> bytes:
    """The bytes that letters stand for.

    Raises:
        KeyError: a character stands for no byte.
    """
    return bytes(map(_BYTES.__getitem__, letters))
