import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { poll } from '#host/wait.ts';
import type { Crictl } from '../conformance/crictl.ts';
import type { Tour } from './tour.ts';
import type { Steps } from './walk-steps.ts';

/** Ends of containers by a kubelet's StopContainer. */
export const endSteps: Steps<Tour> = [
  ['a container is told to end, has its grace for that, and is killed after it', hasGrace],
  ['a container has its grace, and its exit code is right, while the daemon of podvm is replaced', keepsGrace],
];

const ignoring = 'trap "echo told" TERM; echo ready; while :; do sleep 0.1; done';

async function says(crictl: Crictl, id: string, word: string): Promise<void> {
  const look = async () => ((await crictl.run('logs', id)).split('\n').includes(word) ? true : undefined);
  assert.ok(await poll(look, { everyMs: 200, signal: AbortSignal.timeout(60_000) }), `${id} does not say ${word}`);
}

async function hasGrace({ crictl, pod }: Tour): Promise<void> {
  const polite = await pod.start('polite', 'trap "sleep 1; exit 5" TERM; echo ready; while :; do sleep 0.1; done');
  const stubborn = await pod.start('stubborn', ignoring);
  for (const id of [polite, stubborn]) await says(crictl, id, 'ready');
  await crictl.run('stop', '--timeout', '40', polite);
  assert.equal((await pod.ended(polite)).exitCode, 5);
  const startedMs = performance.now();
  await crictl.run('stop', '--timeout', '2', stubborn);
  assert.ok(performance.now() - startedMs >= 2000, 'it was killed before its grace was over');
  assert.equal((await pod.ended(stubborn)).exitCode, 137);
  await says(crictl, stubborn, 'told');
  for (const id of [polite, stubborn]) await crictl.run('rm', id);
}

async function keepsGrace({ crictl, pod, work, replaceDaemon }: Tour): Promise<void> {
  const shared = join(work, 'grace');
  await mkdir(shared);
  const mounts = [{ host_path: shared, container_path: '/shared' }];
  const script = 'trap "echo told; until [ -e /shared/end ]; do sleep 0.1; done; exit 6" TERM; echo ready';
  const patient = await pod.start('patient', `${script}; while :; do sleep 0.1; done`, { mounts });
  const stubborn = await pod.start('stubborn', ignoring);
  for (const id of [patient, stubborn]) await says(crictl, id, 'ready');
  const stopping = [crictl.try(['stop', '--timeout', '50', patient]), crictl.try(['stop', '--timeout', '5', stubborn])];
  for (const id of [patient, stubborn]) await says(crictl, id, 'told');
  await replaceDaemon('SIGKILL');
  await writeFile(join(shared, 'end'), '');
  await Promise.all(stopping);
  assert.equal((await pod.ended(patient)).exitCode, 6);
  // A kubelet repeats a call that failed because no daemon came in time.
  await crictl.run('stop', '--timeout', '1', stubborn);
  assert.equal((await pod.ended(stubborn)).exitCode, 137);
  for (const id of [patient, stubborn]) await crictl.run('rm', id);
}
