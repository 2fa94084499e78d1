"""A Pydantic AI agent with a tool, over a model that needs no network, served by pydantic-acp."""

from pydantic_acp import run_acp
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

agent = Agent(TestModel(custom_output_text="The weather is fine today."))


@agent.tool_plain
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"fine in {city}"


if __name__ == "__main__":
    run_acp(agent=agent)
