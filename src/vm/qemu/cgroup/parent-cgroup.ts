import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { hasCgroups2, podvmCgroup } from '#host/cgroup/cgroup-tree.ts';
import { isThere } from '#host/file/files.ts';
import type { HostLimits } from '../../driver.ts';
import type { Version } from './cgroup-version.ts';

/** Errors: `failedPrecondition` when the cgroup of the pod is missing in a hierarchy. */
export async function assertParent(parent: string, directories: readonly string[]): Promise<void> {
  for (const directory of directories) {
    if (await isThere(directory)) continue;
    throw new PodvmError(
      'failedPrecondition',
      `Cannot start a machine in the cgroup ${parent}: there is no ${directory}`,
      {
        fix: 'Let the kubelet make the cgroup of the pod, or leave out cgroup_parent.',
      },
    );
  }
}

/**
 * Raises the limits of a pod's cgroup to those of the machine below it. A kubelet sets them to the limits of the
 * containers plus the overhead of the pod's RuntimeClass. Without that, the needs of kernel, agent and emulator would
 * make the VMM of a small pod be killed or wait for the processor.
 */
export async function makeRoom(
  { memory, cpu }: Version,
  parent: string,
  { memoryBytes, cpuMillis }: Partial<Pick<HostLimits, 'memoryBytes' | 'cpuMillis'>>,
): Promise<void> {
  if (parent === podvmCgroup) return; // has no limits
  if (memoryBytes !== undefined) {
    const path = join(memory.root, parent, memory.limit);
    const has = (await readFile(path, 'latin1')).trim();
    if (has !== 'max' && Number(has) < memoryBytes) await writeFile(path, String(memoryBytes));
  }
  if (cpuMillis === undefined) return;
  if (await hasCgroups2()) {
    const path = join(cpu.root, parent, 'cpu.max');
    const [quota = '', period = ''] = (await readFile(path, 'latin1')).trim().split(' ');
    const wanted = quotaOf(cpuMillis, Number(period));
    if (quota !== 'max' && Number(quota) < wanted) await writeFile(path, `${wanted} ${period}`);
    return;
  }
  const path = join(cpu.root, parent, 'cpu.cfs_quota_us');
  const quota = Number(await readFile(path, 'latin1'));
  const period = Number(await readFile(join(cpu.root, parent, 'cpu.cfs_period_us'), 'latin1'));
  const wanted = quotaOf(cpuMillis, period);
  if (quota >= 0 && quota < wanted) await writeFile(path, String(wanted));
}

const quotaOf = (millis: number, periodUs: number) => Math.ceil((millis * periodUs) / 1000);
