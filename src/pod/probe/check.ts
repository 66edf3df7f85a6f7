import type { IncomingMessage } from 'node:http';
import { request as requestByTls } from 'node:https';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { request as requestPlainly } from '#host/socket/node-http.ts';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { Container, ExecSpec, Sandbox } from '#sandbox/sandbox.ts';
import { grpcHealth } from './grpc-health.ts';
import type { HttpGetAction, Probe } from '../schema/probe.ts';

/** Result of one probe or hook. */
export interface CheckResult {
  readonly isSuccess: boolean;
  /** One printable line. */
  readonly message: string;
}

export interface CheckTarget {
  readonly sandbox: Pick<Sandbox, 'dial' | 'status'>;
  readonly container: Pick<Container, 'exec'>;
  /** The container's named ports. */
  readonly ports: readonly { readonly name?: string | undefined; readonly containerPort: number }[];
}

/** Kubelet's limit on bytes read from a response or a command's output. */
const maxBodyBytes = 10 * 1024;
const maxRedirects = 10;

/** Runs one probe; never rejects. A deadline or an abort of `signal` is a failure. */
export async function check(
  probe: Pick<Probe, 'exec' | 'httpGet' | 'tcpSocket' | 'grpc'>,
  target: CheckTarget,
  signal: AbortSignal,
): Promise<CheckResult> {
  try {
    if (probe.exec !== undefined) return await runCommand(probe.exec.command, target, signal);
    if (probe.httpGet !== undefined) return await httpGet(probe.httpGet, target, signal);
    if (probe.tcpSocket !== undefined) {
      const port = portOf(probe.tcpSocket.port, target);
      const socket = await target.sandbox.dial(port, addressOf(target, probe.tcpSocket.host), signal);
      socket.on('error', () => {}); // an open port is success
      socket.destroy();
      return { isSuccess: true, message: `port ${port} is open` };
    }
    if (probe.grpc !== undefined) {
      const { port, service } = probe.grpc;
      const address = addressOf(target, undefined);
      const socket = await target.sandbox.dial(port, address, signal);
      return await grpcHealth(socket, { authority: `${hostText(address)}:${port}`, service }, signal);
    }
    return { isSuccess: false, message: 'the probe has no action' };
  } catch (error) {
    return { isSuccess: false, message: signal.aborted ? 'no answer in time' : printable(messageOf(error)) };
  }
}

/** Runs a command to its end, or kills it on an abort. Errors: those of exec. */
export async function runCommand(
  command: readonly string[],
  target: CheckTarget,
  signal: AbortSignal,
): Promise<CheckResult> {
  const spec: ExecSpec = { command, tty: false, stdin: false };
  const exec = await target.container.exec(spec, signal);
  const output: Buffer[] = [];
  let bytes = 0;
  for (const stream of [exec.stdout, ...(exec.stderr === undefined ? [] : [exec.stderr])]) {
    stream.on('error', () => {}); // the exit code tells the result
    stream.on('data', (chunk: Buffer) => {
      if (bytes < maxBodyBytes) output.push(chunk.subarray(0, maxBodyBytes - bytes));
      bytes += chunk.length;
    });
  }
  let isLate = false;
  const kill = () => {
    isLate = true;
    void exec.kill(9).catch(() => {}); // the command or the machine is gone
  };
  signal.addEventListener('abort', kill, { once: true });
  if (signal.aborted) kill();
  const late = new Promise<undefined>((resolve) =>
    signal.addEventListener('abort', () => resolve(undefined), { once: true }),
  );
  const ended = await Promise.race([exec.exited, late]);
  signal.removeEventListener('abort', kill);
  if (isLate || ended === undefined) return { isSuccess: false, message: 'the command did not end in time' };
  const text = printable(Buffer.concat(output).toString('utf8').trim());
  return {
    isSuccess: ended.exitCode === 0,
    message: `the command exited with ${ended.exitCode}${text === '' ? '' : `: ${text}`}`,
  };
}

/** Sends a GET as kubelet's prober does: 200 to 399 is success; only redirects to the same host are followed. */
export async function httpGet(action: HttpGetAction, target: CheckTarget, signal: AbortSignal): Promise<CheckResult> {
  const address = addressOf(target, action.host);
  const host = hostText(action.host ?? address);
  const scheme = action.scheme.toLowerCase();
  const path = action.path.startsWith('/') ? action.path : `/${action.path}`;
  let url = new URL(`${scheme}://${host}:${portOf(action.port, target)}${path}`);
  const headers = { accept: '*/*', 'user-agent': 'podvm-probe/1', ...headersOf(action), connection: 'close' };
  for (let redirects = 0; redirects <= maxRedirects; redirects += 1) {
    const answer = await request(url, headers, target, address, signal);
    const next = answer.location === undefined ? undefined : URL.parse(answer.location, url.href);
    const isRedirect = answer.status >= 300 && answer.status < 400 && next !== undefined && next !== null;
    if (isRedirect && next.hostname === url.hostname && /^https?:$/.test(next.protocol)) {
      url = next;
      continue;
    }
    const isSuccess = answer.status >= 200 && answer.status < 400;
    return { isSuccess, message: `HTTP probe answered ${answer.status}` };
  }
  return { isSuccess: false, message: `HTTP probe was redirected more than ${maxRedirects} times` };
}

function headersOf(action: HttpGetAction): Record<string, string> {
  return Object.fromEntries(action.httpHeaders.map(({ name, value }) => [name.toLowerCase(), value]));
}

interface Answer {
  readonly status: number;
  readonly location: string | undefined;
}

async function request(
  url: URL,
  headers: Readonly<Record<string, string>>,
  target: CheckTarget,
  address: string | undefined,
  signal: AbortSignal,
): Promise<Answer> {
  const isTls = url.protocol === 'https:';
  const port = url.port === '' ? (isTls ? 443 : 80) : Number(url.port);
  const socket = await target.sandbox.dial(port, address, signal);
  try {
    return await new Promise<Answer>((resolve, reject) => {
      socket.on('error', reject);
      // Like kubelet, does not verify certificates: the connection goes to the pod itself.
      const stream = (): Duplex => (isTls ? connectTls({ socket, rejectUnauthorized: false }) : socket);
      // `agent` must be undefined: any other value, even `false`, would open a connection from the host.
      const call = (isTls ? requestByTls : requestPlainly)(url, { headers, createConnection: stream, signal });
      const answered = ({ statusCode = 0, headers }: IncomingMessage) => {
        call.destroy();
        resolve({ status: statusCode, location: headers.location });
      };
      call.on('error', reject);
      call.on('close', () => reject(new PodvmError('unavailable', 'the connection was closed')));
      call.on('upgrade', answered); // without a listener Node closes the connection and reports nothing
      call.on('response', (response) => {
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes >= maxBodyBytes) answered(response);
        });
        response.on('end', () => answered(response));
        response.on('error', reject);
      });
      call.end();
    });
  } finally {
    socket.destroy();
  }
}

function addressOf(target: CheckTarget, host: string | undefined): string | undefined {
  return host ?? target.sandbox.status.addresses[0]?.split('/')[0];
}

/** Formats an address for a URL. */
function hostText(address = '127.0.0.1'): string {
  return address.includes(':') ? `[${address}]` : address;
}

/** Returns the port number. The manifest's check has verified all names. */
function portOf(port: number | string, target: CheckTarget): number {
  if (typeof port === 'number') return port;
  return target.ports.find((it) => it.name === port)?.containerPort ?? Number(port);
}
