"""Hashes as Redis answers them: fields and values in turn."""


def hash_of(flat: list[bytes]) -> dict[str, str]:
    """A flat list of fields and values as a dictionary of text."""
    texts = [item.decode() for item in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
