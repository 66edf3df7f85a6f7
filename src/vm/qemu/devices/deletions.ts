import { PodvmError } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';

const timeoutMs = 10_000;

/**
 * Waits for device removals. QEMU answers `device_del` at once and sends an event when the guest has released the
 * device.
 */
export class Deletions {
  readonly #waiting = new Map<string, () => void>();

  /** Call on QEMU's DEVICE_DELETED event. */
  happened(device: string): void {
    this.#waiting.get(device)?.();
  }

  /** Waits for the removal. Call before the command is sent. Errors: `cancelled`, `timeout`. */
  async of(device: string, signal: AbortSignal): Promise<void> {
    using deadline = openDeadline(timeoutMs, signal);
    const either = deadline.signal;
    await new Promise<void>((resolve, reject) => {
      const abort = () =>
        reject(
          new PodvmError(
            signal.aborted ? 'cancelled' : 'timeout',
            `Cannot detach ${device}: the guest does not release it`,
          ),
        );
      either.addEventListener('abort', abort, { once: true });
      this.#waiting.set(device, () => {
        either.removeEventListener('abort', abort);
        resolve();
      });
    });
  }

  /** Drops the pending wait. */
  forget(device: string): void {
    this.#waiting.delete(device);
  }
}
