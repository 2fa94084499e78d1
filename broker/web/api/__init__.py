"""The HTTP API for backends: PROTOCOL section 5, as one table of endpoints from which its description is made."""
