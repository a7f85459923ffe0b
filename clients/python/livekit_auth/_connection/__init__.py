"""How calls reach the server: settings, certificates, channels, retries, and why a connection fails.

Imports `_messages`, `_process` and `workload_api`; knows neither asyncio nor the clients.
"""
