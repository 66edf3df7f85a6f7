import assert from 'node:assert/strict';
import type { Steps } from '../containerd/walk-steps.ts';
import { isReady, type Kubectl, until } from './kubectl.ts';
import { images } from './places.ts';
import type { WorkerTour } from './tour.ts';
import { fetchAll, serviceOf, webNames } from './serving-pods.ts';
import { containerdSocket, podvmSocket, serves } from './worker.ts';

type Program = keyof typeof sockets;
const sockets = { containerd: containerdSocket, kubelet: undefined, podvm: podvmSocket } as const;

const restarts = [
  ['SIGKILL', ['kubelet']],
  ['SIGTERM', ['podvm']],
  ['SIGKILL', ['podvm']],
  ['SIGKILL', ['containerd']],
  ['SIGKILL', ['podvm', 'containerd', 'kubelet']],
] as const;

/** Restarts of each program of a worker, which no pod notices. */
export const restartSteps: Steps<WorkerTour> = [
  ...restarts.map(
    ([signal, programs]) =>
      [
        `pods go on after ${signal} to ${programs.join(', ')}`,
        (tour: WorkerTour) => outlives(tour, signal, programs),
      ] as const,
  ),
  ['the next pod starts', startsNext],
];

async function outlives(
  { kubectl, at }: WorkerTour,
  signal: 'SIGKILL' | 'SIGTERM',
  programs: readonly Program[],
): Promise<void> {
  const before = await placesOf(kubectl);
  for (const program of programs) await at[program].end(signal);
  for (const program of programs) {
    await at[program].begin();
    if (sockets[program] !== undefined) await serves(at.node, sockets[program]);
  }
  await until('all pods answer', async () => {
    for (const name of webNames) {
      assert.deepEqual(
        (await kubectl.sh(name, fetchAll(webNames.map(serviceOf)))).split('\n'),
        webNames,
        `from ${name}`,
      );
    }
  });
  await until('the pods are as they were, and ready', async () => assert.deepEqual(await placesOf(kubectl), before));
  for (const name of webNames) await hasWholeLog(kubectl, name);
}

/** The pods of `serving-pods.ts` and of kube-system, with what a restart would change. */
export async function placesOf(kubectl: Kubectl): Promise<readonly unknown[]> {
  const pods = [...(await kubectl.pods('app=web')), ...(await kubectl.pods('', 'kube-system'))];
  return pods.map((pod) => {
    const containers = pod.status.containerStatuses.map(({ containerID, restartCount }) => [containerID, restartCount]);
    return [pod.metadata.uid, pod.status.podIP, isReady(pod), containers];
  });
}

/** Fails if a line of a pod's log is missing or repeated. */
async function hasWholeLog(kubectl: Kubectl, pod: string): Promise<void> {
  const lines = (await kubectl.run('logs', pod)).trim().split('\n');
  const wrong = lines.findIndex((line, at) => line !== `line ${at}`);
  assert.equal(wrong, -1, `${pod}: ${lines.slice(Math.max(0, wrong - 2), wrong + 3).join(', ')}`);
}

async function startsNext({ kubectl, at }: WorkerTour): Promise<void> {
  const overrides = { spec: { runtimeClassName: 'machine', nodeSelector: { 'kubernetes.io/hostname': at.node.name } } };
  const flags = [`--image=${images.busybox}`, '--restart=Never', `--overrides=${JSON.stringify(overrides)}`];
  await kubectl.run('run', 'next', ...flags, '--command', '--', 'echo', 'it runs');
  await kubectl.run('wait', '--for=jsonpath={.status.phase}=Succeeded', 'pod/next', '--timeout=240s');
  assert.equal(await kubectl.run('logs', 'next'), 'it runs\n');
  await kubectl.run('delete', 'pod', 'next');
}
