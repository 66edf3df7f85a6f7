import type { WebSocket } from 'ws';
import { type ChannelEncoding, ChannelSocket } from './channel-socket.ts';
import type { ProcessChannels } from './process-session.ts';
import { type StatusForm, statusText } from './remote-status.ts';
import type { SessionParts } from './session-parts.ts';
import type { StreamChoice } from './streaming.ts';

interface ProcessProtocol {
  readonly encoding: ChannelEncoding;
  readonly status: StatusForm;
  /** Whether a client can end a channel, such as standard input. */
  readonly hasEnds?: boolean;
}

/** Protocols of exec and attach by name; the empty name is for clients that name none. */
export const processProtocols: ReadonlyMap<string, ProcessProtocol> = new Map<string, ProcessProtocol>([
  ['v5.channel.k8s.io', { encoding: 'binary', status: 'json', hasEnds: true }],
  ['v4.channel.k8s.io', { encoding: 'binary', status: 'json' }],
  ['v4.base64.channel.k8s.io', { encoding: 'base64', status: 'json' }],
  ['channel.k8s.io', { encoding: 'binary', status: 'message' }],
  ['base64.channel.k8s.io', { encoding: 'base64', status: 'message' }],
  ['', { encoding: 'binary', status: 'message' }],
]);

const channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 } as const;

/** Serves exec and attach over WebSocket: a channel for each stream. Resolves when the client is gone. */
export async function serveWebSocketChannels(
  socket: WebSocket,
  { status: form, ...protocol }: ProcessProtocol,
  choice: StreamChoice,
  parts: SessionParts,
  serve: (channels: ProcessChannels) => Promise<void>,
): Promise<void> {
  using client = new ChannelSocket(socket, protocol, parts);
  const stdin = choice.stdin ? client.input(channel.stdin) : undefined;
  const resize = choice.tty ? client.input(channel.resize) : undefined;
  const [stdout, stderr] = (['stdout', 'stderr'] as const).map((name) =>
    choice[name] ? client.output(channel[name]) : undefined,
  );
  const error = client.output(channel.error);
  // An empty message confirms the connection, as the kubelet's own server does.
  client.send(choice.stdout ? channel.stdout : choice.stderr ? channel.stderr : channel.error, new Uint8Array());
  await serve({
    ...(stdin === undefined ? {} : { stdin }),
    ...(stdout === undefined ? {} : { stdout }),
    ...(stderr === undefined ? {} : { stderr }),
    ...(resize === undefined ? {} : { resize }),
    gone: client.gone,
    finish: async (status) => {
      stdin?.destroy();
      await new Promise<void>((resolve) => {
        if (error.destroyed) resolve();
        error.once('close', resolve);
        const text = statusText(status, form);
        if (text !== '') error.write(text);
        error.end();
      });
      await client.close();
    },
  });
  await client.closed;
}
