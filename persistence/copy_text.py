"""Rows as PostgreSQL's COPY reads them in text format."""

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
