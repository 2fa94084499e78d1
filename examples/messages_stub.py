"""A stand-in for the Claude Messages API on loopback, to try agents that speak to it without a key or a network.

`python examples/messages_stub.py 8917` serves it on that port. It streams a few words; a prompt with "slow" gets many,
and one with "use bash" makes it ask for the agent's Bash tool once, so that the agent has to ask for permission.
"""

import asyncio
import contextlib
import json
import sys
from typing import Any

from aiohttp import web

USAGE = {"input_tokens": 3, "output_tokens": 5}


async def messages(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    prompt, answered = asked(body["messages"][-1]["content"])
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": []}
    whole |= {"stop_reason": None, "stop_sequence": None, "usage": USAGE}
    if not body.get("stream"):
        return web.json_response({**whole, "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn"})
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    with contextlib.suppress(ConnectionError):  # an agent that was told to stop hangs up
        await stream_answer(stream, body, prompt, whole, answered=answered)
    return stream


async def stream_answer(
    stream: web.StreamResponse, body: Any, prompt: str, whole: dict[str, Any], *, answered: bool
) -> None:
    await say(stream, "message_start", message=whole)
    if "use bash" in prompt and not answered and any(tool.get("name") == "Bash" for tool in body.get("tools", [])):
        stop = await call_bash(stream)
    else:
        stop = await speak(stream, 400 if "slow" in prompt else 5)
    await say(stream, "content_block_stop", index=0)
    await say(stream, "message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage=USAGE)
    await say(stream, "message_stop")


def asked(content: Any) -> tuple[str, bool]:
    """Return the text of the last message, and whether it answers a tool."""
    if isinstance(content, str):
        return content, False
    text = " ".join(block.get("text", "") for block in content if block.get("type") == "text")
    return text, any(block.get("type") == "tool_result" for block in content)


async def speak(stream: web.StreamResponse, words: int) -> str:
    await say(stream, "content_block_start", index=0, content_block={"type": "text", "text": ""})
    for i in range(words):
        await say(stream, "content_block_delta", index=0, delta={"type": "text_delta", "text": f"tok{i} "})
        await asyncio.sleep(0.05)
    return "end_turn"


async def call_bash(stream: web.StreamResponse) -> str:
    tool = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}
    await say(stream, "content_block_start", index=0, content_block=tool)
    wanted = json.dumps({"command": "touch made-by-the-agent", "description": "Make a file"})
    await say(stream, "content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": wanted})
    return "tool_use"


async def say(stream: web.StreamResponse, kind: str, **data: Any) -> None:
    await stream.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode())


async def anything_else(request: web.Request) -> web.Response:
    return web.json_response({"input_tokens": 3} if request.path.endswith("count_tokens") else {})


if __name__ == "__main__":
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/messages", messages)
    app.router.add_route("*", "/{rest:.*}", anything_else)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
