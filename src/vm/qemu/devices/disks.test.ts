import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DiskError } from '../../driver.ts';
import { Deletions } from './deletions.ts';
import { Disks } from './disks.ts';
import { MachineDirectory } from '../machine-directory.ts';
import type { QmpClient } from '../qmp/qmp.ts';

/** Disks with one attached, of a QEMU that accepts every command. */
async function attached() {
  // SAFE: disks use only `execute`
  const qmp = { execute: async () => ({}) } as unknown as QmpClient;
  const disks = new Disks(qmp, new Deletions(), new MachineDirectory(import.meta.dirname), 1);
  await disks.attach({ serial: 'scratch', file: 'disks.ts', readOnly: false }, new AbortController().signal);
  const told: DiskError[] = [];
  disks.onError((error) => told.push(error));
  return { disks, told };
}

test('failed() reports a full host by its reason, by device or by node', async () => {
  for (const of of [
    { 'qom-path': '/machine/peripheral/scsi-scratch' },
    { device: 'scsi-scratch' },
    { 'node-name': 'disk-scratch' },
  ]) {
    const { disks, told } = await attached();
    disks.failed({ ...of, operation: 'write', action: 'report', reason: 'No space left on device' });
    assert.deepEqual(told, [{ serial: 'scratch', operation: 'write', isFull: true }]);
  }
});

test('learn() finds all disks of a machine whose images have many layers', async () => {
  const disks = Array.from({ length: 20 }, (_, at) => `disk-image-${at}`);
  const files = Array.from({ length: 34 }, (_, at) => ({ 'node-name': `#block${at}` }));
  const nodes = disks.flatMap((name) => [...files, { 'node-name': name }]);
  // SAFE: disks use only `execute`
  const qmp = {
    execute: async (command: string) => (command === 'query-named-block-nodes' ? nodes : {}),
  } as unknown as QmpClient;
  const learned = new Disks(qmp, new Deletions(), new MachineDirectory(import.meta.dirname), 1);
  await learned.learn(new AbortController().signal);
  await learned.grow('image-19', 4096, new AbortController().signal);
});

test('failed() reports a disk at most once a second, and ignores unknown disks', async () => {
  const { disks, told } = await attached();
  for (let times = 0; times < 100; times += 1) disks.failed({ 'node-name': 'disk-scratch', operation: 'read' });
  for (const name of [undefined, 7, '', 'disk-other', 'scratch', `disk-${'x'.repeat(100)}`]) {
    disks.failed({ 'node-name': name, operation: 'write' });
  }
  assert.deepEqual(told, [{ serial: 'scratch', operation: 'read', isFull: false }]);
});
