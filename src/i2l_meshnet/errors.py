"""Errors that the user can fix: one clear line, never a traceback."""

MAX_LENGTH = 6000
"""Maximum length of a message. Paths on Linux have up to 4095 characters."""


def printable(text: str) -> str:
    """Escape unprintable characters (line breaks, terminal codes) so untrusted text stays on one line."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class UserError(Exception):
    """The user's input is wrong. The message says what is wrong, where, and what to do, in one line.

    Unprintable characters, which can come from files and their names, are escaped. The middle of a very long message is
    left out.
    """

    def __init__(self, message: str) -> None:
        shown = printable(message)
        super().__init__(
            shown if len(shown) <= MAX_LENGTH else f"{shown[: MAX_LENGTH // 2]} … {shown[-MAX_LENGTH // 2 :]}"
        )


class FileError(UserError):
    """A file is missing, damaged, of the wrong kind, or cannot be read or written."""


class InputError(UserError):
    """An option or value is out of range or contradicts other options.

    argument: the Python name of the option, which commands print as its flag.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class TakenError(FileError):
    """Another process uses the file or folder, or the file to write exists already."""
