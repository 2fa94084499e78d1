"""The aiohttp side: sockets, HTTP API, health and the page."""
