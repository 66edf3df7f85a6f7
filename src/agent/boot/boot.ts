import type { Engine } from '#engine/engine.ts';
import { Cgroups } from '../container/cgroups.ts';
import { keepOwnRoutes } from './own-routes.ts';
import { BootPhases } from './boot-phases.ts';
import type { Guest } from './guest.ts';
import { bringLoopbackUp } from './loopback.ts';
import { Modules } from './modules.ts';
import { mountCgroups, mountEarly, mountLate, moveRoot } from './mounts.ts';
import { agentPort, openPort } from './port.ts';

/** The drivers of the channel: before all else, so that a guest that cannot load the rest can still say so. */
const channelModules = ['virtio_ring', 'virtio', 'virtio_mmio', 'virtio_console'];
const crunPath = '/bin/crun';
const portTimeoutMs = 30_000;
const maxDescriptors = 1 << 20; // fs.nr_open

/** What root in a container must not do to the guest's kernel, as far as a switch of the kernel says so. */
const switches = {
  'kernel/kexec_load_disabled': '1',
  'kernel/kptr_restrict': '2',
  'kernel/dmesg_restrict': '1',
  'kernel/perf_event_paranoid': '3',
  'kernel/unprivileged_bpf_disabled': '1',
  // What the kernel itself starts (a handler of core dumps, say) has no capability: a root that can write its path has none more.
  'kernel/usermodehelper/bset': '0 0',
  'kernel/usermodehelper/inheritable': '0 0',
} as const;

/** A kernel that lacks one of them lacks what it switches off. */
function harden(engine: Engine): void {
  for (const [name, value] of Object.entries(switches)) {
    if (engine.status(`/proc/sys/${name}`) !== undefined) engine.writeExisting(`/proc/sys/${name}`, value);
  }
}

export interface Booted {
  readonly channelFd: number;
  readonly guest: Guest;
}

/**
 * Boots the guest as PID 1. Every phase but the last may fail and is then told to the host in `failures`.
 * Errors: no port to the host; nothing can be told to anybody then.
 */
export async function boot(engine: Engine): Promise<Booted> {
  const phases = new BootPhases(engine);
  let modules: Modules | undefined;
  let crunFd: number | undefined;
  const loadAll = (names: readonly string[]) => {
    for (const name of names) {
      try {
        modules?.load(name);
      } catch (error) {
        phases.fail('modules', error);
      }
    }
  };

  await phases.run('mounts', () => mountEarly(engine));
  await phases.run('channelModules', () => {
    modules = new Modules(engine);
    loadAll(channelModules);
  });
  await phases.run('root', () => moveRoot(engine));
  await phases.run('modules', () => loadAll(modules?.bootNames ?? []));
  await phases.run('cgroups', () => {
    mountCgroups(engine);
    new Cgroups(engine).makePod(); // now, for it takes a while: who is restored has it
  });
  await phases.run('devices', () => mountLate(engine));
  await phases.run('loopback', () => bringLoopbackUp(engine));
  await phases.run('limits', () => engine.setDescriptorLimit(maxDescriptors));
  await phases.run('hardening', () => {
    harden(engine);
    keepOwnRoutes(engine);
  });
  await phases.run('crun', () => {
    crunFd = engine.sealedCopy(crunPath);
  });
  let channelFd = -1;
  await phases.run('port', async () => {
    channelFd = await openPort(engine, agentPort, portTimeoutMs);
  });
  if (channelFd < 0) throw new Error('Cannot boot: no port to the host');
  return {
    channelFd,
    guest: {
      phases: phases.done,
      failures: phases.failures,
      isMachine: true,
      crunFd,
      loadModule: (name) => modules?.load(name) ?? false,
    },
  };
}
