import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cgroupRoot, podvmCgroup } from '#host/cgroup/cgroup-tree.ts';
import { confine } from '#vm/qemu/cgroup/host-cgroup.ts';

/**
 * Runs in a machine, whose kernel has cgroups version 2: confines a process like a VMM, without a rate and with a
 * quarter of its measured rate. Prints for each way to use a disk `WAY: FREE_MS LIMITED_MS BYTES_PER_SECOND`, and the
 * limits in the kernel. Arguments: a directory on a disk, and the bytes to move.
 */
const [directory = '', bytes = ''] = process.argv.slice(2);

// A cgroup that delegates controllers has no processes of its own (cgroups(7)).
await mkdir(join(cgroupRoot, 'first'));
for (const pid of (await readFile(join(cgroupRoot, 'cgroup.procs'), 'latin1')).split('\n').filter(Boolean))
  await writeFile(join(cgroupRoot, 'first/cgroup.procs'), pid);

/** Runs the command with that rate and returns the time it takes, in `ms`. */
async function confined(command: string, diskBytesPerSecond: number | undefined): Promise<number> {
  const child = spawn('sh', ['-c', `read go; ${command}`], { stdio: ['pipe', 'inherit', 'inherit'] });
  await once(child, 'spawn');
  const limits = { memoryBytes: 128 * 1024 ** 2, cpuMillis: undefined, cpuShares: 1024 };
  const cgroup = await confine('machine', child.pid ?? 0, limits, { maySwap: false, diskBytesPerSecond });
  const beganMs = performance.now();
  child.stdin.end('\n');
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${command} ended with ${code}`);
  const tookMs = performance.now() - beganMs;
  if (diskBytesPerSecond !== undefined) {
    const kept = await readFile(join(cgroupRoot, podvmCgroup, 'machine/io.max'), 'latin1');
    process.stdout.write(`limits: ${kept.trim().replaceAll('\n', ', ')}\n`);
  }
  await cgroup.remove();
  return Math.round(tookMs);
}

// Data written back later counts for the cgroup that has filled the file, so each rate has a file of its own.
const [free, limited] = ['free', 'limited'].map((name) => join(directory, name)) as [string, string]; // SAFE: two names
const dd = `dd bs=1M count=${Number(bytes) / 1024 ** 2} status=none`;
const ways: Readonly<Record<string, (file: string) => string>> = {
  'writes later': (file) => `${dd} if=/dev/zero of=${file} conv=fsync`,
  reads: (file) => `${dd} if=${file} of=/dev/null iflag=direct`,
  writes: (file) => `${dd} if=/dev/zero of=${file} oflag=direct conv=notrunc`,
};
for (const [way, commandFor] of Object.entries(ways)) {
  const freeMs = await confined(commandFor(free), undefined);
  const rate = Math.round((Number(bytes) * 1000) / freeMs / 4);
  process.stdout.write(`${way}: ${freeMs} ${await confined(commandFor(limited), rate)} ${rate}\n`);
}
