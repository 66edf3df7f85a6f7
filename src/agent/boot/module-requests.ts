import { again, ready, type Descriptors, type Files, type Sockets, type Text } from '#engine/engine.ts';

type Parts = Pick<Descriptors, 'close' | 'write' | 'watch' | 'unwatch'> &
  Pick<Files, 'symlink' | 'writeExisting' | 'makeDirectories'> &
  Pick<Sockets, 'listenUnix' | 'accept' | 'receive'> &
  Pick<Text, 'decodeUtf8' | 'encodeUtf8'>;

/**
 * Program that the kernel starts (`modprobe_main` in src/engine/guest/modprobe.c), which connects to `socketPath`. Both
 * paths are also in the C (program.c, guest.h).
 */
const helper = '/bin/podvm-modprobe';
const socketPath = '/run/podvm/modprobe.sock';
/** Limit of concurrent requests. The kernel itself starts at most 50 at a time (kernel/module/kmod.c). */
const maxRequests = 64;
const maxNameBytes = 64;

/**
 * Requests of the kernel for missing modules. The kernel starts a program, which has no capabilities here (`boot.ts`)
 * and only passes on the name; `load` decides. Other programs that connect can do no more than that.
 */
export class ModuleRequests {
  readonly #parts: Parts;
  readonly #load: (name: string) => Promise<boolean>;
  #open = 0;

  constructor(parts: Parts, load: (name: string) => Promise<boolean>) {
    this.#parts = parts;
    this.#load = load;
  }

  /** Enables requests of the kernel. */
  start(): void {
    this.#parts.makeDirectories('/run/podvm', 0o700);
    const listener = this.#parts.listenUnix(socketPath);
    this.#parts.watch(listener, ready.readable, () => this.#accept(listener));
    this.#parts.symlink('/init', helper);
    this.#parts.writeExisting('/proc/sys/kernel/modprobe', `${helper}\n`);
  }

  #accept(listener: number): void {
    const connection = this.#parts.accept(listener);
    if (connection === again) return;
    if (this.#open >= maxRequests) {
      this.#parts.close(connection);
      return;
    }
    this.#open += 1;
    let name = '';
    this.#parts.watch(connection, ready.readable, () => {
      const buffer = new Uint8Array(maxNameBytes + 1);
      const { bytes, fds } = this.#parts.receive(connection, buffer);
      for (const fd of fds) this.#parts.close(fd);
      if (bytes === again) return;
      name += this.#parts.decodeUtf8(buffer, 0, Math.max(0, bytes));
      if (bytes > 0 && name.length <= maxNameBytes) return;
      this.#parts.unwatch(connection); // the helper has sent everything, and waits
      void this.#answer(connection, name);
    });
  }

  async #answer(connection: number, name: string): Promise<void> {
    try {
      if (await this.#load(name)) this.#parts.write(connection, this.#parts.encodeUtf8('+'));
    } catch {
      // a helper that has given up gets no answer
    } finally {
      this.#open -= 1;
      this.#parts.close(connection);
    }
  }
}
