"""Plugins: found, trusted, loaded, and called within bounds."""
