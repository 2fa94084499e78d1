"""An ACP agent that does what the prompt says, the bad things too; nothing but the standard library.

`fake_acp.py [MODE] [ARGUMENT]`: MODE is how it starts, the text of a prompt names what it does then.
"""

import json
import os
import signal
import sys


def send(**frame):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **frame}) + "\n")
    sys.stdout.flush()


def update(word, **fields):
    send(method="session/update", params={"sessionId": "fake", "update": {"sessionUpdate": word, **fields}})


def say(text, **fields):
    update("agent_message_chunk", content={"type": "text", "text": text}, **fields)


def read(wanted=lambda frame: True):
    """Return the next frame that is wanted; exit when there are no more."""
    for line in sys.stdin:
        frame = json.loads(line)
        if wanted(frame):
            return frame
    sys.exit(0)


def fork(fifo):
    """Leave a grandchild that holds `fifo` open until it is killed."""
    if os.fork() == 0:
        with open(fifo, "wb", buffering=0) as held:
            held.write(b"x")
            signal.pause()


def settle(number, reason="end_turn", **more):
    send(id=number, result={"stopReason": reason, **more})


class Fake:
    """What it does when asked, each a method: `word argument` calls `word(number, argument)`."""

    def chunks(self, number, count):
        for i in range(int(count)):
            say(f"t{i} ", messageId="m1")
        settle(number, usage={"inputTokens": 3, "totalTokens": 4})

    def tool(self, number, _):
        update("agent_thought_chunk", content={"type": "text", "text": "hm"})
        update("plan", entries=[{"content": "look", "priority": "high", "status": "pending"}])
        update("tool_call", toolCallId="c1", title="Look", kind="read", status="pending", rawInput={"filePath": "x"})
        update("tool_call_update", toolCallId="c1", status="completed", content=[])
        update("usage_update", used=10, size=100)
        update("current_mode_update", currentModeId="code")
        update("weather_update", sky={"isBlue": True})
        say("done")
        settle(number)

    def permission(self, number, _):
        options = [{"optionId": "yes", "name": "Do it", "kind": "allow_once"}]
        tool = {"toolCallId": "c1", "title": "Delete it all", "kind": "delete"}
        send(
            id=0,
            method="session/request_permission",
            params={"sessionId": "fake", "toolCall": tool, "options": options},
        )
        say(json.dumps(read(lambda frame: "result" in frame)["result"]["outcome"]))
        settle(number)

    def lend(self, number, _):
        send(id="f1", method="fs/read_text_file", params={"sessionId": "fake", "path": "/etc/hostname"})
        say(str(read(lambda frame: frame.get("id") == "f1")["error"]["code"]))
        settle(number)

    def silent(self, number, _):
        say("listening")
        read(lambda frame: frame.get("method") == "session/cancel")
        say("one more")
        settle(number, "cancelled")

    def stubborn(self, number, _):
        say("listening")
        read(lambda frame: frame.get("method") == "session/cancel")
        say("no")
        signal.pause()

    def crash(self, number, status):
        say("half an ans")
        os._exit(int(status))

    def suicide(self, number, _):
        say("half an ans")
        os.kill(os.getpid(), signal.SIGKILL)

    def fork(self, number, fifo):
        fork(fifo)
        signal.pause()

    def abandon(self, number, fifo):
        fork(fifo)
        os._exit(0)

    def escape(self, number, fifo):
        if os.fork() == 0:
            os.setsid()
            with open(fifo, "rb") as held:
                held.read()
            os._exit(0)
        os._exit(0)

    def mumble(self, number, _):
        sys.stdout.write('Loading the model...\n\n{"half": \n[1]\n\xff{}\n')
        say("clear")
        settle(number)

    def twice(self, number, _):
        settle(number)
        settle(number)

    def late(self, number, _):
        settle(number)
        say("by the way")

    def huge(self, number, size):
        say("x" * int(size))
        settle(number)

    def hang_up(self, number, _):
        os.close(1)
        signal.pause()

    def flood(self, number, _):
        while True:
            send(id="f" * 1_000_000, method="fs/read_text_file", params={})

    def fail(self, number, code):
        send(id=number, error={"code": int(code), "message": "Out of luck", "data": {"details": "really"}})

    def babble(self, number, _):
        send(id=number, error="boom")

    def where(self, number, _):
        say(json.dumps({"cwd": os.getcwd(), "env": dict(os.environ), "leads": os.getsid(0) == os.getpid()}))
        settle(number)

    def complain(self, number, _):
        sys.stderr.write("\x1b[31mthe secret plan\n" * 1000)
        sys.stderr.flush()
        say("complained")
        settle(number)


def main(mode="plain", argument=""):
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
