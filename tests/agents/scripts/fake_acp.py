"""An ACP agent that does what the prompt says, the bad things too; nothing but the standard library.

`fake_acp.py [MODE] [ARGUMENT]`: MODE is how it starts, the text of a prompt names what it does then.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def send(**frame: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **frame}) + "\n")
    sys.stdout.flush()


def update(word: str, **fields: Any) -> None:
    send(method="session/update", params={"sessionId": "fake", "update": {"sessionUpdate": word, **fields}})


def say(text: str, **fields: Any) -> None:
    update("agent_message_chunk", content={"type": "text", "text": text}, **fields)


def read(wanted: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
    """Return the next frame that is wanted; exit when there are no more."""
    for line in sys.stdin:
        frame = json.loads(line)
        if wanted(frame):
            return frame
    sys.exit(0)


def fork(fifo: str):
    """Leave a grandchild that holds `fifo` open until it is killed."""
    here, there = os.pipe()
    if os.fork() == 0:
        with Path(fifo).open("wb", buffering=0) as held:
            held.write(b"x")
            os.write(there, b"x")
            signal.pause()
    os.read(here, 1)


def settle(number: int, reason: str = "end_turn", **more: Any) -> None:
    send(id=number, result={"stopReason": reason, **more})


class Fake:
    """What it does when asked, each a method: `word argument` calls `word(number, argument)`."""

    def chunks(self, number: int, count: str):
        for i in range(int(count)):
            say(f"t{i} ", messageId="m1")
        settle(number, usage={"inputTokens": 3, "totalTokens": 4})

    def tool(self, number: int, _: str):
        update("agent_thought_chunk", content={"type": "text", "text": "hm"})
        update("plan", entries=[{"content": "look", "priority": "high", "status": "pending"}])
        update("tool_call", toolCallId="c1", title="Look", kind="read", status="pending", rawInput={"filePath": "x"})
        update("tool_call_update", toolCallId="c1", status="completed", content=[])
        update("usage_update", used=10, size=100)
        update("current_mode_update", currentModeId="code")
        update("weather_update", sky={"isBlue": True})
        say("done")
        settle(number)

    def permission(self, number: int, _: str):
        options = [{"optionId": "yes", "name": "Do it", "kind": "allow_once"}]
        tool = {"toolCallId": "c1", "title": "Delete it all", "kind": "delete"}
        send(
            id=0,
            method="session/request_permission",
            params={"sessionId": "fake", "toolCall": tool, "options": options},
        )
        say(json.dumps(read(lambda frame: "result" in frame)["result"]["outcome"]))
        settle(number)

    def lend(self, number: int, _: str):
        send(id="f1", method="fs/read_text_file", params={"sessionId": "fake", "path": "/etc/hostname"})
        say(str(read(lambda frame: frame.get("id") == "f1")["error"]["code"]))
        settle(number)

    def silent(self, number: int, _: str):
        say("listening")
        read(lambda frame: frame.get("method") == "session/cancel")
        say("one more")
        settle(number, "cancelled")

    def stubborn(self, number: int, _: str):
        say("listening")
        read(lambda frame: frame.get("method") == "session/cancel")
        say("no")
        signal.pause()

    def crash(self, number: int, status: str):
        say("half an ans")
        os._exit(int(status))

    def suicide(self, number: int, _: str):
        say("half an ans")
        os.kill(os.getpid(), signal.SIGKILL)

    def fork(self, number: int, fifo: str):
        fork(fifo)
        signal.pause()

    def abandon(self, number: int, fifo: str):
        fork(fifo)
        os._exit(0)

    def escape(self, number: int, fifo: str):
        if os.fork() == 0:
            os.setsid()
            with Path(fifo).open("rb") as held:
                held.read()
            os._exit(0)
        os._exit(0)

    def mumble(self, number: int, _: str):
        sys.stdout.write('Loading the model...\n\n{"half": \n[1]\n\xff{}\n')
        say("clear")
        settle(number)

    def twice(self, number: int, _: str):
        settle(number)
        settle(number)

    def late(self, number: int, _: str):
        settle(number)
        say("by the way")

    def huge(self, number: int, size: str):
        say("x" * int(size))
        settle(number)

    def hang_up(self, number: int, _: str):
        os.close(1)
        signal.pause()

    def flood(self, number: int, _: str):
        while True:
            send(id="f" * 1_000_000, method="fs/read_text_file", params={})

    def fail(self, number: int, code: str):
        send(id=number, error={"code": int(code), "message": "Out of luck", "data": {"details": "really"}})

    def babble(self, number: int, _: str):
        send(id=number, error="boom")

    def where(self, number: int, _: str):
        say(json.dumps({"cwd": str(Path.cwd()), "env": dict(os.environ), "leads": os.getsid(0) == os.getpid()}))
        settle(number)

    def complain(self, number: int, _: str):
        sys.stderr.write("\x1b[31mthe secret plan\n" * 1000)
        sys.stderr.flush()
        say("complained")
        settle(number)


def main(mode: str = "plain", argument: str = ""):
    if mode == "exit":
        sys.exit(int(argument))
    hello = read()
    if mode == "mute":
        fork(argument)
        signal.pause()
    version = 2 if mode == "version" else 1
    info = {"name": "fake", "version": "1.0", "title": "Fake"}
    logins = [{"id": "key", "name": "API key"}]
    send(id=hello["id"], result={"protocolVersion": version, "agentInfo": info, "authMethods": logins})
    new = read()
    if mode == "login":
        send(id=new["id"], error={"code": -32000, "message": "Authentication required"})
        signal.pause()
    if mode == "early":
        update("available_commands_update", availableCommands=[])
    send(id=new["id"], result={"sessionId": "fake"})
    if mode == "deaf":
        signal.pause()
    while True:
        asked = read(lambda frame: frame.get("method") == "session/prompt")
        word, _, rest = asked["params"]["prompt"][0]["text"].partition(" ")
        getattr(Fake(), word)(asked["id"], rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
