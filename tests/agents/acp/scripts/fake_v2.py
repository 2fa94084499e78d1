"""An agent that speaks the draft of version 2 of ACP, and does what the prompt says."""

import json
import signal
import sys
from typing import Any

from fake_acp import read, send, update


def state(word: str, **more: Any) -> None:
    update("state_update", state=word, **more)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def say(words: str, message: str = "m1") -> None:
    update("agent_message_chunk", messageId=message, content=text(words))


class Fake:
    def chunks(self, count: str):
        for i in range(int(count)):
            say(f"t{i} ")
        state("idle", stopReason="end_turn", usage={"totalTokens": 4, "inputTokens": 3, "outputTokens": 1})

    def retract(self, _: str):
        say("It is four.")
        update("agent_message", messageId="m1", content=[text("It is four. "), text("No:")])
        update("agent_message", messageId="m1", content=[text("It is five.")])
        state("idle", stopReason="end_turn")

    def permission(self, _: str):
        state("requires_action")
        options = [{"optionId": "yes", "name": "Do it", "kind": "allow_once"}]
        subject = {"type": "command", "command": "rm -r /", "cwd": "/"}
        asked = {"title": "Run it?", "description": "All of it", "subject": subject, "options": options}
        send(id=0, method="session/request_permission", params={"sessionId": "fake", **asked})
        outcome = read(lambda frame: "result" in frame)["result"]["outcome"]
        state("running")
        say(json.dumps(outcome))
        state("idle", stopReason="end_turn")

    def silent(self, _: str):
        say("listening")
        read(lambda frame: frame.get("method") == "session/cancel")
        say(" to you")
        state("idle", stopReason="cancelled")

    def fail(self, _: str):
        state("idle", stopReason="error", error={"code": -32603, "message": "Out of luck"})


def option(value: str) -> dict[str, Any]:
    return {"configId": "how", "name": "Mode", "category": "mode", "type": "select", "currentValue": value}


def main(mode: str = ""):
    hello = read()
    answer = {"protocolVersion": 2, "info": {"name": "fake", "version": "2.0"}, "capabilities": {"session": {}}}
    send(id=hello["id"], result=answer)
    while True:
        asked = read(lambda frame: "id" in frame and "method" in frame)
        match asked["method"]:
            case "session/new":
                send(id=asked["id"], result={"sessionId": "fake", "configOptions": [option("ask")]})
            case "session/resume":
                state("idle", stopReason="end_turn")
                send(id=asked["id"], result={"configOptions": [option("ask")]})
            case "session/set_config_option":
                send(id=asked["id"], result={"configOptions": [option(asked["params"]["value"])]})
            case "session/prompt" if mode == "reject":
                send(id=asked["id"], error={"code": -32000, "message": "auth/login first"})
                signal.pause()
            case "session/prompt":
                state("idle")
                send(id=asked["id"], result={"messageId": "u1"})
                update("user_message", messageId="u1", content=asked["params"]["prompt"])
                state("running")
                word, _, rest = asked["params"]["prompt"][0]["text"].partition(" ")
                getattr(Fake(), word)(rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
