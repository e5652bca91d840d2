"""HTTP/1.1 heads over a mailbox: one request, one answer, then another protocol or the end.

Comes in: a mailbox on top of a connection. Goes out: requests and answers as events of h11, which implements
the protocol. If a head ends HTTP, the bytes after it go back to the mailbox. Heads are bounded, bodies are
never read. Specification: RFC 9112.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from p2pcore.errors import ConnectionClosed, LimitExceeded, LocalProtocolError, P2PError, RemoteProtocolError
from p2pcore.limits import MAX_HTTP_HEAD_BYTES, MAX_HTTP_HEADERS, MAX_HTTP_INTERIM_ANSWERS

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Mailbox

Headers = Sequence[tuple[str, str]]
"""Names and values, in order; names may repeat."""

_OURS = {"connection", "content-length", "transfer-encoding"}
_BODILESS = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


class HttpRefused(RemoteProtocolError):
    """A peer's head is malformed or too large. `status` is the answer to send."""

    def __init__(self, message: str, status: int, headers: Headers = ()) -> None:
        super().__init__(message, status)
        self.headers = headers

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.code


class HttpEnd:
    """One end of a connection that speaks HTTP for one exchange.

    Args:
        mailbox: used to read and write; is_client: we send the request.
    """

    __slots__ = ("_h11", "_mailbox", "_method", "_room")

    def __init__(self, mailbox: Mailbox, is_client: bool) -> None:
        import h11  # here: only connections that need it load it

        self._mailbox = mailbox
        self._room = MAX_HTTP_HEAD_BYTES
        self._method = b""
        self._h11: Any = h11.Connection(h11.CLIENT if is_client else h11.SERVER, MAX_HTTP_HEAD_BYTES)

    # -- the server's side ---------------------------------------------------------------------

    async def read_request(self) -> Any:
        """The peer's request, an h11.Request.

        Raises:
            HttpRefused: it is not a request, or too large; ConnectionClosed: the peer left.
        """
        request = await self._read_head()
        self._method = request.method
        if request.http_version != b"1.1" and request.http_version != b"1.0":
            raise HttpRefused(f"HTTP version {_text(request.http_version)}", HTTPStatus.BAD_REQUEST)
        return request

    def has_body(self) -> bool:
        """Whether the request that was read announced a body."""
        import h11

        return not isinstance(self._h11.next_event(), h11.EndOfMessage)

    def switch(self, headers: Headers) -> None:
        """Answers 101. What follows is not HTTP; bytes of it that have come go back to the mailbox."""
        import h11

        answer = h11.InformationalResponse(status_code=101, headers=list(headers), reason=_reason(101))
        self._mailbox.write(self._h11.send(answer))
        self._give_back()

    async def answer(self, status: int, headers: Headers = (), body: bytes = b"") -> None:
        """Answers and closes the connection; returns when it has ended.

        Raises:
            LocalProtocolError: status or headers are not valid HTTP; nothing has been sent.
        """
        import h11

        kept = [(name, value) for name, value in headers if name.lower() not in _OURS]
        kept.append(("Connection", "close"))
        if status not in _BODILESS:
            kept.append(("Content-Length", str(len(body))))
        try:
            head = h11.Response(status_code=status, headers=kept, reason=_reason(status))
        except (h11.LocalProtocolError, TypeError, ValueError) as error:
            raise LocalProtocolError(f"not a valid HTTP answer: {error}") from error
        raw = self._h11.send(head)
        if self._method != b"HEAD" and status not in _BODILESS:
            raw += body
        self._mailbox.write(raw)
        self._mailbox.close()
        try:
            await self._mailbox.read_exactly(1)
        except (P2PError, OSError):
            pass  # the expected end

    # -- the client's side ---------------------------------------------------------------------

    async def ask(self, method: str, target: str, headers: Headers) -> Any:
        """Sends a request without a body.

        Returns: an h11.Response, or an h11.InformationalResponse with status 101. If the answer ends HTTP,
            the bytes after it are in the mailbox.
        Raises: HttpRefused: the answer is malformed or too large; LimitExceeded: too many interim answers;
            ConnectionClosed: the peer left.
        """
        import h11

        head = self._h11.send(h11.Request(method=method, target=target, headers=list(headers)))
        self._mailbox.write(head + (self._h11.send(h11.EndOfMessage()) or b""))
        for _ in range(1 + MAX_HTTP_INTERIM_ANSWERS):
            answer = await self._read_head()
            if answer.status_code == 101 or answer.status_code >= 200:
                if self._h11.their_state is h11.SWITCHED_PROTOCOL:
                    self._give_back()
                return answer
        raise LimitExceeded("interim HTTP answers", 1 + MAX_HTTP_INTERIM_ANSWERS, MAX_HTTP_INTERIM_ANSWERS)

    # -- both ----------------------------------------------------------------------------------

    async def _read_head(self) -> Any:
        import h11

        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                await self._receive()
        except h11.RemoteProtocolError as error:
            text, status = f"malformed HTTP: {error}", error.error_status_hint
            raise HttpRefused(text, status) from error.with_traceback(None)  # h11's frames refer to the error
        if not isinstance(event, (h11.Request, h11.InformationalResponse, h11.Response)):
            raise HttpRefused(f"expected an HTTP head, not {type(event).__name__}", HTTPStatus.BAD_REQUEST)
        if len(event.headers) > MAX_HTTP_HEADERS:
            raise HttpRefused(
                f"{len(event.headers)} HTTP headers, over {MAX_HTTP_HEADERS}",
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            )
        self._room = MAX_HTTP_HEAD_BYTES - len(self._h11.trailing_data[0])
        return event

    async def _receive(self) -> None:
        """Gives received bytes to h11, never more than fit the bound of a head."""
        if self._room <= 0:
            raise HttpRefused(
                f"an HTTP head over {MAX_HTTP_HEAD_BYTES} bytes", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            )
        data = await self._mailbox.read(self._room)
        if not data:
            raise ConnectionClosed("the peer ended the connection before an HTTP head was whole")
        self._room -= len(data)
        self._h11.receive_data(data)

    def _give_back(self) -> None:
        trailing: bytes = self._h11.trailing_data[0]
        if trailing:
            self._mailbox.unread(trailing)


def tokens(headers: Any, name: bytes) -> list[str]:
    """The comma-separated words of every header called `name` (lower case), in lower case."""
    values = [value.decode("latin-1") for key, value in headers if key == name]
    return [word.strip().lower() for value in values for word in value.split(",") if word.strip()]


def only(headers: Any, name: bytes) -> str | None:
    """The value of the header called `name`; None if there is none or more than one."""
    values = [value.decode("latin-1") for key, value in headers if key == name]
    return values[0] if len(values) == 1 else None


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a status that is not standard
        return ""


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")
