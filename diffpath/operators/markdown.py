"""Text of people and of files in Markdown: shown as it is, whatever is in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MEANS_SOMETHING = re.compile(r"([\\`*_\[\]<>|~&])")


def escape(text: object) -> str:
    """Text that Markdown shows as it is, in one line: no markup, no HTML, no column of a table."""
    return _MEANS_SOMETHING.sub(r"\\\1", " ".join(str(text).split()))


def as_table(rows: Iterable[tuple[str, str]]) -> str:
    """Pairs of a label and a text as a Markdown table."""
    return "\n".join(["| | |", "|---|---|", *(f"| {label} | {escape(value)} |" for label, value in rows)])


def as_list(rows: Iterable[tuple[str, str]]) -> str:
    """Pairs of a label and a text as a Markdown list."""
    return "\n".join(f"- **{label}:** {escape(value)}" for label, value in rows)
