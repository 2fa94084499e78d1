"""The actors: who owns which state, and who may ask whom (see ARCHITECTURE.md)."""
