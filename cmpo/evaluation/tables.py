"""Tables as Markdown."""

from collections.abc import Iterable, Sequence


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A line of headings, a rule and a line for each row; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join([_format_row(head), f"|{'|'.join(rule)}|", *map(_format_row, rows)])


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
