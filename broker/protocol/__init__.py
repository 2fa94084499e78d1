"""Bytes to messages and back, one module per wire format; no event loop here."""
