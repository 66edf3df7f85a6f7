import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { startChild } from '#host/process/start-child.ts';
import { connectLink } from '../connect-link.ts';
import type { Link } from '../link.ts';

const never = new AbortController().signal;

/**
 * The real agent as an ordinary process with a socket for its channel. It has its own /run (root, mount namespace), so that
 * its volumes do not touch the machine's.
 */
export class AgentProcess implements AsyncDisposable {
  readonly channel: Duplex;
  readonly exited: Promise<unknown>;
  /** What it has printed to its console. */
  console = '';
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#process = child;
    this.channel = child.stdio[3] as unknown as Duplex; // SAFE: a pipe of spawn is a socket
    this.channel.on('error', () => {});
    this.exited = once(child, 'exit');
    child.stderr?.on('data', (text: Buffer) => {
      this.console += text.toString();
      process.stderr.write(text);
    });
  }

  /** `program`: path of the agent, made for this host. */
  static async start(program: string): Promise<AgentProcess> {
    const script = 'mount --make-rprivate / && mount -t tmpfs tmpfs /run && exec "$0" --fd 3';
    const argv = ['--mount', 'sh', '-c', script, program];
    return new AgentProcess(await startChild('unshare', argv, { stdio: ['ignore', 'ignore', 'pipe', 'pipe'] }));
  }

  connect(): Promise<Link> {
    const open = () => Promise.resolve(this.channel);
    return connectLink({ open, handshakeTimeoutMs: 60_000, callTimeoutMs: 60_000 }, never);
  }

  /** Path of a file in the agent's own /run. */
  path(path: string): string {
    return `/proc/${this.#process.pid}/root${path}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.channel.destroy();
    await this.exited;
  }
}

/** Fills a push volume. */
export async function push(link: Link, volume: string, files: Readonly<Record<string, string>>): Promise<void> {
  const { push: id } = await link.call('beginPush', { volume }, never);
  for (const [path, content] of Object.entries(files)) {
    await link.call('pushFile', { push: id, path, mode: 0o640, data: btoa(content) }, never);
  }
  await link.call('commitPush', { push: id }, never);
}
