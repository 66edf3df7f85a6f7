import { readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isThere } from '#host/file/files.ts';
import { cgroupRoot, handDown, makeCgroup, podvmCgroup, removeWhenEmpty } from '#host/cgroup/cgroup-tree.ts';
import type { HostLimits } from '../../driver.ts';
import { hostVersion, limitCpu, type Version, weighPodvmCgroup } from './cgroup-version.ts';
import { assertParent, makeRoom } from './parent-cgroup.ts';
import { type CpuLimits, processorWeights } from './processor-weights.ts';
import { StartWeight } from './start-weight.ts';

/**
 * The host cgroup of one VMM. It limits the VMM's memory, processor time and threads, regardless of guest and emulator.
 * Its parent is podvm's, or that of the pod, which a kubelet makes and limits. Supports cgroups version 2, version 1, and
 * hosts with both, whose controllers are on version 1. Without a delegated cgroup a VMM runs unlimited.
 */
export interface HostCgroup {
  /**
   * Changes the limits, and moves the machine below another parent if they name one. Errors: the kernel's, when more
   * memory is in use (version 1); `failedPrecondition` when the parent is missing.
   */
  limit(limits: HostLimits): Promise<void>;
  /** See `Machine.setStartWeight`. Errors: the kernel's. */
  setStartWeight(isSet: boolean): Promise<void>;
  /**
   * Moves in a process that works for the VMM and raises the memory limit by `memoryBytes`. Dispose the result after
   * the process has ended. Errors: the kernel's, but none if the process is gone.
   */
  add(pid: number, memoryBytes: number): Promise<AsyncDisposable>;
  /** Returns whether the kernel has killed the VMM for lack of memory. */
  wasOutOfMemory(): Promise<boolean>;
  /** Removes the cgroup. Call after the VMM is gone. */
  remove(): Promise<void>;
}

/** Limit of QEMU's threads: processors, disks (at most 64) and its own. */
const maxThreads = 512;

/** Limits of the node that are the same for all machines. */
export interface NodeLimits {
  readonly maySwap: boolean;
  /** Rate at which each may read from each disk of the node, and may write to it; undefined: no limit. */
  readonly diskBytesPerSecond: number | undefined;
}

/** Makes the machine's cgroups and moves its VMM into them. Errors: as `limit`; the kernel's, if no cgroup is delegated. */
export async function confine(id: string, pid: number, limits: HostLimits, node: NodeLimits): Promise<HostCgroup> {
  const version = await hostVersion();
  const cgroup = cgroupOf(version, id, undefined, node);
  try {
    await cgroup.limit(limits);
    await cgroup.enter(pid);
    return cgroup;
  } catch (error) {
    await cgroup.remove();
    throw error;
  }
}

/** Returns the cgroup that an earlier process made for a running machine, or undefined. */
export async function findHostCgroup(id: string, pid: number): Promise<HostCgroup | undefined> {
  const version = await hostVersion();
  const lines = (await readFile(`/proc/${pid}/cgroup`, 'latin1').catch(() => '')).split('\n');
  // Version 1: `4:memory:/PATH`, version 2: `0::/PATH` (cgroups(7)).
  const name = version.memory.root === cgroupRoot ? '' : 'memory';
  const path = lines.map((line) => line.split(':')).find(([, names]) => names === name)?.[2];
  if (path === undefined || basename(path) !== id) return undefined;
  const cgroup = cgroupOf(version, id, dirname(path).slice(1));
  // The earlier process may have been killed while it was set. After an error, the sandbox tries again.
  await cgroup.setStartWeight(false).catch(() => undefined);
  return cgroup;
}

/** Removes the cgroups of a dead machine below podvm's own and below `cgroupParent`. */
export async function sweepHostCgroups(id: string, cgroupParent?: string): Promise<void> {
  await removeFrom(await hostVersion(), id, [podvmCgroup, ...(cgroupParent === undefined ? [] : [cgroupParent])]);
}

interface Entered extends HostCgroup {
  enter(pid: number): Promise<void>;
}

/** `at`: the parent that has it already. `node` is unknown for a machine of an earlier process, which stays where it is. */
function cgroupOf(version: Version, id: string, at: string | undefined, node?: NodeLimits): Entered {
  let parent = at ?? podvmCgroup;
  const parents = new Set(at === undefined ? [] : [at]);
  let [ofMachine, ofHelpers] = [0, 0];
  /** One change at a time, so that a process that comes in during another goes where the others are. */
  let changing: Promise<unknown> = Promise.resolve();
  const inTurn = async <T>(change: () => Promise<T>): Promise<T> => {
    const turn = changing.then(change);
    changing = turn.catch(() => undefined);
    return await turn;
  };
  const start = new StartWeight(version, id, at === undefined);
  const move = (pid: number) => moveInto(version, parent, id, pid, start);
  const writeMemory = async (bytes: number) => {
    await makeRoom(version, parent, { memoryBytes: bytes });
    await writeFile(join(version.memory.root, parent, id, version.memory.limit), String(bytes));
  };
  const limitHere = async (memoryBytes: number, cpu: CpuLimits) => {
    await writeMemory(memoryBytes + ofHelpers);
    await makeRoom(version, parent, cpu);
    await processorWeights.limit(id, cpu, (weighed) => limitCpu(version, join(parent, id), weighed));
  };
  const limit = async ({ memoryBytes, cgroupParent = parent, cpuMillis, cpuShares }: HostLimits) => {
    const before = [...parents].filter((each) => each !== cgroupParent);
    parent = cgroupParent;
    if (!parents.has(parent)) {
      parents.add(parent);
      await makeIn(version, parent, id, node);
    }
    // The new one has all limits before a process is in it.
    await limitHere(memoryBytes, { cpuMillis, cpuShares });
    ofMachine = memoryBytes;
    await start.limit(parent);
    for (const old of before) {
      for (const pid of await processesIn(version, old, id)) await move(pid);
      await removeFrom(version, id, [old], start);
      parents.delete(old);
    }
  };
  return {
    limit: async (limits) => await inTurn(() => limit(limits)),
    setStartWeight: async (isSet) => await inTurn(() => start.set(isSet, parent)),
    enter: async (pid) => {
      await inTurn(() => move(pid));
      processorWeights.joined(id, pid);
    },
    async add(pid, memoryBytes) {
      const allow = async (bytes: number) => {
        ofHelpers += bytes;
        if (ofMachine > 0) await writeMemory(ofMachine + ofHelpers);
      };
      await allow(memoryBytes);
      let isAllowed = true;
      const takeBack = async () => {
        if (!isAllowed) return;
        isAllowed = false;
        processorWeights.left(id, pid);
        await allow(-memoryBytes).catch(() => undefined); // gone with its machine, or in use (version 1)
      };
      try {
        await this.enter(pid);
      } catch (error) {
        await takeBack();
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // ended: reported elsewhere
      }
      return { [Symbol.asyncDispose]: takeBack };
    },
    wasOutOfMemory: async () => {
      const path = join(version.memory.root, parent, id, version.memory.events);
      const text = await readFile(path, 'latin1').catch(() => '');
      return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0) > 0;
    },
    remove: async () => {
      processorWeights.forget(id);
      await inTurn(() => removeFrom(version, id, new Set([...parents, podvmCgroup])));
    },
  };
}

/** Makes the machine's directories below a parent, with the limits that are the same for all machines. */
async function makeIn(version: Version, parent: string, id: string, node: NodeLimits | undefined): Promise<void> {
  const withDisks = node?.diskBytesPerSecond !== undefined;
  const directories = directoriesOf(version, parent, id, withDisks);
  if (parent === podvmCgroup) await makePodvmCgroup(version, withDisks);
  else await assertParent(parent, directories.map(dirname));
  if (version.memory.root === version.pids.root) await handDown(join(cgroupRoot, parent), controllersFor(withDisks));
  for (const directory of directories) await makeCgroup(directory);
  const at = join(parent, id);
  if (node?.maySwap !== true) await keepFromSwap(version, at);
  if (node?.diskBytesPerSecond !== undefined) await limitDisks(version, at, node.diskBytesPerSecond);
  await writeFile(join(version.pids.root, at, 'pids.max'), String(maxThreads));
}

/** `start`: keeps what it uses. */
async function removeFrom(version: Version, id: string, parents: Iterable<string>, start?: StartWeight): Promise<void> {
  for (const parent of parents)
    for (const directory of directoriesOf(version, parent, id, true))
      if (start?.isSet !== true || directory !== start.directory) await removeWhenEmpty(directory);
}

async function processesIn({ memory }: Version, parent: string, id: string): Promise<readonly number[]> {
  const text = await readFile(join(memory.root, parent, id, 'cgroup.procs'), 'latin1');
  return text.split('\n').filter(Boolean).map(Number);
}

/** Disables swap: keys, passwords and other guest memory would persist on the host's disk. */
async function keepFromSwap({ memory }: Version, at: string): Promise<void> {
  const path = join(memory.root, at, memory.swap);
  if (await isThere(path)) await writeFile(path, '0');
}

/** Moves the process into all existing hierarchies: version 1 has one for disks if these are limited. */
async function moveInto(version: Version, parent: string, id: string, pid: number, start: StartWeight): Promise<void> {
  const disks = join(version.disks.root, parent, id);
  const ofCpu = join(version.cpu.root, parent, id);
  for (const directory of directoriesOf(version, parent, id, await isThere(disks))) {
    const path = start.isSet && directory === ofCpu ? start.directory : directory;
    await writeFile(join(path, 'cgroup.procs'), String(pid));
  }
}

/** Limits each whole disk of the node, since a volume or an image may be on any of them. */
async function limitDisks({ disks }: Version, at: string, bytesPerSecond: number): Promise<void> {
  const names = (await readdir('/sys/block')).filter((name) => !/^(?:loop|ram|zram)\d/.test(name));
  for (const name of names) {
    const disk = (await readFile(join('/sys/block', name, 'dev'), 'latin1')).trim();
    for (const [file, text] of Object.entries(disks.limits(disk, bytesPerSecond)))
      await writeFile(join(disks.root, at, file), text);
  }
}

function directoriesOf(version: Version, parent: string, id: string, withDisks: boolean): string[] {
  const { memory, pids, cpu, accounts, disks } = version;
  const roots = new Set([memory.root, pids.root, cpu.root, ...accounts, ...(withDisks ? [disks.root] : [])]);
  return [...roots].map((root) => join(root, parent, id));
}

/** Makes podvm's own cgroup. */
async function makePodvmCgroup(version: Version, withDisks: boolean): Promise<void> {
  const { memory, pids, cpu } = version;
  for (const root of [memory.root, cpu.root]) await makeCgroup(join(root, podvmCgroup));
  if (memory.root === pids.root) await handDown(cgroupRoot, controllersFor(withDisks));
  await weighPodvmCgroup(version);
}

const controllersFor = (withDisks: boolean) => ['memory', 'pids', 'cpu', ...(withDisks ? ['io'] : [])];
