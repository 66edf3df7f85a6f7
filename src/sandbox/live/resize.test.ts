import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import type { HostLimits } from '#vm/driver.ts';
import type { Resources, SandboxSpec } from '../sandbox.ts';
import type { SizeLimits } from '../resources.ts';
import { resize } from './resize.ts';

const mib = 2 ** 20;
const limits: SizeLimits = {
  ...{ defaultMemoryMiB: 512, nominalMemoryMiB: 512, overheadMiB: 64, vmmOverheadMiB: 128, vmmOverheadMillis: 100 },
  ...{ maxMemoryMiB: 2048, maxVcpus: 2, defaultScratchBytes: 1 },
};

/** A running pod whose guest or host refuses its first change. */
function podThatFails(failing: 'guest' | 'host', resources: Resources) {
  const said: string[] = [];
  const step = async (who: 'guest' | 'host', what: string) => {
    said.push(`${who} ${what}`);
    if (who === failing && said.filter((line) => line.startsWith(who)).length === 1)
      throw new PodvmError('unavailable', `the ${who} refuses`);
  };
  const machine = {
    memoryMiB: 512,
    limitHost: ({ memoryBytes, cpuMillis }: HostLimits) => step('host', `${memoryBytes / mib} ${cpuMillis}`),
  };
  const guest = { call: async (_: string, params: unknown) => await step('guest', JSON.stringify(params)) };
  const spec: Pick<SandboxSpec, 'namespace' | 'name' | 'resources'> = { namespace: 'default', name: 'web', resources };
  const parts = { machine, guest, limits } as unknown as Parameters<typeof resize>[2]; // SAFE: all that it uses
  return { said, resize: (change: Resources) => resize(spec, change, parts, AbortSignal.timeout(60_000)) };
}

test('resize() undoes the limits in the guest when the host refuses them, also where there were none', async () => {
  const pod = podThatFails('host', { cpuLimitMillis: 1500 });
  await assert.rejects(pod.resize({ memoryLimitBytes: 100 * mib, cpuLimitMillis: 500 }), /the host refuses/);
  assert.deepEqual(pod.said, [
    `guest {"resources":{"memoryLimitBytes":${100 * mib},"cpuQuotaUs":50000,"cpuPeriodUs":100000}}`,
    'host 292 600',
    'guest {"resources":{"memoryLimitBytes":"none","cpuQuotaUs":150000,"cpuPeriodUs":100000}}',
  ]);
});

test('resize() undoes the limits on the host when the guest refuses larger ones', async () => {
  const pod = podThatFails('guest', { memoryLimitBytes: 100 * mib });
  await assert.rejects(pod.resize({ memoryLimitBytes: 200 * mib }), /the guest refuses/);
  assert.deepEqual(pod.said, [
    'host 392 undefined',
    `guest {"resources":{"memoryLimitBytes":${200 * mib}}}`,
    'host 292 undefined',
  ]);
});
