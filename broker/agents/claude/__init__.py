"""The Claude Messages API as an agent."""
