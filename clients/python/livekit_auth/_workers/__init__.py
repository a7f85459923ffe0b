"""What `agents` and `agent_proxy` share: worker tokens, required grants, and the refusal of LiveKit secrets.

Imports the client and what is below it.
"""
