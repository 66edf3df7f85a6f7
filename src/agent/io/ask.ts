import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { Answer, Params } from '#wire/messages.ts';
import { again, codeOf, ready, type Clock, type Descriptors, type Sockets, type Text } from '#engine/engine.ts';

type Parts = Clock & Descriptors & Pick<Sockets, 'connectUdp'> & Pick<Text, 'encodeBase64' | 'decodeBase64'>;

/** Sends a datagram from inside the guest and returns the first answer. Errors: `unavailable`, `timeout`, `invalid`. */
export async function ask(parts: Parts, params: Params<'ask'>): Promise<Answer<'ask'>> {
  const { address, port, timeoutMs } = params;
  const failed = (error: unknown) =>
    new PodvmError('unavailable', `Cannot ask port ${port} from the guest: ${codeOf(error) ?? 'refused'}`);
  let fd: number | undefined;
  let timer: number | undefined;
  try {
    const socket = (fd = parts.connectUdp(address, port));
    parts.write(socket, parts.decodeBase64(params.data));
    const bytes = new Uint8Array(limits.maxDatagramBytes);
    return await new Promise((resolve, reject) => {
      timer = parts.setTimer(timeoutMs, () =>
        reject(new PodvmError('timeout', `Cannot ask port ${port} from the guest: no answer`)),
      );
      parts.watch(socket, ready.readable, () => {
        try {
          const length = parts.read(socket, bytes); // an error of the network, such as ECONNREFUSED, comes here, too
          if (length !== again) resolve({ data: parts.encodeBase64(bytes.subarray(0, length)) });
        } catch (error) {
          reject(failed(error));
        }
      });
    });
  } catch (error) {
    throw error instanceof PodvmError ? error : failed(error);
  } finally {
    if (timer !== undefined) parts.clearTimer(timer);
    if (fd !== undefined) parts.close(fd);
  }
}
