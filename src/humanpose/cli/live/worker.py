"""Work that a window asks for and does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable

from humanpose.errors import HumanPoseError


class Worker:
    """Does one piece of work in a thread of its own whenever asked.

    However often it is asked while at work, it does it once more, so that the work must look up
    what is wanted by then.
    """

    def __init__(
        self, name: str, work: Callable[[], None], failed: Callable[[str, Exception], None]
    ) -> None:
        """Begin to wait.

        Args:
            name: of the thread.
            work: what to do.
            failed: called with the name and what `work` raised.
        """
        self._name, self._work, self._failed = name, work, failed
        self._asked = self._working = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether something asked for is not yet done."""
        return self._asked or self._working

    def ask(self) -> None:
        """Have the work done (again); returns at once."""
        with self._changed:
            self._asked = True
            self._changed.notify()

    def close(self, patience: float) -> None:
        """Wait so many seconds for the work at hand; nothing is done after it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(patience)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.wait_for(lambda: self._asked or self._closed)
                if self._closed:
                    return
                self._asked, self._working = False, True
            try:
                self._work()
            except Exception as error:  # told to the user; the next piece may go well
                self._failed(self._name, error)


def one_line(error: Exception) -> str:
    """What to tell a user of `error`."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, HumanPoseError) else f"{type(error).__name__}: {text}"
