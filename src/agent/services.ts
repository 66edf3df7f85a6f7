import type { Guest } from './boot/guest.ts';
import { again, ready, type Engine } from './engine/engine.ts';

/** Echoes what comes, until the services are there. */
export function startServices(engine: Engine, channelFd: number, guest: Guest): void {
  const buffer = new Uint8Array(16 * 1024);
  engine.watch(channelFd, ready.readable, () => {
    const bytes = engine.read(channelFd, buffer);
    if (bytes > 0) engine.write(channelFd, buffer, 0, bytes);
    if (bytes === 0 && !guest.isMachine) engine.exit(0);
    if (bytes === 0 || bytes === again) return;
  });
}
