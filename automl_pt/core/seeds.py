"""Random streams that depend on their purpose, not on the order of draws."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Map a purpose, such as `(study_seed, "trial", 3)`, to a number in [0, 2**63)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 1
