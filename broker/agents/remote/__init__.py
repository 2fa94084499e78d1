"""Agents at the other end of a WebSocket, dialled or dialling in: `agents.v1.json`."""
