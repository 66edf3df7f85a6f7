import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodModules } from './pod-modules.ts';

const list = [
  'module nfnetlink nfnetlink.ko -',
  'module nf_tables nf_tables.ko nfnetlink',
  'module nft_ct nft_ct.ko nfnetlink,nf_tables',
  'module sha_a sha_a.ko -',
  'module sha_b sha_b.ko -',
  'alias nft_expr_ct nft_ct',
  'alias crypto_sha sha_a,sha_b',
  '',
].join('\n');

/** A guest whose children end when the test says so, and whose kernel refuses some modules. */
function guest({ refused = {}, busy = 0 }: { refused?: Readonly<Record<string, number>>; busy?: number } = {}) {
  const inserted: string[] = [];
  const warned: string[] = [];
  const engine = {
    readText: () => list,
    loadModuleAside: (path: string) => {
      if (busy > 0) {
        busy -= 1;
        return 0;
      }
      return inserted.push(path.replace('/disk/', ''));
    },
    setTimer: (_ms: number, handler: () => void) => {
      queueMicrotask(handler);
      return 0;
    },
  };
  const wait = async (pid: number) => {
    const code = refused[inserted[pid - 1] ?? ''] ?? 0;
    return { pid, code, signal: undefined, maxRssKiB: 0 };
  };
  const modules = new PodModules({ engine, children: { wait }, warn: (text) => void warned.push(text) }, '/disk');
  return { modules, inserted, warned };
}

test('load() loads dependencies first, and every module once, also for concurrent calls', async () => {
  const { modules, inserted } = guest();
  assert.deepEqual(
    await Promise.all([modules.load('nft-ct'), modules.load('nf_tables'), modules.load('nft-expr-ct')]),
    [true, true, true],
  );
  assert.deepEqual(inserted, ['nfnetlink.ko', 'nf_tables.ko', 'nft_ct.ko']);
});

test('load() loads all that has an alias', async () => {
  const { modules, inserted } = guest();
  assert.equal(await modules.load('crypto-sha'), true);
  assert.deepEqual(inserted, ['sha_a.ko', 'sha_b.ko']);
});

test('load() loads nothing that is not on the list', async () => {
  const { modules, inserted } = guest();
  for (const name of ['', 'vcan', 'nft', 'nft_ct nft_ct.ko', 'nft_ct\n', '../x', 'x'.repeat(65), 'module', 'é'])
    assert.equal(await modules.load(name), false, name);
  assert.deepEqual(inserted, []);
});

test('load() reports a module that the kernel refuses, loads none that need it, and retries the next time', async () => {
  const { modules, inserted, warned } = guest({ refused: { 'nf_tables.ko': 129 } });
  assert.equal(await modules.load('nft_ct'), false);
  assert.deepEqual(warned, ['the kernel refuses the module nf_tables: error 129']);
  assert.equal(await modules.load('nf_tables'), false);
  assert.deepEqual(inserted, ['nfnetlink.ko', 'nf_tables.ko', 'nf_tables.ko']);
});

test('load() waits while the maximum number of modules is being loaded', async () => {
  const { modules, inserted } = guest({ busy: 3 });
  assert.equal(await modules.load('sha_a'), true);
  assert.deepEqual(inserted, ['sha_a.ko']);
});
