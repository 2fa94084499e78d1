"""`chat.v1.json`: conversations with an agent, their variables and where they stand (seed 004, PROTOCOL section 6)."""

from broker.protocol.chat.dialect import ChatDialect, ChatFormat

__all__ = ["ChatDialect", "ChatFormat"]
