"""A worker without LIVEKIT_API_SECRET: LIVEKIT_AUTH_ADDRESS, _CA, _CERT and _KEY are all it is given."""

from livekit.agents import JobContext, cli

from livekit_auth.agents import AgentServer

server = AgentServer(role="agent-worker", api_role="agent-api")


@server.rtc_session(agent_name="greeter")
async def entrypoint(ctx: JobContext) -> None:
    """Joins the room that the job is for."""
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
