import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import type { Attachment } from '#network/network.ts';
import { tracesOf } from '../leaks.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(120_000);
const pods = 500;
/** Number of sandboxes that are made and removed side by side. */
const width = 6;

describe('the network of a node', { skip, timeout: 400_000 }, () => {
  test(`connects ${pods} pods at once, every tenth with a host port, and has nothing left at the end`, async () => {
    const directory = await mkdtemp('/var/tmp/podvm-many-');
    const network = createHostNetwork({ stateDir: join(directory, 'network'), log: silentLog });
    const mark = directory.slice(-6).toLowerCase();
    const ids = Array.from({ length: pods }, (_, at) => `m-${mark}-${at}`);
    const attachments: Attachment[] = [];
    try {
      await sideBySide(ids.entries(), async ([at, sandboxId]) => {
        const hostPorts = at % 10 === 0 ? [{ hostPort: 20_000 + at, containerPort: 80, protocol: 'TCP' } as const] : [];
        const pod = { podName: 'pod', podNamespace: 'default', podUid: 'uid' };
        const request = { ...pod, sandboxId, mode: 'cni', hostPorts, tapOwnerUid: 64_999 } as const;
        const attachment = await network.prepare(request, soon());
        attachments.push(attachment);
        await attachment.connect(soon());
      });
      const made = new Set(await readdir('/run/netns'));
      assert.ok(ids.every((id) => made.has(`podvm-${id}`)));

      await sideBySide(attachments.values(), async (attachment) => await attachment[Symbol.asyncDispose]());
      assert.deepEqual(await tracesOf({ ids }), []);
      const addresses = await readdir(join(directory, 'network/ipam/podvm'));
      assert.deepEqual(
        addresses.filter((file) => /^[0-9a-f.:]+$/.test(file)),
        [],
      );
      assert.deepEqual(await readdir(join(directory, 'network/attachments')), []);
    } finally {
      await network.collect(new Set(), soon());
      await removeDefaultNetwork(join(directory, 'network'), soon());
      await rm(directory, { recursive: true });
    }
  });
});

async function sideBySide<T>(work: Iterator<T>, each: (item: T) => Promise<void>): Promise<void> {
  const worker = async () => {
    for (let next = work.next(); next.done !== true; next = work.next()) await each(next.value);
  };
  await Promise.all(Array.from({ length: width }, worker));
}
