"""Errors that are the user's to mend: one clear line, never a traceback."""


class UserError(Exception):
    """Something given to us is wrong. The message says what, where, and what to do about it, in one line."""


class FileError(UserError):
    """A file is missing, unreadable, unwritable or not what it should be."""


class InputError(UserError):
    """An option or value is out of range or does not fit the rest."""
