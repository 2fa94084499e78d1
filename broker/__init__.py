"""actor-broker: a message broker between people's browsers and AI agents."""

__all__ = ["__version__"]

__version__ = "0.1.0"
