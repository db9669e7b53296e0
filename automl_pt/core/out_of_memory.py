"""Which errors mean that memory ran out: a step, a validation and a whole trial each go on from them."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out, on a device or in this process; knows the types by name, so that torch stays out."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, MemoryError) or "OutOfMemoryError" in names or "can't allocate memory" in str(error)
