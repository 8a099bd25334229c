"""The errors that end a script with one line on standard error and exit status 2."""


class BadInput(Exception):
    """Input that cannot be used; the message is one line: the option or file, what is wrong, what to do.

    Docstrings mention it where it is raised, not where it only passes through.
    """


class FolderUnavailable(BadInput):
    """A folder for results is in use by another run or cannot be written to."""


def one_line(error: Exception) -> str:
    """The first line of an error's message, or the error's type; at most 200 characters, all printable."""
    text = str(error).splitlines()[0] if str(error).strip() else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:200])
