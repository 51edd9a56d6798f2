"""The one error that the stack reports to a person."""


class Problem(Exception):
    """Something that a person must change. Its text is one line: what was seen, what was expected, what to do."""

    def __init__(self, seen: str, *, expected: str = "", do: str = "", detail: str = "") -> None:
        parts = [seen, expected and f"expected {expected}", do]
        super().__init__(" · ".join(part for part in parts if part))
        self.server = "stack"
        """Whose problem it is; set by whoever started the step."""
        self.detail = detail
        """More lines that help, such as the end of a log; printed below the one line."""
