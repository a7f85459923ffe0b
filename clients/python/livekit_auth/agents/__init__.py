"""Agent workers without an API secret: a replacement for `AgentServer` of livekit-agents.

Needs the extra `agents`. Invariants: no process of the worker holds a LiveKit secret, or has anything in its
environment that looks like one; each connection to LiveKit uses its own token; the calls of a job to LiveKit are
limited to one role of the policy.
"""

from livekit_auth.agents._server import AgentServer

__all__ = ["AgentServer"]
