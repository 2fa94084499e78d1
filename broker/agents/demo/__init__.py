"""The agent that shows what agents can do, without a model."""
