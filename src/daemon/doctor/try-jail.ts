import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Assets } from '#host/assets.ts';
import { type Confinement, readConfinement } from '#host/jail/confinement.ts';
import { startQemuMachine } from '#vm/qemu/qemu-driver.ts';
import { probeUid } from '../node/node.ts';

const mebibyte = 1024 * 1024;

/** Starts a VMM, reads its confinement and ends it. Errors: those of its start. */
export async function tryJail(assets: Assets, directory: string, signal: AbortSignal): Promise<Confinement> {
  await using undo = new AsyncDisposableStack();
  await mkdir(directory, { recursive: true, mode: 0o711 });
  const machineDirectory = await mkdtemp(join(directory, 'jail-'));
  undo.defer(() => rm(machineDirectory, { recursive: true, force: true }));
  await chmod(machineDirectory, 0o711);
  const spec = {
    id: `jail-${process.pid}`,
    directory: machineDirectory,
    uid: probeUid,
    memoryMiB: 128,
    vcpus: 1,
    maxFileBytes: 16 * mebibyte,
    hostLimits: { memoryBytes: 512 * mebibyte, cpuMillis: 1000, cpuShares: 1024 },
  };
  const machine = undo.use(await startQemuMachine({ assets, accelerator: 'tcg' }, spec, { kind: 'boot' }, signal));
  return await readConfinement(machine.record.pid);
}
