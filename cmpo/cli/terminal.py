"""Shows in a terminal what others wrote, as text: nothing in it may move the cursor or clear the screen."""

import unicodedata


def show_line(text: str) -> None:
    """Prints text on lines of its own."""
    print(make_visible(text))


def write(text: str) -> None:
    """Prints text at once, without a line's end."""
    print(make_visible(text), end="", flush=True)


def raise_interrupt(number, frame) -> None:
    """Does what Python's own handler does. asyncio replaces that one, and would then wait for the end of a line."""
    raise KeyboardInterrupt


_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they reorder what stands beside them


def make_visible(text: str) -> str:
    """Returns `text` with a visible sign for control characters, but line ends and tabs, and for halves of pairs.

    Characters that turn the direction of a line are control characters, too.
    """
    return "".join(character if character in "\n\t" else _sign_of(character) for character in text)


def _sign_of(character: str) -> str:
    kind, code = unicodedata.category(character), ord(character)
    if character in _TURNING:
        return "\ufffd"
    if kind == "Cc":
        return chr(0x2400 + code) if code < 0x20 else "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\ufffd"
    return "\ufffd" if kind == "Cs" else character
