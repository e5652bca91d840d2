"""One connection to a NATS server, from its beginning to its loss. It never connects again by itself.

Comes in: servers, options of nats-py, messages. Goes out: messages, answers, the reason of the loss. Nothing
that waits here outlives the connection: it ends with BusDown. nats-py buffers nothing for a connection that
is not there. https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from p2pcore import limits
from p2pcore.errors import BusDown, BusError, LimitExceeded, NobodyListens

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as NatsSubscription

logger = logging.getLogger("p2pcore.fleet.nats_bus")

OLDEST = (2, 14)
"""The first server with `allow_batched`, on which `put` rests."""

Message = tuple[str, bytes, str, dict[str, str] | None]

_NO_RESPONDERS = "503"
_NEVER_S = 1e9


class Link:
    """A connection.

    Attributes:
        lost: done when the connection is lost or closed; the result is the reason.
        num_dropped: messages that came faster than this process took them, and answers that could not leave.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = ""
        self._tokens = itertools.count()
        self._subs: set[NatsSubscription] = set()
        self._waiting: dict[str, tuple[Future[Any], Callable[[Msg, Future[Any]], None]]] = {}
        self.lost: Future[str] = asyncio.get_running_loop().create_future()
        self.reason = ""
        self.num_dropped = 0

    @classmethod
    async def open(cls, servers: list[str], options: Mapping[str, Any]) -> Link:
        """Connects to one of `servers`.

        Raises: BusDown: none answers, or they refuse us; it has the last reason.
        """
        from nats.aio.client import Client

        link = cls(Client())
        try:
            await link._connect(servers, options)
        except BaseException:
            await link.close()
            raise
        return link

    async def _connect(self, servers: list[str], options: Mapping[str, Any]) -> None:
        from nats.errors import Error

        try:
            async with asyncio.timeout(2 * len(servers) * options["connect_timeout"]):  # it may wait for ever
                await self._client.connect(
                    servers,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_loss,
                    closed_cb=self._on_loss,
                    reconnect_to_server_handler=lambda pool, info: (None, _NEVER_S),
                    max_reconnect_attempts=1,  # two attempts at each server
                    reconnect_time_wait=0,
                    pending_size=0,  # publishing never waits, and fails while there is no connection
                    flusher_queue_size=0,
                    skip_subject_validation=True,  # they were checked here
                    **options,
                )
        except (Error, OSError, TimeoutError) as error:
            tried = ", ".join(map(_host, servers))
            raise BusDown(f"no NATS server takes us ({tried}): {self.reason or _text(error)}") from error
        version = self._client.connected_server_version
        if (version.major, version.minor) < OLDEST:
            raise BusDown(f"{version!r} is too old: p2pcore needs NATS {OLDEST[0]}.{OLDEST[1]} or newer")
        self._inbox = self.new_inbox()
        await self.listen(f"{self._inbox}.>", self._on_answer)

    async def close(self) -> None:
        """Lets go of the connection. What waits ends with BusDown. Idempotent."""
        if self.lost.done():
            self._abort()
        self._lose("it was closed")
        for sub in list(self._subs):
            await self.leave(sub)
        try:
            async with asyncio.timeout(limits.BUS_CLOSE_TIMEOUT_S):
                await self._client.close()
        except Exception as error:  # whatever it is, the connection is of no use any more
            logger.debug("closing a connection to NATS failed: %s", error)
        self._abort()

    def _abort(self) -> None:
        """Closes the socket at once. nats-py waits for a server that stands still, and has no other way."""
        writer = getattr(getattr(self._client, "_transport", None), "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def look(self) -> None:
        """Notices a loss that nats-py did not tell. To be called now and then."""
        if not self._client.is_connected:
            self._lose(self.reason or "the connection is gone")

    # -- messages ------------------------------------------------------------------------------

    async def send(
        self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Sends a message. Returns when it is in the buffer; waits while that is full.

        Raises: BusDown; LimitExceeded: it is longer than the server allows.
        """
        await self.send_all([(subject, data, reply, headers)])

    async def send_all(self, messages: Iterable[Message]) -> None:
        """Sends messages, each as (subject, data, subject for answers, headers). Raises: as `send`."""
        if self.is_full:
            await self.echo()
        await self._buffer(messages)

    @property
    def is_full(self) -> bool:
        """Whether the server does not take what is sent, so that `send` waits."""
        return self._client.pending_data_size > limits.BUS_MAX_PENDING_BYTES

    async def _buffer(self, messages: Iterable[Message]) -> None:
        from nats.errors import Error, MaxPayloadError

        publish = self._client.publish
        data = b""
        try:
            for subject, data, reply, headers in messages:
                await publish(subject, data, reply, headers)  # which never waits: see pending_size
        except MaxPayloadError:
            maximum = self._client.max_payload
            raise LimitExceeded("max_payload of the NATS server", len(data), maximum) from None
        except Error as error:
            raise self._down(error) from error

    async def listen(self, subject: str, deliver: Callable[[Msg], Awaitable[None]]) -> NatsSubscription:
        """Subscribes. Whether the server knows it yet, `echo` tells. Raises: BusDown."""
        from nats.errors import Error

        try:
            sub = await self._client.subscribe(
                subject,
                cb=deliver,
                pending_msgs_limit=limits.BUS_MAX_UNREAD,
                pending_bytes_limit=limits.BUS_MAX_UNREAD_BYTES,
            )
        except Error as error:
            raise self._down(error) from error
        self._subs.add(sub)
        return sub

    async def leave(self, sub: NatsSubscription) -> None:
        """Ends a subscription of `listen`. Never raises. Idempotent."""
        from nats.errors import Error

        self._subs.discard(sub)
        with contextlib.suppress(Error):
            await sub.unsubscribe()

    def new_inbox(self) -> str:
        """A subject that nobody else uses."""
        return self._client.new_inbox()

    # -- questions and answers -----------------------------------------------------------------

    async def collect(
        self,
        what: str,
        ask: Callable[[str], Awaitable[None]],
        take: Callable[[Msg, Future[Any]], None],
        timeout_s: float,
    ) -> Any:
        """Asks something that has one answer or several.

        Args:
            what: the subject, for errors.
            ask: sends it; the subject for answers is its argument, or that and further words.
            take: gets each answer, and a future that it completes with the result.

        Raises: TimeoutError: the result is not there in time; BusDown; what `ask` raises.
        """
        token = str(next(self._tokens))
        done: Future[Any] = asyncio.get_running_loop().create_future()
        if self.lost.done():
            raise BusDown(f"NATS is away: {self.reason}")
        self._waiting[token] = done, take
        try:
            async with asyncio.timeout(timeout_s):
                await ask(f"{self._inbox}.{token}")
                return await done
        except TimeoutError:
            raise TimeoutError(f"nobody answered on {what!r} within {timeout_s:g} s") from None
        finally:
            del self._waiting[token]
            done.cancel()

    async def ask(self, subject: str, data: bytes, timeout_s: float) -> Msg:
        """One question, one answer. Raises: as `collect`; NobodyListens."""

        async def send(reply: str) -> None:
            await self.send(subject, data, reply)

        def take(msg: Msg, done: Future[Any]) -> None:
            if is_status(msg, _NO_RESPONDERS):
                done.set_exception(NobodyListens(f"nobody subscribed to {subject!r}"))
            else:
                done.set_result(msg)

        answer: Msg = await self.collect(subject, send, take, timeout_s)
        return answer

    async def jetstream(self, api: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """A question to JetStream's API. Returns: the answer, without an error.

        Raises: BusDown: no answer; BusError: JetStream says no, and why.
        """
        try:
            msg = await self.ask(f"$JS.API.{api}", json.dumps(request).encode(), limits.BUS_TIMEOUT_S)
        except (TimeoutError, NobodyListens) as error:
            raise BusDown(f"JetStream does not answer: {error}") from error
        answer: dict[str, Any] = json.loads(msg.data)
        if "error" in answer:
            raise JetStreamError(api, answer["error"])
        return answer

    async def echo(self) -> None:
        """Returns when the server has read all that was sent, and all that it had sent before is here.

        Raises: BusDown.
        """

        async def send(reply: str) -> None:
            await self._buffer([(reply, b"", "", None)])

        try:
            await self.collect("echo", send, lambda msg, done: done.set_result(None), limits.BUS_TIMEOUT_S)
        except TimeoutError as error:
            raise BusDown(f"NATS does not answer: {error}") from error

    async def _on_answer(self, msg: Msg) -> None:
        token = msg.subject[len(self._inbox) + 1 :].partition(".")[0]
        done, take = self._waiting.get(token, (None, None))
        if done is not None and take is not None and not done.done():
            try:
                take(msg, done)
            except Exception as error:  # an answer that is none
                done.set_exception(error)

    # -- the end -------------------------------------------------------------------------------

    async def _on_error(self, error: Exception) -> None:
        from nats.errors import SlowConsumerError

        if isinstance(error, SlowConsumerError):
            self.num_dropped += 1
            if self.num_dropped == 1:
                logger.warning("messages come faster than this process takes them, and are dropped")
            return
        self.reason = _text(error)
        logger.debug("NATS: %s", self.reason)

    async def _on_loss(self) -> None:
        self._lose(self.reason or "the connection is gone")

    def _down(self, error: Exception) -> BusDown:
        """The error for what nats-py refuses. It may know of a loss before it tells us, so we look."""
        self.look()
        return BusDown(f"NATS is away: {_text(error)}")

    def _lose(self, reason: str) -> None:
        if self.lost.done():
            return
        self.reason = reason
        self.lost.set_result(reason)
        for done, _ in self._waiting.values():
            if not done.done():
                done.set_exception(BusDown(f"NATS went away before the answer: {reason}"))


class JetStreamError(BusError):
    """JetStream said no.

    Attributes:
        code: its `err_code`.
    """

    def __init__(self, api: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"JetStream refuses {api}: {error.get('description', error)}")
        self.code = int(error.get("err_code", 0))


def is_status(msg: Msg, status: str) -> bool:
    """Whether `msg` has no data, but this status of the server."""
    return msg.headers is not None and msg.headers.get("Status") == status


def _host(server: str) -> str:
    """A server's address without the password that it may have."""
    return server.rpartition("//")[2].rpartition("@")[2]


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
