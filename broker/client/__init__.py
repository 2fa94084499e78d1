"""Programs that talk to a broker: clients, and the base class of a worker, an agent that dials in.

A client connects, and is connected until it leaves::

    import asyncio

    from broker.client import connect


    async def main():
        async with connect("ws://127.0.0.1:3000/ws") as broker:
            session = await broker.create_session()
            turn = await session.send("Hello!")
            async for record in turn:
                print(record.text, end="", flush=True)
            ended = await turn
            print(ended.outcome)


    asyncio.run(main())

For the HTTP API there is `broker.client.api`. A worker inherits from `Worker`.

None of it needs the broker's own machinery, or brings it into the program that imports it. What goes on is told to the
logger `broker.client`.
"""

import logging

from broker.client.connection import Connection, connect
from broker.client.errors import (
    BrokerError,
    Busy,
    Closed,
    Conflict,
    Disconnected,
    Failed,
    Forbidden,
    Invalid,
    LogReset,
    NotFound,
    RateLimited,
    Refused,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from broker.client.inbox import Inbox
from broker.client.reader import Reader
from broker.client.rooms import Room
from broker.client.sent import NotCompleted, SentTurn
from broker.client.sessions import Session
from broker.client.values import Attached, Ended, Event, Notification, Page, Record, State
from broker.client.wire import Identity
from broker.client.worker import Answer, Feedback, Option, StopReason, ToolStatus, Turn, TurnFailed, Update, Worker

__all__ = [
    "Answer",
    "Attached",
    "BrokerError",
    "Busy",
    "Closed",
    "Conflict",
    "Connection",
    "Disconnected",
    "Ended",
    "Event",
    "Failed",
    "Feedback",
    "Forbidden",
    "Identity",
    "Inbox",
    "Invalid",
    "LogReset",
    "NotCompleted",
    "NotFound",
    "Notification",
    "Option",
    "Page",
    "RateLimited",
    "Reader",
    "Record",
    "Refused",
    "Room",
    "SentTurn",
    "Session",
    "State",
    "StopReason",
    "TimedOut",
    "TooLarge",
    "ToolStatus",
    "Turn",
    "TurnFailed",
    "Unauthenticated",
    "Unavailable",
    "Update",
    "Worker",
    "connect",
]

logging.getLogger("broker.client").addHandler(logging.NullHandler())  # a program without logging stays quiet
