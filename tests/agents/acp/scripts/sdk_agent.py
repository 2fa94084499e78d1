"""An agent made with the official ACP SDK: says what it will do, asks whether it may, and does it."""

import asyncio
from typing import Any

import acp
from acp import schema


class Clerk(acp.Agent):
    def on_connect(self, conn: Any) -> None:
        self.client = conn

    async def initialize(self, protocol_version: int, **kwargs: Any) -> acp.InitializeResponse:
        return acp.InitializeResponse(
            protocol_version=protocol_version,
            agent_info=schema.Implementation(name="clerk", title="Clerk", version="2.1"),
        )

    async def new_session(self, cwd: str, **kwargs: Any) -> acp.NewSessionResponse:
        return acp.NewSessionResponse(session_id="desk-1")

    async def prompt(self, session_id: str, prompt: list[Any], **kwargs: Any) -> acp.PromptResponse:
        async def report(update: Any) -> None:
            await self.client.session_update(session_id=session_id, update=update)

        for word in ("I ", "will ", "file "):
            await report(acp.update_agent_message_text(word))
        await report(acp.update_agent_message(prompt[0]))
        await report(acp.start_tool_call("call-1", "File it", kind="edit", status="pending", raw_input={"inTray": 1}))
        answer = await self.client.request_permission(
            session_id=session_id,
            tool_call=schema.ToolCallUpdate(tool_call_id="call-1", title="File it"),
            options=[schema.PermissionOption(option_id="ok", name="File it", kind="allow_once")],
        )
        allowed = answer.outcome.outcome == "selected"
        await report(acp.update_tool_call("call-1", status="completed" if allowed else "failed"))
        return acp.PromptResponse(stop_reason="end_turn" if allowed else "refusal")

    async def cancel(self, session_id: str, **kwargs: Any) -> None:
        pass


if __name__ == "__main__":
    asyncio.run(acp.run_agent(Clerk()))
