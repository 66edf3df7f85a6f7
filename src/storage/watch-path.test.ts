import assert from 'node:assert/strict';
import { appendFile, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { watchPath } from './watch-path.ts';

const timing = { settleMs: 5, recheckMs: 30_000, retryMs: 5 };
let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'podvm-watch-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** Records what a watcher has read; waits for a text until a deadline. */
function createSeen() {
  let text = '';
  let wake = Promise.withResolvers<void>();
  return {
    set(now: string) {
      text = now;
      wake.resolve();
      wake = Promise.withResolvers();
    },
    async becomes(wanted: string) {
      const deadline = AbortSignal.timeout(60_000);
      for (;;) {
        if (text === wanted) return;
        assert.ok(!deadline.aborted, `expected ${wanted}, got ${text}`);
        const over = new Promise<void>((resolve) => deadline.addEventListener('abort', () => resolve()));
        await Promise.race([wake.promise, over]);
      }
    },
  };
}
const fail = (error: unknown) => assert.fail(String(error));

async function switchTo(version: string, text: string): Promise<void> {
  await mkdir(join(directory, version));
  await writeFile(join(directory, version, 'key'), text);
  await symlink(version, join(directory, '..data_tmp'));
  await rename(join(directory, '..data_tmp'), join(directory, '..data'));
}

test('watchPath() sees each switch of a volume’s version', async () => {
  await switchTo('..1', 'one');
  const seen = createSeen();
  await using _watch = watchPath({
    path: directory,
    onChange: async () => seen.set(await readFile(join(directory, '..data/key'), 'utf8')),
    onTrouble: fail,
    timing,
  });
  await seen.becomes('one');
  await switchTo('..2', 'two');
  await seen.becomes('two');
  await switchTo('..3', 'three');
  await seen.becomes('three');
});

test('watchPath() sees a file that is written in place, and one that is replaced', async () => {
  const path = join(directory, 'hosts');
  await writeFile(path, 'a');
  const seen = createSeen();
  const onChange = async () => seen.set(await readFile(path, 'utf8'));
  await using _watch = watchPath({ path, onChange, onTrouble: fail, timing });
  await seen.becomes('a');
  await appendFile(path, 'b');
  await seen.becomes('ab');
  await writeFile(`${path}.new`, 'c');
  await rename(`${path}.new`, path);
  await seen.becomes('c');
});

test('watchPath() reports a failure once, retries, and sees the current content', async () => {
  const path = join(directory, 'late');
  const troubles: unknown[] = [];
  const told = Promise.withResolvers<void>();
  const seen = createSeen();
  let failures = 3;
  await using _watch = watchPath({
    path,
    onChange: async () => {
      failures -= 1;
      if (failures > 0) throw new Error('the guest does not answer');
      seen.set(await readFile(path, 'utf8'));
    },
    onTrouble: (error) => {
      troubles.push(error);
      told.resolve();
    },
    timing,
  });
  await told.promise;
  await writeFile(path, 'here');
  await seen.becomes('here');
  assert.match(String(troubles[0]), /ENOENT/);
  assert.equal(troubles.length, 1);
});

test('watchPath() checks again without an event', async () => {
  await writeFile(join(directory, 'key'), '');
  let looks = 0;
  const thrice = Promise.withResolvers<void>();
  await using _watch = watchPath({
    path: directory,
    onChange: async () => {
      looks += 1;
      if (looks === 3) thrice.resolve();
    },
    onTrouble: fail,
    timing: { ...timing, recheckMs: 5 },
  });
  await thrice.promise;
});

test('watchPath() aborts a pending onChange when it is disposed, and stops', async () => {
  await writeFile(join(directory, 'key'), '');
  const begun = Promise.withResolvers<void>();
  let ended = 0;
  const watching = watchPath({
    path: directory,
    onChange: (signal) => {
      begun.resolve();
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          ended += 1;
          reject(new Error('stopped'));
        });
      });
    },
    onTrouble: fail,
    timing,
  });
  await begun.promise;
  await watching[Symbol.asyncDispose]();
  await watching[Symbol.asyncDispose]();
  assert.equal(ended, 1);
});
