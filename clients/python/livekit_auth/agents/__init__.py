"""Agent workers without the API secret: `AgentServer` in place of the one of livekit-agents.

Needs the extra `agents`. Invariants: no process of the worker holds a LiveKit secret, or has
anything in its environment that looks like one; every connection to LiveKit is made with a token of its own; a job's
calls to LiveKit go as far as one role of the policy and no further.
"""

from livekit_auth.agents._server import AgentServer

__all__ = ["AgentServer"]
