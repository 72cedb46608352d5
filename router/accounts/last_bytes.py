"""The last bytes of an answer on their way out: what is owed for it is marked as owed at that moment.

It is marked just before they are handed to the connection, by a write to memory that the kernel shares. After them it
would be too late: handing them over gives others their turn, the client and other threads of this process, and a router
that is killed before it has its own again would have sent an answer that is not billed.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.asgi.billing import BILL_KEY, Bill


class LastBytes:
    """Around an endpoint, and around whatever keeps back what it sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.body":
                bill: Bill | None = scope.get(BILL_KEY)
                if bill is not None:
                    bill.sent()  # nothing happens before the bill was written, which it is before the last part
            await send(message)

        await self._app(scope, receive, send_marked)
