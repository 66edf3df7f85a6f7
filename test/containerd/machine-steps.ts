import assert from 'node:assert/strict';
import { readdir, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { nodeDetailsSchema } from '#api/node.ts';
import { createClient } from '#cli/client.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { KubeletCgroups, memoryRoot, processesIn } from '../kubelet-cgroups.ts';
import { Pod } from './pod.ts';
import { execSync, type Tour } from './tour.ts';
import type { Steps } from './walk-steps.ts';

/** Machines of pods, and where they are on the node. */
export const machineSteps: Steps<Tour> = [
  ['annotations of podvm reach it, and its machine is in the cgroup of the pod, whose figures show it', isPlaced],
  ['a machine that waited becomes the pod’s, and its tap is in the network namespace of containerd', takesWaiting],
];

const amount = v.object({ value: v.pipe(v.string(), v.regex(/^[1-9]\d*$/)) });
const podFigures = v.object({
  stats: v.array(
    v.object({
      linux: v.object({
        cpu: v.object({ usageCoreNanoSeconds: amount }),
        memory: v.object({ workingSetBytes: amount }),
      }),
    }),
  ),
});

async function isPlaced({ crictl, work }: Tour): Promise<void> {
  const misspelt = { annotations: { 'podvm.dev/template': 'of' } };
  await assert.rejects(
    Pod.run(crictl, work, 'misspelt', 'podvm', misspelt),
    /podvm\.dev\/template: on, namespace or off/,
  );
  await using cgroups = new KubeletCgroups();
  const parent = 'podvm-tour-kubepods/burstable/pod1';
  await cgroups.make(parent);
  const placed = await Pod.run(crictl, work, 'placed', 'podvm', { linux: { cgroup_parent: `/${parent}` } });
  try {
    await placed.start('main', 'head -c 60000000 /dev/zero >/dev/shm/held; sleep 1000');
    const inside = (await readdir(join(memoryRoot, parent), { withFileTypes: true })).filter((each) =>
      each.isDirectory(),
    );
    const programs = (await Promise.all(inside.map(({ name }) => processesIn(join(parent, name))))).flat();
    assert.ok(
      programs.some((program) => program.includes('qemu-system')),
      programs.join('\n'),
    );
    // What the machine used while it waited for a pod is not counted.
    const holds = async () => {
      const { stats } = await crictl.json(podFigures, 'statsp', '--id', placed.id);
      assert.equal(stats.length, 1);
      return Number(stats[0]?.linux.memory.workingSetBytes.value) > 60_000_000 || undefined;
    };
    assert.equal(
      await poll(holds, { everyMs: 500, signal: AbortSignal.timeout(60_000) }),
      true,
      'its memory is counted',
    );
  } finally {
    await placed.remove();
  }
}

/** Time until a machine waits: others on a busy host come first, in `ms`. */
const waitingTimeoutMs = 300_000;
const inspected = v.object({
  info: v.object({
    pid: v.number(),
    runtimeSpec: v.object({
      linux: v.object({ namespaces: v.array(v.object({ type: v.string(), path: v.optional(v.string()) })) }),
    }),
  }),
});

async function takesWaiting({ crictl, work, root }: Tour): Promise<void> {
  const client = createClient(join(root, 'podvm.sock'));
  const isWaiting = async () => (await client.get('/v1/node', nodeDetailsSchema)).waitingMachines > 0 || undefined;
  const waits = await poll(isWaiting, { everyMs: 500, signal: AbortSignal.timeout(waitingTimeoutMs) });
  assert.equal(waits, true, 'no machine waits');
  const earlier = new Set(await readdir('/proc'));
  const pod = await Pod.run(crictl, work, 'waited', 'podvm');
  const { info } = await crictl.json(inspected, 'inspectp', pod.id);
  assert.ok(earlier.has(String(info.pid)), 'its VMM is older than the pod');
  const network = info.runtimeSpec.linux.namespaces.find(({ type: kind }) => kind === 'network')?.path ?? '';
  const links = (await run('nsenter', [`--net=${network}`, 'ip', '-o', 'link'])).stdout;
  for (const name of ['eth0', 'tap0']) assert.match(links, new RegExp(`: ${name}[@:]`));
  const ofMachine = await readlink(`/proc/${info.pid}/ns/net`);
  assert.notEqual(ofMachine, `net:[${(await stat(network)).ino}]`, 'its VMM stays in the network namespace of its own');
  const main = await pod.start('main', 'sleep 1000');
  assert.match(await execSync(crictl, main, 'ip', '-4', '-o', 'address'), new RegExp(`inet ${await pod.address()}/`));
  await pod.remove();
}
