import { kindOf } from '#base/errors.ts';
import { type GuestText, guestText } from '#base/guest-text.ts';
import { openDeadline } from '#host/deadline.ts';
import type { Log } from '#host/log/log.ts';
import type { ContainerHome } from './container-home.ts';

/** Content of a container's termination log, cut to `maxTerminationBytes`. */
export class TerminationMessage {
  readonly #containerId: string;
  readonly #path: string | undefined;
  readonly #home: ContainerHome;
  readonly #log: Log;
  /** The last message that the guest sent, in base64, in case the machine dies. */
  #told = '';

  /** `path`: undefined for a container that leaves none. */
  constructor(containerId: string, path: string | undefined, home: ContainerHome, log: Log) {
    this.#containerId = containerId;
    this.#path = path;
    this.#home = home;
    this.#log = log;
  }

  tell(data: string): void {
    if (this.#path !== undefined) this.#told = data;
  }

  /** The last message that the guest sent. */
  get told(): GuestText | undefined {
    return this.#textOf(this.#told);
  }

  /** Reads the message from the guest; the last one that it sent if that fails. */
  async read(): Promise<GuestText | undefined> {
    const { guest, limits } = this.#home;
    if (this.#path === undefined) return undefined;
    try {
      const file = { containerId: this.#containerId, path: this.#path, maxBytes: limits.maxTerminationBytes };
      using deadline = openDeadline(limits.cleanUpTimeoutMs);
      const { data } = await guest.call('readFile', file, deadline.signal);
      return this.#textOf(data);
    } catch (error) {
      if (kindOf(error) !== 'notFound') this.#log.debug('no last termination message', { why: kindOf(error) });
      return this.told;
    }
  }

  #textOf(base64: string): GuestText | undefined {
    const bytes = Buffer.from(base64, 'base64').subarray(0, this.#home.limits.maxTerminationBytes);
    return bytes.length === 0 ? undefined : guestText(bytes.toString('utf8'));
  }
}
