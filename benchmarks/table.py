"""Tables for people."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["table"]


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: Collection[int],
    gaps: Collection[int] = (),
) -> str:
    """Lay out rows under titles.

    Args:
        titles: One for each column.
        rows: Cells; an empty one stands for a figure that is not there.
        text_columns: Indexes of columns that are aligned to the left; the others are to the right.
        gaps: Indexes of rows before which a line is left empty.
    """
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = []
    for number, cells in enumerate((titles, *rows), start=-1):
        aligned = [
            cell.ljust(width) if index in text_columns else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines += [""] * (number in gaps)
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"
