"""The only error that the stack reports to a person."""

import re

# The provider's own errors (airflow_provider_offsets/errors.py) have the same form. They cannot be imported here: this
# package runs before the provider is installed, and in images without it.
_FIRST_WORD = re.compile(r"[a-z]+(?=[ ,;]|: |$)")


class Problem(Exception):
    """An error that a person must fix. Its text is one line of three sentences.

    :param seen: what was found, as a clause without its full stop.
    :param expected: what was required instead, as the object of "Expected".
    :param do: what to do next, as a clause that begins with a verb.
    :param detail: further lines that help, such as the end of a log. They are printed below the text.
    """

    def __init__(self, seen: str, *, expected: str, do: str, detail: str = "") -> None:
        super().__init__(" ".join(map(_sentence, (seen, f"Expected {expected}", do))))
        self.server = "stack"
        """Name of the server with the problem, set by the caller of the step."""
        self.detail = detail


def _sentence(words: str) -> str:
    text = words[:1].upper() + words[1:] if _FIRST_WORD.match(words) else words
    return text if text.endswith((".", "…")) else f"{text}."
