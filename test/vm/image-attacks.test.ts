import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type ErrorKind, PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { imageUser } from '#image/import/image-user.ts';
import { openImageStore } from '#image/store/image-store.ts';
import type { ImageStore } from '#image/images.ts';
import { imageLimits } from '#image/limits.ts';
import { startEndlessRegistry } from '../images/bad-registries.ts';
import {
  writeDeepArchive,
  writeLinksArchive,
  writeWhiteoutArchive,
  writeXattrArchive,
} from '../images/hostile-archives.ts';
import { watchTurns } from '../busy-time.ts';
import { pidsThatMount, sysroot, traces } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { whyNoVm } from './node.ts';

const MiB = 1024 ** 2;
const minutes = () => AbortSignal.timeout(300_000);
/** Limit of the work for which the process that serves pods answers no one, in `ms`. */
const maxDelayMs = 1000;
const maxGrowthBytes = 100 * MiB;

await suite('images that attack the process that serves pods', { skip: await whyNoVm() }, () => {
  let directory: string;
  let store: ImageStore;
  let earlier: readonly string[];
  const archive = (name: string) => join(directory, 'closed', `${name}.tar`);

  before(async () => {
    earlier = await traces();
    directory = await mkdtemp('/var/tmp/podvm-store-');
    await chmod(directory, 0o711);
    await mkdir(join(directory, 'closed'), { mode: 0o700 }); // as root's home is
    store = await openStore('images');
    await writeXattrArchive(archive('xattrs'), 5000);
    await writeLinksArchive(archive('links'), 20_000);
    await writeWhiteoutArchive(archive('whiteouts'), 10_000);
    await writeDeepArchive(archive('deep'), 1100);
  });
  after(async () => {
    await rm(directory, { recursive: true });
    assert.deepEqual(await traces(), earlier);
    assert.deepEqual(await cgroupsOfImports(process.pid), []);
  });

  const openStore = async (name: string, limits = imageLimits) =>
    await openImageStore({ directory: join(directory, name), sysroot: await sysroot(), log: silentLog, limits });

  /** Asserts that the work fails with this error, and that this process meanwhile answers and does not grow. */
  const assertHarmless = async (work: () => Promise<unknown>, kind: ErrorKind, message: RegExp) => {
    const rssBefore = process.memoryUsage.rss();
    using turns = watchTurns();
    await assert.rejects(work(), (error) => {
      assert.ok(error instanceof PodvmError, String(error));
      assert.match(error.message, message);
      assert.equal(error.kind, kind);
      assert.ok(error.fix);
      return true;
    });
    assert.ok(turns.longestMs() < maxDelayMs, `held up for ${turns.longestMs()} ms`);
    const growth = process.memoryUsage.rss() - rssBefore;
    assert.ok(growth < maxGrowthBytes, `grew by ${growth} bytes`);
    assert.deepEqual(store.list(), []);
    assert.deepEqual(await readdir(join(directory, 'images/work')), []);
  };
  const assertRefused = async (name: string, kind: ErrorKind, message: RegExp) => {
    await assertHarmless(() => store.load(archive(name), undefined, {}, minutes()), kind, message);
  };

  test('stops attributes that are small for each file and 300 MB for all', async () => {
    await assertRefused('xattrs', 'exhausted', /its names and attributes have more than 268435456 bytes together/);
  });

  test('stops links that take a billion steps to follow', async () => {
    await assertRefused('links', 'exhausted', /its paths and links take more than 50000000 steps to follow/);
  });

  test('stops whiteouts that visit the same files repeatedly', async () => {
    await assertRefused('whiteouts', 'exhausted', /its paths and links take more than 50000000 steps to follow/);
  });

  test('stops files that bring hundreds of directories each', async () => {
    await assertRefused('deep', 'corrupt', /has more than 1000000 files/);
  });

  test('stops a layer that is larger than its manifest says', async () => {
    await using registry = await startEndlessRegistry(1000);
    const pull = () => store.pull(`${registry.name}/endless:1`, {}, minutes());
    const message = /a layer is larger than declared: the manifest says at most 1000 bytes for one .*, got more than/;
    await assertHarmless(pull, 'corrupt', message);
    assert.ok(registry.sentBytes() < 40 * MiB, `${registry.sentBytes()} bytes were fetched`);
  });

  test('fetches nothing of an image whose declared size exceeds the limit', async () => {
    await using registry = await startEndlessRegistry(imageLimits.maxImageBytes);
    const pull = () => store.pull(`${registry.name}/endless:1`, {}, minutes());
    await assertHarmless(pull, 'exhausted', /its layers have more than 34359738368 bytes, got 3435973/);
    assert.equal(registry.sentBytes(), 0);
  });

  test('reports that reading an image exceeded its memory or time', async () => {
    const limits = { ...imageLimits, maxMetadataBytes: 1e12, maxPathSteps: 1e12 };
    const small = await openStore('small', { ...limits, maxImportMemoryBytes: 200 * MiB });
    const load = small.load(archive('xattrs'), undefined, {}, minutes());
    await assert.rejects(load, {
      kind: 'exhausted',
      message: /it needs more memory than reading an image may use, 200/,
    });
    const short = await openStore('short', { ...limits, maxImportMs: 4000 });
    const late = short.load(archive('links'), undefined, {}, minutes());
    await assert.rejects(late, { kind: 'exhausted', message: /it takes more than 4 s/ });
  });

  test('runs the reader as an unprivileged user, without a network, capabilities or sight of this machine', async () => {
    const stuck = await openStore('stuck', { ...imageLimits, maxPathSteps: 1e12 });
    const abort = new AbortController();
    const load = stuck.load(archive('links'), undefined, {}, abort.signal);
    const pid = await reader(join(directory, 'stuck'));
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(status)?.[1]?.replaceAll('\t', ' ');
    const four = Array.from({ length: 4 }, () => imageUser).join(' ');
    assert.deepEqual([field('Uid'), field('Gid')], [four, four]);
    assert.equal(field('NoNewPrivs'), '1');
    assert.equal(field('Seccomp'), '2');
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) assert.match(field(set) ?? '', /^0+$/, set);
    for (const kind of ['net', 'pid', 'mnt', 'ipc', 'uts', 'user'])
      assert.notEqual(await readlink(`/proc/${pid}/ns/${kind}`), await readlink(`/proc/self/ns/${kind}`), kind);
    const seen = await readdir(`/proc/${pid}/root`);
    const shown = ['bin', 'dev', 'lib', 'lib64', 'podvm', 'proc', 'tmp', 'usr', 'work'];
    assert.deepEqual(seen.sort(), shown);
    const mounts = (await readFile(`/proc/${pid}/mountinfo`, 'latin1')).trim().split('\n');
    const writable = mounts.filter(
      (line) => / (?:ext4|xfs|btrfs|overlay) /.test(line) && / rw,/.test(line.split(' - ')[0] ?? ''),
    );
    assert.deepEqual(
      writable.map((line) => line.split(' ')[4]),
      ['/work'],
    );
    assert.match(await readFile(`/proc/${pid}/cgroup`, 'latin1'), /[/]podvm[/]import-\d+-\d+/);
    assert.equal(await readFile(`/proc/${pid}/oom_score_adj`, 'latin1'), '1000\n');
    abort.abort();
    await assert.rejects(load, { kind: 'cancelled' });
  });

  test('leaves no reader, and nothing on the disk, when podvm is killed', async () => {
    const images = join(directory, 'killed');
    await mkdir(images);
    const big = { layers: [[{ name: 'big', content: Buffer.alloc(150 * MiB, 'x') }]], name: 'big:1' };
    await writeLayout(join(directory, 'big'), [{ ...big, compression: 'none' }]);
    const program = join(import.meta.dirname, '../images/load-until-killed.ts');
    const child = spawn(process.execPath, [program, images, join(directory, 'big')], { stdio: 'inherit' });
    await reader(images);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const deadlineMs = Date.now() + 60_000;
    while ((await pidsThatMount(images)).length > 0) {
      assert.ok(Date.now() < deadlineMs, 'the reader lives on');
      await delay(20);
    }
    await openStore('killed');
    assert.deepEqual(await readdir(join(images, 'work')), []);
    const [written] = await writeLayout(join(directory, 'hello'), [{ layers: [[{ name: 'x' }]], name: 'x:1' }]);
    // Processes of the reader may still be ending in the cgroup; each import tries again.
    do {
      assert.ok(Date.now() < deadlineMs, 'no import removes the cgroup');
      await store.load(written?.layout ?? '', undefined, {}, minutes());
      await store.remove('x:1');
    } while ((await cgroupsOfImports(child.pid)).length > 0);
  });
});

/** The process in a jail that has something of this directory mounted, and reads an image. */
async function reader(directory: string): Promise<string> {
  const deadlineMs = Date.now() + 60_000;
  for (;;) {
    for (const pid of await pidsThatMount(directory)) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
      if (command.startsWith('/podvm/node\0')) return pid;
    }
    assert.ok(Date.now() < deadlineMs, 'no reader was started');
    await delay(20);
  }
}

async function cgroupsOfImports(pid: number | undefined): Promise<readonly string[]> {
  const root = await stat('/sys/fs/cgroup/cgroup.controllers').then(
    () => '/sys/fs/cgroup/podvm',
    () => '/sys/fs/cgroup/memory/podvm',
  );
  return (await readdir(root)).filter((name) => name.startsWith(`import-${pid}-`));
}
