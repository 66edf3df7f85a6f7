import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { createFakeClock } from '#pod/testing/fake-clock.ts';
import { createFakeSandboxes } from '#pod/testing/fake-sandbox.ts';
import { sandboxSpec } from '#sandbox/testing/examples.ts';
import { measureOverhead } from './measure-overhead.ts';

const soon = () => AbortSignal.timeout(60_000);
const vmm = {
  ...{ privateBytes: 90, sharedBytes: 10, swapBytes: 0, minorFaults: 0, majorFaults: 0 },
  ...{ cpuSeconds: 5, readBytes: 0, writtenBytes: 0 },
};
const hostFigures: Sandbox['hostFigures'] = async () => ({
  guestMemoryBytes: 1000,
  vmm,
  vcpus: { cpuSeconds: 4, waitSeconds: 0 },
  translatedCode: undefined,
  fileServers: [],
  otherRequests: undefined,
  link: { receivedBytes: 0, sentBytes: 0, stalls: 0, stalledSeconds: 0 },
});

test('the overhead is the VMM’s usage without the pod’s, of measurable pods above a minimum age', async () => {
  const clock = createFakeClock();
  const sandboxes = createFakeSandboxes(clock);
  const web = await sandboxes.run({ ...sandboxSpec, name: 'web' }, soon());
  await sandboxes.run({ ...sandboxSpec, name: 'hung' }, soon()); // the fake has no figures of its own
  const createdAt = new Date(clock.now());
  Object.defineProperty(web, 'status', { value: { ...web.status, createdAt } });
  const stats = await web.stats(soon());
  Object.assign(web, { hostFigures, stats: async () => ({ ...stats, memoryBytes: 40, cpuUsec: 1e6 }) });
  const at = (ms: number) => measureOverhead(sandboxes, createdAt.getTime() + ms, soon());
  assert.deepEqual(await at(29_000), []);
  const { namespace } = sandboxSpec;
  assert.deepEqual(await at(40_000), [{ namespace, name: 'web', memoryBytes: 50, cpuMillis: 100 }]);
});
