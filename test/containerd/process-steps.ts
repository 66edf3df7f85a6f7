import assert from 'node:assert/strict';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { poll } from '#host/wait.ts';
import type { Crictl } from '../conformance/crictl.ts';
import { Pod } from './pod.ts';
import type { Tour } from './tour.ts';
import type { Steps } from './walk-steps.ts';

/** What pods and containers cost the node in processes and descriptors. */
export const processSteps: Steps<Tour> = [
  ['no pod of podvm has a process of the runtime: it is its VMM and the VMM’s jail', countsProcesses],
  ['containers that cannot start leave no FIFO open', closesFifos],
];

const podsEach = 2;
const settleMs = 60_000;
/** Processes of a pod of podvm. */
const machine = ['bwrap', 'qemu-system-x86'];

interface Process {
  readonly pid: string;
  readonly name: string;
}

async function countsProcesses({ crictl, containerd, work }: Tour): Promise<void> {
  const node = await readlink(`/proc/${containerd.pid}/ns/net`);
  const isShim = (name: string) => name.startsWith('containerd-shim');
  const count = async () => {
    const names = (await processesIn(node)).map(({ name }) => name);
    return { shims: names.filter(isShim).length, others: names.filter((name) => !isShim(name)).sort() };
  };
  /** Programs that end soon, such as the launcher, are not counted. */
  const settles = async (shims: number, others: readonly string[]) => {
    const look = async () => {
      const now = await count();
      return now.shims === shims && isWithin(now.others, others) ? true : undefined;
    };
    const isSettled = await poll(look, { everyMs: 300, signal: AbortSignal.timeout(settleMs) });
    const now = await count();
    assert.equal(
      isSettled,
      true,
      `wanted ${shims} of ${others.join(' ')}; got ${now.shims} of ${now.others.join(' ')}`,
    );
  };
  const runcPods = (await crictl.run('pods', '-q', '--state', 'ready', '--name', '^runc$')).split('\n').filter(Boolean);
  const before = await count();
  const pods: Pod[] = [];
  const add = async (handler: string, main: object) => {
    const pod = await Pod.run(crictl, work, `counted-${handler}-${pods.length}`, handler);
    await pod.start('main', 'sleep 1000', main);
    pods.push(pod);
  };
  for (let at = 0; at < podsEach; at += 1) await add('podvm', {});
  await settles(runcPods.length, before.others);
  for (const { id } of pods) {
    const inside = async () => (await processesIn(await networkOf(crictl, id))).map(({ name }) => name).sort();
    const isMachine = async () => (isDeepStrictEqual(await inside(), machine) ? true : undefined);
    await poll(isMachine, { everyMs: 300, signal: AbortSignal.timeout(settleMs) }); // what makes its listener ends soon
    assert.deepEqual(await inside(), machine, id);
  }
  for (let at = 0; at < podsEach; at += 1) await add('runc', { command: ['sleep', '1000'] });
  await settles(runcPods.length + podsEach, before.others);
  for (const pod of pods) await pod.remove();
}

/** Whether each name is among the others, as often as it comes. */
function isWithin(names: readonly string[], others: readonly string[]): boolean {
  const count = (all: readonly string[], name: string) => all.filter((each) => each === name).length;
  return names.every((name) => count(names, name) <= count(others, name));
}

/** Processes of a network namespace, which each test run and each pod has for itself. */
async function processesIn(namespace: string): Promise<readonly Process[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const there = await readlink(`/proc/${pid}/ns/net`).catch(() => '');
      if (there !== namespace) return undefined;
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
      return name === '' ? undefined : { pid, name: name.trim() };
    }),
  );
  return found.filter((each) => each !== undefined);
}

const inspected = v.object({
  info: v.object({ pid: v.number() }),
});

/** The network namespace of a pod of podvm, whose pid is that of its VMM. */
async function networkOf(crictl: Crictl, pod: string): Promise<string> {
  const { info } = await crictl.json(inspected, 'inspectp', pod);
  return await readlink(`/proc/${info.pid}/ns/net`);
}

async function closesFifos({ crictl, containerd, pod }: Tour): Promise<void> {
  const node = await readlink(`/proc/${containerd.pid}/ns/net`);
  const ids: string[] = [];
  for (const name of ['missing-1', 'missing-2', 'missing-3']) {
    const id = await pod.create(name, '', { command: ['/no/such/program'] });
    const { code } = await crictl.try(['start', id]);
    assert.equal(code, 1);
    ids.push(id);
  }
  const open = async () => {
    const ours = (await processesIn(node)).filter(({ name }) => name !== 'containerd');
    const links = await Promise.all(ours.map(async ({ pid }) => await linksOf(pid)));
    return links.flat().filter((link) => ids.some((id) => link.includes(id)));
  };
  const none = async () => ((await open()).length === 0 ? true : undefined);
  const isNone = await poll(none, { everyMs: 300, signal: AbortSignal.timeout(settleMs) });
  assert.equal(isNone, true, `still open: ${(await open()).join(', ')}`);
  for (const id of ids) await crictl.run('rm', id);
}

async function linksOf(pid: string): Promise<readonly string[]> {
  const directory = join('/proc', pid, 'fd');
  const names = await readdir(directory).catch(() => []);
  return await Promise.all(names.map(async (name) => await readlink(join(directory, name)).catch(() => '')));
}
