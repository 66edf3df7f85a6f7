import { kindOf, PodvmError } from '#base/errors.ts';
import type { Params } from '#wire/messages.ts';
import type { Channel } from '../channel/channel.ts';
import { codeOf, ready, type Clock, type Descriptors, type Sockets } from '#engine/engine.ts';
import { InputPump, OutputPump } from './pumps.ts';

type Parts = Clock & Descriptors & Pick<Sockets, 'connectTcp' | 'socketError' | 'shutdownWrite'>;

const defaultTimeoutMs = 10_000;

/** Joins a stream to a TCP connection from inside the guest. Errors: `unavailable`, `timeout`, `invalid`. */
export async function dial(parts: Parts, channel: Channel, params: Params<'dial'>): Promise<void> {
  const { address, port, timeoutMs = defaultTimeoutMs } = params;
  const stream = channel.openStream(params.stream);
  try {
    const fd = await (address === 'localhost'
      ? connectHere(parts, port, timeoutMs)
      : connect(parts, address, port, timeoutMs));
    // A descriptor has one handler, so each direction gets its own descriptor.
    const input = new InputPump(parts, fd, (socket) => {
      try {
        parts.shutdownWrite(socket);
      } catch (error) {
        if (codeOf(error) !== 'ENOTCONN') throw error; // the peer has closed it first
      }
    });
    const output = new OutputPump(parts, parts.duplicate(fd));
    input.attach(stream);
    stream.use({
      data: (bytes) => input.data(bytes),
      end: () => input.end(),
      gone: () => {
        input.close();
        output.close();
      },
      writable: () => output.writable(),
      acknowledged: () => {},
    });
    output.attach(stream);
  } catch (error) {
    stream.reset();
    throw error;
  }
}

/** Tries 127.0.0.1, where most servers listen, and then ::1, as kubelets' runtimes do. */
async function connectHere(parts: Parts, port: number, timeoutMs: number): Promise<number> {
  const startedMs = parts.monotonicMs();
  try {
    return await connect(parts, '127.0.0.1', port, timeoutMs);
  } catch (error) {
    if (kindOf(error) !== 'unavailable') throw error;
    const leftMs = Math.max(1, timeoutMs - (parts.monotonicMs() - startedMs));
    return await connect(parts, '::1', port, leftMs).catch(() => {
      throw error; // reports the error of 127.0.0.1
    });
  }
}

async function connect(parts: Parts, address: string, port: number, timeoutMs: number): Promise<number> {
  const refused = (code: string | undefined) =>
    new PodvmError('unavailable', `Cannot connect to port ${port} in the guest: ${code ?? 'refused'}`);
  let fd: number;
  try {
    fd = parts.connectTcp(address, port);
  } catch (error) {
    throw refused(codeOf(error));
  }
  const outcome = await new Promise<string | undefined>((resolve) => {
    const timer = parts.setTimer(timeoutMs, () => resolve('ETIMEDOUT'));
    parts.watch(fd, ready.writable, () => {
      parts.clearTimer(timer);
      resolve(parts.socketError(fd));
    });
  });
  parts.unwatch(fd);
  if (outcome === undefined) return fd;
  parts.close(fd);
  if (outcome === 'ETIMEDOUT')
    throw new PodvmError('timeout', `Cannot connect to port ${port} in the guest: no answer`);
  throw refused(outcome);
}
