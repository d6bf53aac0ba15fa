"""Errors of the many libraries behind fsspec, as one line."""

import contextlib
from collections.abc import Iterator

from i2l_meshnet.errors import FileError, UserError


@contextlib.contextmanager
def one_line(failure: str) -> Iterator[None]:
    """Raises FileError ("`failure`: why") for whatever goes wrong inside; UserErrors pass as they are."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every file system's library has errors of its own
        raise FileError(f"{failure}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
