"""A worker of the profile `shout` that asks before it goes on, or tells what was said before; run with an URL."""

import json
import sys
from collections.abc import AsyncIterator

from broker.client import Turn, Worker


class Careful(Worker):
    agent = "shout"

    async def answer(self, turn: Turn) -> AsyncIterator[str]:
        if turn.text == "recall":
            yield json.dumps(turn.messages)
            return
        yield f"{turn.text}?"
        if await turn.ask("Go on?", ["yes", "no"]) == "yes":
            yield " On I go."


Careful().run(sys.argv[1])
