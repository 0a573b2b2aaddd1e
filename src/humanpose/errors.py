"""Every error that a user can cause, and the exit code each one ends with.

HumanPoseError                 70  something of ours went wrong
 +- InputError                  2  a file or option the user gave cannot be used
 |   +- FormatError             2  the file is damaged or not what it claims to be
 |   +- LimitError              2  the file asks for more than the stated limit
 +- OutputError                74  a result cannot be written
 +- DeviceError                 2  the asked device, precision or back-end is not here
 +- MissingExtraError           2  an optional dependency is not installed
 +- DivergedError              70  a training has no finite gradient any more

A message is one line, names the file, and says what to do.
"""

import importlib.util

EXIT_USAGE = 2
EXIT_SKIPPED = 3  # done, but some inputs had to be left out
EXIT_INTERNAL = 70
EXIT_IO = 74
EXIT_INTERRUPTED = 130


class HumanPoseError(Exception):
    """Root of this package's errors; `str()` is one line fit for a user."""

    exit_code = EXIT_INTERNAL


class InputError(HumanPoseError):
    """A file or option the user gave cannot be used."""

    exit_code = EXIT_USAGE


class FormatError(InputError):
    """A file is damaged or is not what its name claims."""


class LimitError(InputError):
    """A file asks for more memory, pixels or time than the stated limit."""


class OutputError(HumanPoseError):
    """A result cannot be written (exists already, read-only, disk full)."""

    exit_code = EXIT_IO


class DeviceError(HumanPoseError):
    """The asked device, precision or back-end is not available here."""

    exit_code = EXIT_USAGE


class DivergedError(HumanPoseError):
    """A training has no finite gradient any more; lower its rate, or start it otherwise."""


class MissingExtraError(HumanPoseError):
    """An optional dependency is needed; the message names the extra to install."""

    exit_code = EXIT_USAGE

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed; run: pip install 'humanpose[{extra}]'")


def require(module: str, extra: str) -> None:
    """Raise MissingExtraError if `module`, a dependency of the extra `extra`, is not installed."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(module, extra)


def printable(text: str, length: int = 80) -> str:
    """Return the beginning of a foreign text, fit for one line of a message."""
    return "".join(c if c.isprintable() else "?" for c in text[:length])
