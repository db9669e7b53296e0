"""Recognises errors that mean that memory ran out; steps, validations and trials recover from them."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on a device or in this process; compares type names to avoid importing torch."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, MemoryError) or "OutOfMemoryError" in names or "can't allocate memory" in str(error)
