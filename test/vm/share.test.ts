import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { containerSpec, sandboxSpec } from '#sandbox/examples.ts';
import type { ContainerMount, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { openHouse, whyNoVm, type House } from './house.ts';

const image = 'localhost/podvm/base:latest';
const minute = () => AbortSignal.timeout(60_000);
const skip = await whyNoVm();

let attempts = 0;

/** Runs a script to its end and returns how it ended and all it said. */
async function runScript(sandbox: Sandbox, script: string, more: Partial<ContainerSpec> = {}) {
  const spec = { ...containerSpec, image, name: `c${(attempts += 1)}`, command: ['sh', '-c', script], ...more };
  const container = await sandbox.createContainer(spec, minute());
  const chunks: Buffer[] = [];
  const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
  await container.start(minute());
  const exit = await container.exited;
  await follower.ended;
  await container.remove(minute());
  return { exit, output: Buffer.concat(chunks).toString(), container };
}

const ofHost = (path: string, more: Partial<ContainerMount> = {}): ContainerMount => ({
  source: { kind: 'host', path, propagation: 'private' },
  mountPath: '/mnt',
  readOnly: false,
  ...more,
});

describe('a directory of the host in a real machine', { skip, timeout: 600_000 }, () => {
  let house: House;
  let sandbox: Sandbox;
  let directory: string;

  before(async () => {
    directory = await mkdtemp('/var/tmp/podvm-share-');
    house = await openHouse();
    sandbox = await house.sandboxes.run({ ...sandboxSpec, name: 'share', network: 'none' }, minute());
  });
  after(async () => {
    await house[Symbol.asyncDispose]();
    assert.deepEqual(await house.leftovers(), []);
    await rm(directory, { recursive: true });
  });

  test('is read and written from both sides', async () => {
    await writeFile(join(directory, 'from-host'), 'hello\n');
    const { output } = await runScript(sandbox, 'cat /mnt/from-host; echo there > /mnt/from-guest; mount | grep mnt', {
      mounts: [ofHost(directory)],
    });
    assert.match(output, /^hello\n/);
    assert.equal(await readFile(join(directory, 'from-guest'), 'utf8'), 'there\n');
  });
});
