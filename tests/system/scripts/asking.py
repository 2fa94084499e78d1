"""An ACP agent with modes and options that asks two questions at once; nothing but the standard library."""

import json
import sys
from typing import Any

MODES = [{"id": "ask", "name": "Ask first"}, {"id": "act", "name": "Just act"}]
VOICES = [{"value": "low", "name": "Low"}, {"value": "loud", "name": "Loud"}]
QUESTIONS = {"door": "Open the door", "bell": "Ring the bell"}
CHOICES = [
    {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
    {"optionId": "no", "name": "No", "kind": "reject_once"},
]


def send(**frame: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **frame}) + "\n")
    sys.stdout.flush()


def update(kind: str, **fields: Any) -> None:
    send(method="session/update", params={"sessionId": "s", "update": {"sessionUpdate": kind, **fields}})


class Asking:
    """Everything it is asked is a method."""

    def __init__(self) -> None:
        self.voice = "low"
        self.prompt: Any = None
        self.answers: dict[str, str] = {}

    def initialize(self, _: Any) -> Any:
        return {"protocolVersion": 1, "agentInfo": {"name": "asking", "version": "1.0"}}

    def session_new(self, _: Any) -> Any:
        modes = {"currentModeId": "ask", "availableModes": MODES}
        return {"sessionId": "s", "modes": modes, "configOptions": self.options()}

    def options(self) -> Any:
        return [{"id": "voice", "name": "Voice", "type": "select", "currentValue": self.voice, "options": VOICES}]

    def session_set_mode(self, params: Any) -> Any:
        update("current_mode_update", currentModeId=params["modeId"])
        return {}

    def session_set_config_option(self, params: Any) -> Any:
        if params["value"] == "loud":
            raise ValueError("The neighbours are asleep")
        self.voice = params["value"]
        return {"configOptions": self.options()}

    def ask(self) -> None:
        self.answers = {}
        for key, title in QUESTIONS.items():
            params = {"sessionId": "s", "options": CHOICES, "toolCall": {"toolCallId": key, "title": title}}
            send(id=key, method="session/request_permission", params=params)

    def hear(self, key: str, outcome: Any) -> None:
        self.answers[key] = outcome.get("optionId", outcome["outcome"])
        if len(self.answers) == len(QUESTIONS):
            told = ", ".join(f"{key}: {self.answers[key]}" for key in QUESTIONS)
            update("agent_message_chunk", content={"type": "text", "text": told})
            reason = "cancelled" if "cancelled" in self.answers.values() else "end_turn"
            send(id=self.prompt, result={"stopReason": reason})

    def take(self, frame: Any) -> None:
        method = frame.get("method")
        if method is None:
            self.hear(frame["id"], frame["result"]["outcome"])
        elif method == "session/prompt":
            self.prompt = frame["id"]
            self.ask()
        elif "id" in frame:
            self.respond(frame["id"], method.replace("/", "_"), frame.get("params"))

    def respond(self, number: Any, name: str, params: Any) -> None:
        try:
            send(id=number, result=getattr(self, name)(params))
        except ValueError as e:
            send(id=number, error={"code": -32602, "message": str(e)})
        except AttributeError:
            send(id=number, error={"code": -32601, "message": "method not found"})


if __name__ == "__main__":
    agent = Asking()
    for line in sys.stdin:
        agent.take(json.loads(line))
