"""The only error that the stack reports to a person."""


class Problem(Exception):
    """An error that a person must fix. Its text is one line: what was seen, what was expected, what to do."""

    def __init__(self, seen: str, *, expected: str = "", do: str = "", detail: str = "") -> None:
        parts = [seen, expected and f"expected {expected}", do]
        super().__init__(" · ".join(part for part in parts if part))
        self.server = "stack"
        """Name of the server with the problem, set by the caller of the step."""
        self.detail = detail
        """Further lines that help, such as the end of a log; printed below the text."""
