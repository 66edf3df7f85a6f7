import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { poll } from '#host/wait.ts';
import { AttachmentRecords, type AttachmentRecord } from './attachment-record.ts';
import { HostAttachment, type AttachmentParts } from './host-attachment.ts';
import { createHostNetwork } from './host-network.ts';
import { LeftAttachments } from './left-attachments.ts';

test('an attachment of an earlier process whose plugin fails is tried again until it is removed', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'podvm-left-'));
  const attachments = join(stateDir, 'attachments');
  await mkdir(attachments);
  const away = join(stateDir, 'away');
  const calls = join(stateDir, 'calls');
  await writeFile(away, '');
  const plugin = join(stateDir, 'agent');
  await writeFile(plugin, `#!/bin/sh\necho "$CNI_COMMAND" >>${calls}\n[ ! -e ${away} ]\n`);
  await chmod(plugin, 0o755);
  const pod = { podName: 'pod', podNamespace: 'default', podUid: 'uid', mode: 'cni', hostPorts: [] };
  const conflist = { cniVersion: '1.0.0', name: 'podvm', plugins: [{ type: 'agent' }] };
  const record = { version: 1, sandboxId: 'sb-left', ...pod, tapOwnerUid: 1000, mac: '02:00:00:00:00:01', conflist };
  await writeFile(join(attachments, 'sb-left.json'), JSON.stringify(record));
  const soon = AbortSignal.timeout(60_000);
  const network = createHostNetwork({ stateDir, cniPluginDirs: [stateDir], collectAgainMs: 1, log: silentLog });
  const isLeft = async () => (await readdir(attachments)).length > 0;
  const mends = (until: () => Promise<boolean>) =>
    poll(
      async () => {
        assert.deepEqual(await network.mend([], soon), new Map());
        return (await until()) || undefined;
      },
      { everyMs: 10, signal: soon },
    );
  assert.deepEqual(await network.collect(new Set(), soon), []);
  const tries = async () => (await readdir(stateDir)).includes('calls') && isLeft();
  assert.ok(await mends(tries), 'it is kept on record');
  await rm(calls);
  assert.ok(await mends(tries), 'it is tried again');
  await rm(away);
  assert.ok(await mends(async () => !(await isLeft())), 'it is removed');
  await rm(stateDir, { recursive: true });
});

test('the address of an attachment with a torn record is freed although its removal fails at first', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'podvm-left-'));
  const addresses = join(stateDir, 'ipam/podvm');
  const notFile = join(stateDir, 'attachments/sb-torn.json.tmp');
  await mkdir(notFile, { recursive: true }); // cannot be removed as a file
  await mkdir(addresses, { recursive: true });
  await writeFile(join(stateDir, 'attachments/sb-torn.json'), '{"version":1,');
  await writeFile(join(addresses, '10.86.0.9'), 'sb-torn\r\neth0');
  const soon = AbortSignal.timeout(60_000);
  const network = createHostNetwork({ stateDir, collectAgainMs: 1, log: silentLog });
  assert.deepEqual(await network.collect(new Set(), soon), []);
  assert.deepEqual(await readdir(addresses), ['10.86.0.9']);
  await rmdir(notFile);
  const isFreed = async () => {
    await network.mend([], soon);
    return (await readdir(addresses)).length === 0 || undefined;
  };
  assert.ok(await poll(isFreed, { everyMs: 10, signal: soon }));
  await rm(stateDir, { recursive: true });
});

const request: AttachmentRecord = {
  version: 1,
  sandboxId: 'sb-unprepared',
  podName: 'pod',
  podNamespace: 'default',
  podUid: 'uid',
  mode: 'none',
  hostPorts: [],
  tapOwnerUid: 1000,
  mac: '02:00:00:00:00:01',
};

test('an attachment that can neither be prepared nor undone is tried again, and its caller gets the first error', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-left-'));
  let fails = true;
  class Records extends AttachmentRecords {
    override async remove(sandboxId: string): Promise<void> {
      if (fails) throw new Error('the disk does not answer');
      await super.remove(sandboxId);
    }
  }
  const records = new Records(directory);
  const removed: string[] = [];
  const parts: AttachmentParts = {
    records,
    chain: () => assert.fail('needs no chain'),
    pluginDirs: [],
    pluginTimeoutMs: 1000,
    onUnprepared: (sandboxId, why) => left.keep(sandboxId, why),
    claim: () => ({}),
    onUnfiltered: () => undefined,
    onMended: () => undefined,
    released: (sandboxId) => void removed.push(sandboxId),
  };
  const left = new LeftAttachments({
    records,
    open: (record) => new HostAttachment(record, parts),
    free: async () => undefined,
    againMs: 1,
    log: silentLog,
  });
  const aborted = AbortSignal.abort(new Error('the pod was removed'));
  await assert.rejects(HostAttachment.prepare(request, {}, parts, aborted), /cancelled/);
  assert.deepEqual(await records.list(), ['sb-unprepared']);
  const soon = AbortSignal.timeout(60_000);
  const isRemoved = async () => {
    left.tryAgain(soon);
    fails = false;
    return removed.length > 0 || undefined;
  };
  assert.ok(await poll(isRemoved, { everyMs: 10, signal: soon }));
  assert.deepEqual(await readdir(directory), []);
  await rm(directory, { recursive: true });
});

test('a record that cannot be written leaves no file', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-left-'));
  await mkdir(join(directory, 'sb-unprepared.json')); // cannot be replaced by a file
  await assert.rejects(new AttachmentRecords(directory).write(request), { code: 'EISDIR' });
  assert.deepEqual(await readdir(directory), ['sb-unprepared.json']);
  await rm(directory, { recursive: true });
});
