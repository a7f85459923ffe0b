"""A sidecar for workers of any language: `livekit-auth agent-proxy -- COMMAND`.

The worker gets an API key that is made up for this one process and is valid only at the proxy, which replaces the
worker's token by one from the server. Invariants: the proxy listens on loopback only; a request needs a token signed
with the made-up secret, the exact Host and no Origin; the proxy connects only to the project's URL and follows no
redirects; requests that aren't listed are refused. Needs the extras `cli` and `livekit`.
"""
