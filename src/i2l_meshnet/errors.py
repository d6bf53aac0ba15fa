"""Errors that are the user's to mend: one clear line, never a traceback."""

LONGEST = 6000
"""Characters of a message; Linux' paths have up to 4095."""


def printable(text: str) -> str:
    """A text of strangers in one line: characters that do not print (line breaks, terminal codes) are spelled out."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class UserError(Exception):
    """Something given to us is wrong. The message says what, where, and what to do about it, in one line.

    What files and their names bring into it is held to that: characters that do not print (line breaks, a terminal's
    control codes) are spelled out, and the middle of a very long message is left out.
    """

    def __init__(self, message: str) -> None:
        shown = printable(message)
        super().__init__(shown if len(shown) <= LONGEST else f"{shown[: LONGEST // 2]} … {shown[-LONGEST // 2 :]}")


class FileError(UserError):
    """A file is missing, unreadable, unwritable or not what it should be."""


class InputError(UserError):
    """An option or value is out of range or does not fit the rest.

    argument: the Python name of the option, which commands print as its flag.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class TakenError(FileError):
    """Another process is at work there, or what is to be written is there already."""
