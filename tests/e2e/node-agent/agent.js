// A worker of LiveKit's own Node SDK. It is given a made-up key, and doesn't know.
import { ServerOptions, cli, defineAgent } from '@livekit/agents';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(import.meta.url);

export default defineAgent({ entry: (ctx) => ctx.connect() });

// Its jobs' processes import this file too. It takes jobs however busy the machine is.
if (process.argv[1] === here) {
  cli.runApp(
    new ServerOptions({
      agent: here,
      agentName: 'node',
      host: '127.0.0.1',
      port: Number(process.env.HEALTH_PORT),
      loadFunc: async () => 0,
      numIdleProcesses: 1,
      initializeProcessTimeout: 60_000,
      drainTimeout: 1_000,
    }),
  );
}
