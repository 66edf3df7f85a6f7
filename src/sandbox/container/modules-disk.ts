import { link } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';
import type { PhaseClock } from '../state/phases.ts';

/** The disk with modules of the guest's kernel, attached before the first container that may need them. */
export interface ModulesDisk {
  /** Attaches it if needed, and returns its serial. Errors: those of machine and agent. */
  attach(phases: PhaseClock, signal: AbortSignal): Promise<string>;
}

const serial = 'modules';
const file = `${serial}.erofs`;

/** The modules of a machine that an earlier process started. */
export interface ModulesBefore {
  /** Serials of the disks that the guest has. */
  readonly serials: readonly string[];
  /** Whether `path` is for the machine's kernel. */
  readonly fits: boolean;
}

/** `path`: the file that set-up made, shared by all machines. */
export function createModulesDisk(
  machine: Pick<Machine, 'attachDisk'>,
  guest: Pick<Link, 'call'>,
  machineDirectory: string,
  path: string,
  before: ModulesBefore = { serials: [], fits: true },
): ModulesDisk {
  let attached = before.serials.includes(serial) ? Promise.resolve(serial) : undefined;
  let isLinked = attached !== undefined;

  const plug = async (phases: PhaseClock, signal: AbortSignal): Promise<string> => {
    if (!isLinked && !before.fits) {
      throw new PodvmError(
        'failedPrecondition',
        'Cannot give the pod modules: its kernel is older than those of this podvm',
        {
          fix: 'Delete the pod and create it again.',
        },
      );
    }
    try {
      if (!isLinked) await link(path, join(machineDirectory, file));
      isLinked = true;
    } catch (cause) {
      throw new PodvmError('internal', "Cannot link the modules of the guest's kernel into the machine's directory", {
        cause,
        fix: 'Keep the set-up directory and the sandboxes on one file system.',
      });
    }
    await phases.time('modules plugged', machine.attachDisk({ serial, file, readOnly: true }, signal));
    const mounting = guest.call('attachDisk', { serial, fileSystem: 'erofs', readOnly: true }, signal);
    phases.add('modules', (await phases.time('modules mounted', mounting)).phases);
    return serial;
  };
  return {
    async attach(phases, signal) {
      // A caller that comes while another attaches it waits, and tries again if that failed.
      for (let before = attached; before !== undefined; before = attached) {
        const found = await before.catch(() => undefined);
        if (found !== undefined) return found;
      }
      const mine = plug(phases, signal);
      attached = mine;
      mine.catch(() => {
        attached = undefined;
      });
      return await mine;
    },
  };
}
