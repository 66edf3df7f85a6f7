import type { Engine } from '#engine/engine.ts';
import { Cgroups } from '../container/cgroups.ts';
import { usualDevicesProgram } from '../container/device-program.ts';
import { keepOwnRoutes } from '../interfaces/own-routes.ts';
import { BootPhases } from './boot-phases.ts';
import type { Guest } from './guest.ts';
import { bringLoopbackUp } from '../interfaces/loopback.ts';
import { Modules } from './modules.ts';
import { mountCgroups, mountEarly, mountLate, moveRoot } from './mounts.ts';
import { agentPort, openPort } from '../io/port.ts';

/** Drivers of the channel. They are loaded first, so that a guest that cannot load the rest can still report it. */
const channelModules = ['virtio_ring', 'virtio', 'virtio_mmio', 'virtio_console'];
const crunPath = '/bin/crun';
const portTimeoutMs = 30_000;
const maxDescriptors = 1 << 20; // fs.nr_open

/** Kernel switches that limit the access of root in a container to the guest's kernel. */
const switches = {
  'kernel/kexec_load_disabled': '1',
  'kernel/kptr_restrict': '2',
  'kernel/dmesg_restrict': '1',
  'kernel/perf_event_paranoid': '3',
  'kernel/unprivileged_bpf_disabled': '1',
  // Programs that the kernel itself starts (such as a core dump handler) get no capability: root gains none by setting one.
  'kernel/usermodehelper/bset': '0 0',
  'kernel/usermodehelper/inheritable': '0 0',
} as const;

/** Sets the switches; a kernel without one of them lacks the feature that it disables. */
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
 * Boots the guest as PID 1. Every phase but the last may fail, and is then reported to the host in `failures`.
 * Errors: no port to the host, in which case nothing can be reported.
 */
export async function boot(engine: Engine): Promise<Booted> {
  const phases = new BootPhases(engine);
  let modules: Modules | undefined;
  let crunFd: number | undefined;
  let usualDevicesFd: number | undefined;
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
    new Cgroups(engine).makePod(); // slow, so that restored guests already have it
  });
  await phases.run('devices', () => mountLate(engine));
  await phases.run('devicePrograms', () => {
    usualDevicesFd = engine.loadDeviceProgram(usualDevicesProgram());
  });
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
      usualDevicesFd,
      loadModule: (name) => modules?.load(name) ?? false,
    },
  };
}
