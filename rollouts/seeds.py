"""One way to derive randomness: fold integers and names into a seed, so that scheduling and latency change nothing."""

import hashlib


def fold(seed: int, *parts: int | str) -> int:
    """Derives a seed in [0, 2**31) from `seed` and the place it is used at, e.g. ``fold(seed, "user", step, turn)``.

    Stable over processes, platforms and Python versions (unlike `hash`).
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
