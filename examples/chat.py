"""A chat in the terminal: `python examples/chat.py [URL [SESSION]]`; an empty line leaves."""

import asyncio
import sys

from broker.client import BrokerError, Refused, connect


async def answer(session, asked):
    options = asked["options"]
    print(f"\n? {asked['title']}")
    for number, option in enumerate(options, start=1):
        print(f"  {number} {option['name']}")
    chosen = await asyncio.to_thread(input, "Your choice: ")
    if chosen in map(str, range(1, len(options) + 1)):
        await session.answer(asked["approval_id"], options[int(chosen) - 1]["option_id"])


async def talk(session):
    while text := (await asyncio.to_thread(sys.stdin.readline)).strip():
        turn = await session.send(text)
        async for record in turn:  # across reconnects, and restarts of the broker
            print(record.text, end="", flush=True)
            if record.event == "approval.requested":
                await answer(session, record.data)
        ended = await turn
        print("" if ended.completed else f"\n[{ended.outcome}: {ended.reason}]", flush=True)


async def main(url="ws://127.0.0.1:3000/ws", session_id=None):
    async with connect(url) as broker:
        session = broker.session(session_id) if session_id else await broker.create_session()
        print(f"Session {session.id}. What do you want to say?", flush=True)
        await talk(session)


try:
    asyncio.run(main(*sys.argv[1:]))
except (BrokerError, Refused) as e:
    sys.exit(str(e))
