"""What `agents` and `agent_proxy` share: tokens for worker connections, and what LiveKit asks of a token.

Imports the client and what is below it.
"""
