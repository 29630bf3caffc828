"""Foreign text for a terminal: names, reasons and answers come from elsewhere and must not steer it."""


def visible(text: str) -> str:
    """The text with tabs expanded; of what does not print, only line ends stay, the rest becomes �."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text.expandtabs(4))
