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


def fork(fifo: str, *, leave: bool = False):
    """Leave a grandchild that holds `fifo` open until it is killed, in a session of its own if it is to `leave`."""
    here, there = os.pipe()
    if os.fork() == 0:
        if leave:
            os.setsid()
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

    def scatter(self, number: int, fifo: str):
        """Leave a grandchild in a session of its own that holds `fifo`, and outlive the end of the input."""
        fork(fifo, leave=True)
        say("scattered")
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

    def note(self, number: int, file: str):
        """Say much, and touch `file` once it has all been written or the pipe is full."""
        say("x" * 1000)
        Path(file).touch()
        self.chunks(number, "20000")

    def regret(self, number: int, _: str):
        """Ask, take the question back, and go on."""
        options = [{"optionId": "yes", "name": "Do it", "kind": "allow_once"}]
        send(
            id=0, method="session/request_permission", params={"sessionId": "fake", "toolCall": {}, "options": options}
        )
        send(method="$/cancel_request", params={"requestId": 0})
        say(str(read(lambda frame: frame.get("id") == 0)["error"]["code"]))
        settle(number)

    def herd(self, number: int, fifo: str):
        """Stop a grandchild and itself; both hold `fifo`."""
        fork(fifo)
        say("stopping")
        os.killpg(0, signal.SIGSTOP)

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

    def plug_ears(self, number: int, _: str):
        os.close(0)
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


CAN = {
    "loads": {"loadSession": True},
    "forgets": {"loadSession": True},
    "hints": {"loadSession": True},
    "resumes": {"sessionCapabilities": {"resume": {}}},
    "lies": {"loadSession": True, "sessionCapabilities": {"resume": {}, "close": {}}},
}
MODES = {"currentModeId": "ask", "availableModes": [{"id": "ask", "name": "Ask"}, {"id": "code", "name": "Code"}]}


class Sessions:
    """How sessions are opened, by the mode: each method answers one request."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def new(self, number: int, params: dict[str, Any]):
        if self.mode == "login":
            send(id=number, error={"code": -32000, "message": "Authentication required"})
            signal.pause()
        if self.mode == "early":
            update("available_commands_update", availableCommands=[])
        modes = {
            "currentModeId": "ask",
            "availableModes": [{"id": "ask", "name": "Ask"}, {"id": "code", "name": "Code"}],
        }
        send(id=number, result={"sessionId": "fake"} | ({"modes": modes} if self.mode == "modes" else {}))

    def load(self, number: int, params: dict[str, Any]):
        if self.mode == "lies":
            send(id=number, error={"code": -32002, "message": "Resource not found"})
            return
        if self.mode == "loads":
            update("user_message_chunk", content={"type": "text", "text": "what was asked"})
            say("what was answered")
        if self.mode in {"loads", "hints"}:
            update("available_commands_update", availableCommands=[])
        send(id=number, result={})

    def resume(self, number: int, params: dict[str, Any]):
        lying = {"error": {"code": -32601, "message": "Method not found"}}
        send(id=number, **(lying if self.mode == "lies" else {"result": {}}))

    def set_mode(self, number: int, params: dict[str, Any]):
        known = params["modeId"] in {"ask", "code"}
        bad = {"error": {"code": -32602, "message": "No such mode"}}
        send(id=number, **({"result": {}} if known else bad))

    def set_config_option(self, number: int, params: dict[str, Any]):
        chosen = {"id": params["configId"], "name": "Model", "type": "select", "currentValue": params["value"]}
        send(id=number, result={"configOptions": [chosen]})


def main(mode: str = "plain", argument: str = ""):
    if mode == "exit":
        sys.exit(int(argument))
    hello = read()
    if mode == "mute":
        fork(argument)
        signal.pause()
    if mode == "old" and hello["params"]["protocolVersion"] > 1:
        send(id=hello["id"], error={"code": -32602, "message": "unsupported version"})
        hello = read()
    version = {"version": 3, "parrot": hello["params"]["protocolVersion"]}.get(mode, 1)
    info = {"name": "fake", "version": "1.0", "title": "Fake"}
    logins = [{"id": "key", "name": "API key"}]
    answer = {"protocolVersion": version, "agentInfo": info, "authMethods": logins}
    send(id=hello["id"], result=answer | {"agentCapabilities": CAN.get(mode, {})})
    sessions = Sessions(mode)
    while True:
        asked = read(lambda frame: "id" in frame and "method" in frame)
        method = asked["method"].removeprefix("session/")
        if method != "prompt":
            getattr(sessions, method)(asked["id"], asked["params"])
            if mode == "deaf":
                signal.pause()
            continue
        word, _, rest = asked["params"]["prompt"][0]["text"].partition(" ")
        getattr(Fake(), word)(asked["id"], rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
