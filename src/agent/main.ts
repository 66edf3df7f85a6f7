import '#engine/globals.ts';
import { boot, type Booted } from './boot/boot.ts';
import type { Engine } from '#engine/engine.ts';
import { takeEngine } from '#engine/native.ts';
import { startServices } from './services.ts';

/** Maximum work of a handler: ten million calls and turns of loops, some seconds of an emulated processor. */
const watchdogLooks = 1000;

void main(takeEngine() as Engine); // catches everything: the engine has no top-level await

async function main(engine: Engine): Promise<void> {
  engine.onError((error) => engine.print(`error: ${describe(error)}`));
  engine.setWatchdog(watchdogLooks);
  try {
    const { channelFd, guest } = inherited(engine) ?? (await boot(engine));
    startServices(engine, channelFd, guest);
    if (guest.isMachine) engine.print(`ready: ${guest.phases.map(({ name, ms }) => `${name} ${ms}`).join(', ')} ms`);
    engine.collectGarbage();
  } catch (error) {
    engine.print(`cannot start: ${describe(error)}`);
    engine.exit(70);
  }
}

/** `--fd N`: an ordinary process in a test, with an inherited socket as its channel. */
function inherited(engine: Engine): Booted | undefined {
  const [option, value] = engine.args.slice(1);
  if (engine.pid === 1 || option !== '--fd') return undefined;
  const channelFd = Number(value);
  engine.setNonBlocking(channelFd, true);
  engine.becomeSubreaper();
  const guest = {
    phases: [],
    failures: [],
    isMachine: false,
    crunFd: undefined,
    usualDevicesFd: undefined,
    loadModule: () => false,
  };
  return { channelFd, guest };
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message} ${error.stack ?? ''}` : String(error);
}
