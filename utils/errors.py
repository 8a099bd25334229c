"""The errors that end a script with one line on standard error and exit status 2."""


class BadInput(Exception):
    """What the user gave cannot be used: the message names it, what is wrong and what to do, in one line.

    Functions that only pass it on from functions that they call do not mention it.
    """


class FolderUnavailable(BadInput):
    """Another run is using a folder for results, or files cannot be written to it."""


def one_line(error: Exception) -> str:
    """An error's first line, or its kind where it says nothing; at most 200 characters, all printable."""
    text = str(error).splitlines()[0] if str(error).strip() else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:200])
