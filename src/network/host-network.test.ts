import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import { createHostNetwork } from './host-network.ts';
import { findLoss, hostLinkOf } from './lost-links.ts';

const record: AttachmentRecord = {
  version: 1,
  sandboxId: 'sb-1',
  podName: 'pod',
  podNamespace: 'default',
  podUid: 'uid',
  mode: 'cni',
  hostPorts: [],
  tapOwnerUid: 1000,
  mac: '02:00:00:00:00:01',
  conflist: { cniVersion: '1.0.0', name: 'podvm', plugins: [{ type: 'bridge', bridge: 'podvm0' }] },
  added: {
    interfaces: [
      { name: 'podvm0', mac: '02:00:00:00:00:02' },
      { name: 'veth1', mac: '02:00:00:00:00:03' },
      { name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/run/netns/podvm-sb-1' },
    ],
    ips: [{ address: '10.86.0.5/20', gateway: '10.86.0.1' }],
  },
};

test('collect() frees addresses whose holder has no record, or whose file is damaged, and repairs those in use', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'podvm-network-'));
  const addresses = join(stateDir, 'ipam/podvm');
  await mkdir(addresses, { recursive: true });
  await mkdir(join(stateDir, 'attachments'));
  await writeFile(join(stateDir, 'attachments/sb-1.json'), JSON.stringify(record));
  const files = {
    '10.86.0.2': 'sb-gone\r\neth0',
    '10.86.0.3': '',
    '10.86.0.4': 'sb-',
    '10.86.0.5': '',
    'fd00::3': '',
    'last_reserved_ip.0': '10.86.0.5',
    lock: '',
  };
  for (const [file, content] of Object.entries(files)) await writeFile(join(addresses, file), content);
  await createHostNetwork({ stateDir, log: silentLog }).collect(new Set(['sb-1']), AbortSignal.timeout(60_000));
  assert.deepEqual((await readdir(addresses)).sort(), ['10.86.0.5', 'last_reserved_ip.0', 'lock']);
  assert.equal(await readFile(join(addresses, '10.86.0.5'), 'utf8'), 'sb-1\r\neth0');
  await rm(stateDir, { recursive: true });
});

test('hostLinkOf() finds the host’s link and its bridge in the plugins’ answer', () => {
  assert.deepEqual(hostLinkOf(record), { name: 'veth1', mac: '02:00:00:00:00:03', bridge: 'podvm0' });
  const { added: _, ...unadded } = record;
  assert.equal(hostLinkOf(unadded), undefined);
  const ptp = { ...record, added: { interfaces: [{ name: 'veth9' }, { name: 'eth0', sandbox: '/run/netns/x' }] } };
  assert.deepEqual(hostLinkOf(ptp), { name: 'veth9', mac: undefined, bridge: undefined });
});

test('findLoss() detects the lost name of a netns, and ignores a pod whose process has ended', () => {
  assert.equal(findLoss(record, { sandboxId: 'sb-1', pid: process.pid }), 'netns name');
  assert.equal(findLoss(record, { sandboxId: 'sb-1', pid: 2 ** 22 + 1 }), undefined);
});
