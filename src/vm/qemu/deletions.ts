import { PodvmError } from '#base/errors.ts';

const timeoutMs = 10_000;

/** QEMU answers `device_del` at once and tells later that the device is gone, when the guest has let it go. */
export class Deletions {
  readonly #waiting = new Map<string, () => void>();

  /** To be called for QEMU's DEVICE_DELETED. */
  happened(device: string): void {
    this.#waiting.get(device)?.();
  }

  /** To be asked before the command is sent. Errors: `cancelled`, `timeout`. */
  async of(device: string, signal: AbortSignal): Promise<void> {
    const either = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    await new Promise<void>((resolve, reject) => {
      const abort = () =>
        reject(new PodvmError(signal.aborted ? 'cancelled' : 'timeout', `Cannot detach ${device}: the guest keeps it`));
      either.addEventListener('abort', abort, { once: true });
      this.#waiting.set(device, () => {
        either.removeEventListener('abort', abort);
        resolve();
      });
    });
  }

  /** Nobody waits for it any more. */
  forget(device: string): void {
    this.#waiting.delete(device);
  }
}
