"""A sidecar for workers of any language: `livekit-auth agent-proxy -- COMMAND`.

The worker believes that it holds an API key. The key is made up for this one process and opens nothing but the proxy,
which replaces the worker's token with one of the service. Invariants: it listens on loopback only; a request needs a
token signed with the made-up secret, the exact Host, and no Origin; it speaks to the project's url and follows no
redirect; what isn't listed is refused. Needs the extras `cli` and `livekit`.
"""
