"""An ACP agent that has many sessions in one process, and does in each what its prompt says.

`hall.py [resumes|closes]`: sessions can be taken up again; and closed.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from fake_acp import read, send

CANCELLED = "cancelled"


class Hall:
    def __init__(self) -> None:
        self.count = 0
        self.prompts: dict[str, tuple[int, str]] = {}

    def say(self, session: str, text: str) -> None:
        content = {"type": "text", "text": text}
        update = {"sessionUpdate": "agent_message_chunk", "content": content}
        send(method="session/update", params={"sessionId": session, "update": update})

    def settle(self, session: str, reason: str = "end_turn") -> None:
        number, _ = self.prompts.pop(session)
        send(id=number, result={"stopReason": reason})

    def new(self, number: int, _: str, params: dict[str, Any]) -> None:
        if params["cwd"] == "/":
            send(id=number, error={"code": -32602, "message": "not here"})
            return
        if Path(params["cwd"], "slow").exists():  # takes its time there
            Path(params["cwd"], "asked").touch()
            return
        self.count += 1
        session = f"a{self.count}"
        self.say(session, f"welcome to {session}. ")
        send(id=number, result={"sessionId": session})

    def resume(self, number: int, session: str, _: dict[str, Any]) -> None:
        send(id=number, result={})

    def close(self, number: int, session: str, _: dict[str, Any]) -> None:
        if session in self.prompts:
            self.settle(session, CANCELLED)
        send(id=number, result={})

    def prompt(self, number: int, session: str, params: dict[str, Any]) -> None:
        word, _, rest = params["prompt"][0]["text"].partition(" ")
        self.prompts[session] = (number, word)
        match word:
            case "say":
                self.say(session, rest)
                self.settle(session)
            case "tell":  # says it to another session
                target, _, text = rest.partition(" ")
                self.say(target, text)
                self.settle(session)
            case "note":
                self.say(session, "noted")
                Path(rest).touch()
                self.settle(session)
            case "pid":
                self.say(session, str(os.getpid()))
                self.settle(session)
            case "faint":
                self.say(session, "I feel")
                signal.pause()
            case "die":
                os._exit(3)
            case _:
                self.say(session, "holding")

    def cancel(self, session: str) -> None:
        _, word = self.prompts.get(session, (0, ""))
        if word == "stubborn":
            self.say(session, "no")
        elif word:
            self.settle(session, CANCELLED)


def main(mode: str = "") -> None:
    hall = Hall()
    hello = read()
    can = {"sessionCapabilities": {"": {}, "resumes": {"resume": {}}, "closes": {"resume": {}, "close": {}}}[mode]}
    send(id=hello["id"], result={"protocolVersion": 1, "agentInfo": {"name": "hall"}, "agentCapabilities": can})
    while True:
        frame = read(lambda frame: "method" in frame)
        word = frame["method"].removeprefix("session/")
        session = frame["params"].get("sessionId", "")
        if word == "cancel":
            hall.cancel(session)
        else:
            known = getattr(hall, word, None)
            if known is None:
                send(id=frame["id"], error={"code": -32601, "message": "Method not found"})
            else:
                known(frame["id"], session, frame["params"])


if __name__ == "__main__":
    main(*sys.argv[1:])
