"""The agents: one module per kind, all behind the port in `port.py`."""
