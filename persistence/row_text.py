"""Rows as text that PostgreSQL reads: for COPY, and as an array for each column."""

from collections.abc import Sequence

NULL = "\ud800"
"""Stands for NULL in a row. A lone surrogate: no text that came out of UTF-8 can be equal to it or hold it."""

Row = Sequence[str]

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_text(rows: Sequence[Row]) -> bytes:
    """The rows as COPY data. All have the same number of cells; a cell is `NULL` or text without a NUL."""
    if not rows:
        return b""
    text = "\n".join(map("\t".join, rows))
    # Rows need escaping rarely, so look at all of them at once: more signs than the joins put in mean that some do.
    tabs, newlines = len(rows) * (len(rows[0]) - 1), len(rows) - 1
    if "\\" in text or "\r" in text or text.count("\t") != tabs or text.count("\n") != newlines:
        text = "\n".join(["\t".join([cell.translate(_ESCAPES) for cell in row]) for row in rows])
    return (text.replace(NULL, "\\N") + "\n").encode()


def array_texts(rows: Sequence[Row]) -> list[str]:
    """Each column of the rows as an array literal. All have the same number of cells, as for `copy_text`."""
    return [_array_text(column) for column in zip(*rows, strict=True)]


def _array_text(cells: Sequence[str]) -> str:
    text = '","'.join(cells)
    if "\\" in text or text.count('"') != 2 * (len(cells) - 1):
        text = '","'.join([cell.replace("\\", "\\\\").replace('"', '\\"') for cell in cells])
    return f'{{"{text}"}}'.replace(f'"{NULL}"', "NULL")
