import type { Guest } from './boot/guest.ts';
import { ready, type Engine } from './engine/engine.ts';

const retryMs = 50;

/** Echoes what comes, until the services are there. */
export function startServices(engine: Engine, channelFd: number, guest: Guest): void {
  const buffer = new Uint8Array(16 * 1024);
  const watch = () => {
    engine.watch(channelFd, ready.readable, (events) => {
      const bytes = engine.read(channelFd, buffer);
      if (bytes > 0) engine.write(channelFd, buffer, 0, bytes);
      else if (!guest.isMachine) engine.exit(0);
      else if ((events & ready.hangup) !== 0) {
        engine.unwatch(channelFd); // the host is away
        engine.setTimer(retryMs, watch);
      }
    });
  };
  watch();
}
