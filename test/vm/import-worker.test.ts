import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { type ErrorKind, PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { runImport } from '#image/import/importer.ts';
import { imageLimits } from '#image/limits.ts';
import { openImageStore } from '#image/store/image-store.ts';
import { sysroot, traces } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { maySignal, openTo, otherUsers } from '../other-users.ts';
import { whyNoVm } from './node.ts';

const deadlineMs = 60_000;
const maxImportMs = 8_000;
const faults: readonly (readonly [how: 'SIGKILL' | 'SIGSTOP', kind: ErrorKind, message: RegExp])[] = [
  ['SIGKILL', 'unavailable', /the process that reads images/],
  ['SIGSTOP', 'exhausted', /it takes more than 8 s/],
];

/** Process id of the program in the jail, a descendant of this process: found in its first moments, as it may end soon. */
async function worker(): Promise<number | undefined> {
  for (let pids = await childrenOf(`${process.pid}`); pids.length > 0;) {
    for (const pid of pids) {
      const words = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
      if (words.startsWith('/podvm/node\0')) return Number(pid);
    }
    pids = (await Promise.all(pids.map(childrenOf))).flat();
  }
  return undefined;
}

/** The children that the main thread of a process has started. */
async function childrenOf(pid: string): Promise<readonly string[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'latin1').catch(() => '');
  return text.split(' ').filter(Boolean);
}

await suite('the process that imports an image', { skip: await whyNoVm(), timeout: 300_000 }, () => {
  for (const [how, kind, message] of faults) {
    test(`that gets ${how} fails the import at its deadline at the latest, leaves nothing, and the next one works`, async () => {
      const earlier = await traces();
      const directory = await mkdtemp('/var/tmp/podvm-store-');
      await run('chmod', ['0711', directory]);
      const limits = { ...imageLimits, maxImportMs };
      const options = { directory: join(directory, 'images'), sysroot: await sysroot(), log: silentLog, limits };
      const store = await openImageStore(options);
      const [image] = await writeLayout(join(directory, 'layout'), [
        { layers: [[{ name: 'hello', content: 'hello' }]], name: 'shop/hello:1' },
      ]);
      assert.ok(image);
      const load = () => store.load(image.layout, undefined, {}, AbortSignal.timeout(deadlineMs));

      const failing = load().then(
        () => assert.fail('it was loaded'),
        (error: PodvmError) => error,
      );
      const pid = await poll(worker, { everyMs: 1, signal: AbortSignal.timeout(deadlineMs) });
      process.kill(pid ?? assert.fail('no worker was seen'), how);
      const error = await failing;
      assert.match(error.message, message);
      assert.equal(error.kind, kind);
      assert.deepEqual(store.list(), []);
      assert.deepEqual(await readdir(join(directory, 'images/work')), []);
      assert.deepEqual(await readdir(join(directory, 'images/rootfs')), []);
      assert.equal(await worker(), undefined);

      const [loaded] = await load();
      assert.equal(loaded?.id, image.id);
      await rm(directory, { recursive: true });
      assert.deepEqual(await traces(), earlier);
    });
  }

  test('starts before its task is known, and ends with the reason for which there is none', async () => {
    const earlier = await traces();
    const directory = await mkdtemp('/var/tmp/podvm-store-');
    await run('chmod', ['0711', directory]);
    const task = Promise.withResolvers<never>();
    const work = join(directory, 'jail');
    const signal = AbortSignal.timeout(deadlineMs);
    const reading = runImport(task.promise, [], { doing: 'try', limits: imageLimits, work, signal });
    const ended = assert.rejects(reading, { kind: 'unsupported', message: 'no image for this machine' });
    assert.ok(await poll(worker, { everyMs: 1, signal }), 'no worker was seen');
    task.reject(new PodvmError('unsupported', 'no image for this machine'));
    await ended;
    assert.equal(await worker(), undefined);
    await rm(directory, { recursive: true });
    assert.deepEqual(await traces(), earlier);
  });

  test('and what it works on are out of reach of other users of the host', async () => {
    const directory = await mkdtemp('/var/tmp/podvm-store-');
    await run('chmod', ['0711', directory]);
    const images = join(directory, 'images');
    const store = await openImageStore({ directory: images, sysroot: await sysroot(), log: silentLog });
    const content = [{ name: 'hello', content: 'hello' }];
    const [image] = await writeLayout(join(directory, 'layout'), [{ layers: [content], name: 'shop/hello:1' }]);
    assert.ok(image);
    const loading = store.load(image.layout, undefined, {}, AbortSignal.timeout(deadlineMs));
    const pid =
      (await poll(worker, { everyMs: 1, signal: AbortSignal.timeout(deadlineMs) })) ?? assert.fail('no worker');
    process.kill(pid, 'SIGSTOP');
    try {
      for (const user of otherUsers) {
        assert.equal(await maySignal(user, pid), false, `${user}`);
        assert.deepEqual(await openTo(user, images), [], `${user}`);
      }
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    assert.equal((await loading)[0]?.id, image.id);
    for (const user of otherUsers) assert.deepEqual(await openTo(user, images), [], `${user}`);
    await rm(directory, { recursive: true });
  });
});
