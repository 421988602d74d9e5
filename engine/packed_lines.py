"""Lines of an order as a reservation and its events keep them: ``product:stock:quantity``, with commas between."""

from collections.abc import Iterable


def pack(lines: Iterable[tuple[str, str, int]]) -> str:
    """(product id, stock id, quantity) of each line, as the scripts pack them."""
    return ",".join(f"{product}:{stock}:{quantity}" for product, stock, quantity in lines)


def unpack(lines: str) -> list[tuple[str, str, int]]:
    """(product id, stock id, quantity) of each line. Raises ValueError where one is not whole, and for none at all."""
    unpacked = []
    for line in lines.split(","):
        product, stock, quantity = line.split(":")
        units = int(quantity)
        if not product or not stock or units <= 0:
            raise ValueError(f"line {line!r}")
        unpacked.append((product, stock, units))
    return unpacked


def products_of(lines: str) -> tuple[str, ...]:
    """The product ids of the lines, each once, whatever else the lines say."""
    return tuple(dict.fromkeys(line.partition(":")[0] for line in lines.split(",") if line))
