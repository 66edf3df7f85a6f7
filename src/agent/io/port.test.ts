import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { FileStatus } from '#engine/engine.ts';
import { findPort, openPort } from './port.ts';

const status: FileStatus = {
  kind: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  inode: 1,
  device: 1,
  major: 0,
  minor: 0,
  modifiedMs: 0,
};

/** A fake kernel that shows its ports after some polls. */
function kernel(ports: Readonly<Record<string, string>>, shownAfterLooks = 0) {
  let looks = 0;
  return {
    status: () => status,
    list: () => ((looks += 1) > shownAfterLooks ? Object.keys(ports) : []),
    readText: (path: string) => `${ports[path.split('/')[4] ?? ''] ?? ''}\n`,
    open: (path: string) => Number(path.at(-1)),
    setTimer: (_delayMs: number, handler: () => void) => {
      queueMicrotask(handler);
      return 0;
    },
  };
}

describe('findPort()', () => {
  it('returns undefined when no port has that name', () => {
    assert.equal(findPort(kernel({ vport0p1: 'podvm.agent2' }), 'podvm.agent'), undefined);
  });

  it('finds a port by name, not by number', () => {
    const ports = { vport0p1: 'volume', vport0p2: 'podvm.agent' };
    assert.equal(findPort(kernel(ports), 'podvm.agent'), '/dev/vport0p2');
  });
});

describe('openPort()', () => {
  it('fails after its time limit', async () => {
    await assert.rejects(openPort(kernel({}), 'podvm.agent', 100), /missing after 100 ms/);
  });

  it('waits for a port that appears late', async () => {
    assert.equal(await openPort(kernel({ vport0p7: 'podvm.agent' }, 5), 'podvm.agent', 100), 7);
  });
});
