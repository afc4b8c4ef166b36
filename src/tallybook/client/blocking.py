"""The same client for programs without an event loop: one loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tallybook.client.connection import Actions, Tallybook
from tallybook.client.models import Hold

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Tallybook, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingTallybook, P], T]:
    def call(self: BlockingTallybook, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(lambda tallybook: method(tallybook, *args, **kwargs))

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class BlockingTallybook:
    """Metered actions for synchronous programs; takes and raises what `Tallybook` does. Safe in threads.

    After a fork the child makes connections of its own, so that servers that fork may build it beforehand.
    """

    def __init__(self, base_url: str, key: str, *, timeout_s: float = 5.0, deadline_s: float = 12.0) -> None:
        self._make: Callable[[], Tallybook] = lambda: Tallybook(
            base_url, key, timeout_s=timeout_s, deadline_s=deadline_s
        )
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tallybook: Tallybook | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        forked = weakref.WeakMethod(self._forked)
        # The system may have no fork at all.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: (renew := forked()) and renew())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    costs = _blocking(Tallybook.costs)
    find_or_create = _blocking(Tallybook.find_or_create)
    balances = _blocking(Tallybook.balances)
    entries = _blocking(Tallybook.entries)
    check = _blocking(Tallybook.check)
    charge = _blocking(Tallybook.charge)
    hold = _blocking(Tallybook.hold)
    capture = _blocking(Tallybook.capture)
    release = _blocking(Tallybook.release)
    refund = _blocking(Tallybook.refund)
    capture_or_give_back = _blocking(Tallybook.capture_or_give_back)
    give_back = _blocking(Tallybook.give_back)

    @contextmanager
    def paid(
        self,
        contact: str,
        actions: Actions,
        *,
        expires_in_s: int = 900,
        metadata: Mapping[str, Any] | None = None,
    ) -> Iterator[Hold]:
        """Holds before the block, captures after it, releases when it raises; as `Tallybook.paid`."""
        hold = self.hold(contact, actions, expires_in_s=expires_in_s, metadata=metadata)
        try:
            yield hold
        except BaseException:
            self.give_back(hold.id)
            raise
        self.capture_or_give_back(hold.id)

    def run(self, work: Callable[[Tallybook], Coroutine[Any, Any, T]]) -> T:
        """The result of a coroutine of the client, run on its own thread."""
        loop, tallybook = self._started()
        return asyncio.run_coroutine_threadsafe(work(tallybook), loop).result()

    def close(self) -> None:
        """Closes the connections and ends the thread; a later call starts again."""
        with self._lock:
            loop, tallybook, thread = self._loop, self._tallybook, self._thread
            self._loop = self._tallybook = self._thread = None
        if loop is None or tallybook is None or thread is None or self._pid != os.getpid():
            return
        asyncio.run_coroutine_threadsafe(tallybook.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _forked(self) -> None:
        # Whoever held the lock at the fork is not in this process to let it go.
        self._lock = threading.Lock()

    def _started(self) -> tuple[asyncio.AbstractEventLoop, Tallybook]:
        with self._lock:
            if self._loop is None or self._tallybook is None or self._pid != os.getpid():
                self._loop, self._tallybook, self._pid = asyncio.new_event_loop(), self._make(), os.getpid()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="tallybook-client", daemon=True
                )
                self._thread.start()
            return self._loop, self._tallybook
