"""A small ACP agent whose every word is the time at which it was said, to measure the way to the browser.

The clock is the system's monotonic one, which all processes of a machine share. A prompt of `spaced 20`
makes each word a message of its own, so that none of them waits to be merged with the next (PROTOCOL
section 3a); `stream 20` makes them one message of words that come every 5 ms.
"""

import json
import sys
import time
from typing import Any

__all__ = ["main"]

_PAUSES = {"spaced": 0.02, "stream": 0.005}


def _send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def _say(session_id: str, message_id: str) -> None:
    content = {"type": "text", "text": f"t={time.monotonic_ns():020d} "}
    update = {"sessionUpdate": "agent_message_chunk", "messageId": message_id, "content": content}
    _send({"method": "session/update", "params": {"sessionId": session_id, "update": update}})


def _prompt(session_id: str, text: str) -> dict[str, str]:
    manner, count = text.split()
    for word in range(int(count)):
        time.sleep(_PAUSES[manner])
        _say(session_id, f"m{word if manner == 'spaced' else 0}")
    return {"stopReason": "end_turn"}


def _answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "agentCapabilities": {}, "authMethods": []}
    if method == "session/new":
        return {"sessionId": "clock"}
    return _prompt(params["sessionId"], params["prompt"][0]["text"])


def main() -> None:
    """Answer requests, one at a time, until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request and "method" in request:
            _send({"id": request["id"], "result": _answer(request["method"], request["params"])})


if __name__ == "__main__":
    main()
