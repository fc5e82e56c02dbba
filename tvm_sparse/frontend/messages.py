"""Wording shared by the front ends' error messages."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """First line of an error's message, or its class when it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or isinstance(error, KeyError | IndexError):
        # Their messages are a bare key.
        return f"{type(error).__name__} {lines[0] if lines else ''}".rstrip()
    return lines[0]
