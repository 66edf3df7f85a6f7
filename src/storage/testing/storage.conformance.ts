import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import type { claimBlock } from '../block-claim.ts';
import type { FileServerRequest, FileServers } from '../file-server.ts';
import { openHostSource } from '../host-source.ts';
import { maxScratchBytes, minScratchBytes, type makeScratchDisk, type makeVolumeDisk } from '../scratch-disk.ts';

const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};
const mebibyte = 1024 * 1024;

/** A directory that has to be empty again after each test. */
function inDirectory(): { readonly path: string } {
  const directory = { path: '' };
  before(async () => {
    directory.path = await mkdtemp(join(tmpdir(), 'podvm-storage-'));
  });
  after(async () => {
    assert.deepEqual(await readdir(directory.path), []);
    await rm(directory.path, { recursive: true });
  });
  return directory;
}

export interface Disks {
  readonly makeScratchDisk: typeof makeScratchDisk;
  readonly makeVolumeDisk: typeof makeVolumeDisk;
}

/** The suite of functions that make a pod's own disks. */
export function describeDisks(name: string, { makeScratchDisk, makeVolumeDisk }: Disks): void {
  describe(`${name} disks`, { timeout: 60_000 }, () => {
    const directory = inDirectory();
    const ownerUid = process.getuid?.() === 0 ? 1000 : (process.getuid?.() ?? 0);
    const scratch = (file: string, sizeBytes: number, signal = soon()) =>
      makeScratchDisk({ path: join(directory.path, file), sizeBytes, ownerUid }, signal);
    const volume = (file: string, roomBytes: number, signal = soon()) =>
      makeVolumeDisk({ path: join(directory.path, file), roomBytes, ownerUid }, signal);

    test('have sizes that a file system fits, or are refused', async () => {
      for (const bytes of [0, -1, 1.5, minScratchBytes - 1, maxScratchBytes + 1, Number.NaN])
        await assert.rejects(scratch('no', bytes), kind('invalid'), String(bytes));
      for (const bytes of [-1, 0.5, maxScratchBytes, Number.NaN])
        await assert.rejects(volume('no', bytes), kind('invalid'), String(bytes));
    });

    test('are sparse files of their owner alone, gone when they are disposed of, however often', async () => {
      const disks = [await scratch('scratch', 1024 * mebibyte), await volume('volume', 10 * mebibyte)];
      for (const disk of disks) {
        const { size, blocks, mode, uid, gid } = await stat(disk.path);
        assert.equal(size, disk.sizeBytes);
        assert.ok(blocks * 512 < size / 2, `${blocks} blocks`);
        assert.deepEqual([mode & 0o777, uid, gid], [0o600, ownerUid, ownerUid]);
      }
      assert.ok((disks[1]?.sizeBytes ?? 0) > 10 * mebibyte, 'its room, and tables');
      for (const disk of [...disks, ...disks]) await disk[Symbol.asyncDispose]();
    });

    test('leave nothing when they are cancelled', async () => {
      await assert.rejects(scratch('cancelled', minScratchBytes, AbortSignal.abort()), kind('cancelled'));
      await assert.rejects(volume('cancelled', mebibyte, AbortSignal.abort()), kind('cancelled'));
    });

    test('are made in a directory that is there', async () => {
      await assert.rejects(scratch('none/disk', minScratchBytes));
    });

    test('take the place of no other file', async () => {
      await using first = await scratch('taken', minScratchBytes);
      await assert.rejects(scratch('taken', minScratchBytes));
      assert.equal((await stat(first.path)).size, minScratchBytes);
    });
  });
}

export interface ClaimsHarness extends AsyncDisposable {
  readonly claimBlock: typeof claimBlock;
  /** A process for which a claim is made. */
  readonly vmmPid: number;
}

/** The suite of claims on block devices, with image files. */
export function describeClaims(name: string, open: () => Promise<ClaimsHarness>, skip: string | false = false): void {
  describe(`${name} claims`, { timeout: 60_000, skip }, () => {
    const directory = inDirectory();
    let harness: ClaimsHarness;
    before(async () => {
      harness = await open();
    });
    after(async () => await harness[Symbol.asyncDispose]());
    const claim = (path: string, readOnly = false, signal = soon()) =>
      harness.claimBlock({ path, readOnly, vmmPid: harness.vmmPid }, signal);
    const makeImage = async (file: string, bytes = mebibyte) => {
      const path = join(directory.path, file);
      await writeFile(path, '');
      await truncate(path, bytes);
      return { path, [Symbol.asyncDispose]: () => rm(path) };
    };

    test('refuse what is not there, and what is no disk', async () => {
      await assert.rejects(claim(join(directory.path, 'none')), kind('notFound'));
      await assert.rejects(claim(directory.path), kind('unsupported'));
      for (const bytes of [0, 1000]) {
        await using image = await makeImage('odd', bytes);
        await assert.rejects(claim(image.path), kind('failedPrecondition'));
      }
    });

    test('are given once, for reading or writing, and again when they were given back', async () => {
      await using image = await makeImage('one');
      const first = await claim(image.path);
      await assert.rejects(claim(image.path), kind('busy'));
      await assert.rejects(claim(image.path, true), kind('busy'));
      await first[Symbol.asyncDispose]();
      await using _next = await claim(image.path, true);
    });

    test('are a device each, which follows a file that grows', async () => {
      await using one = await makeImage('first');
      await using other = await makeImage('second');
      await using first = await claim(one.path);
      await using second = await claim(other.path);
      assert.notDeepEqual(first.device, second.device);
      assert.equal(await first.measure(soon()), mebibyte);
      await truncate(one.path, 3 * mebibyte);
      assert.equal(await first.measure(soon()), 3 * mebibyte);
      assert.equal(await second.measure(soon()), mebibyte);
    });

    test('hold nothing when they are cancelled', async () => {
      await using image = await makeImage('cancelled');
      await assert.rejects(claim(image.path, false, AbortSignal.abort()), kind('cancelled'));
      await using _next = await claim(image.path);
    });
  });
}

export interface FileServersHarness extends AsyncDisposable {
  readonly files: FileServers;
  /** A connection: the server's end, and its client's. */
  connect(): Promise<{ readonly channel: Duplex; readonly client: Duplex }>;
}

/** The suite of file servers. */
export function describeFileServers(
  name: string,
  open: () => Promise<FileServersHarness>,
  skip: string | false = false,
): void {
  describe(`${name} file servers`, { timeout: 60_000, skip }, () => {
    const directory = inDirectory();
    let harness: FileServersHarness;
    let made = 0;
    before(async () => {
      harness = await open();
    });
    after(async () => await harness[Symbol.asyncDispose]());

    /** Starts one for a path; `confined`: the processes that are under limits. */
    const start = async (path: string, signal = soon()) => {
      const confined: number[] = [];
      const { channel, client } = await harness.connect();
      const source = await openHostSource(path);
      const request: FileServerRequest = {
        channel,
        source,
        access: 'readWrite',
        propagation: 'private',
        mapsUsers: false,
        owner: 'sb-suite',
        name: `share-${(made += 1)}`,
        logPath: join(directory.path, `share-${made}.log`),
        confine: async (pid) => {
          confined.push(pid);
          return { [Symbol.asyncDispose]: async () => void confined.splice(confined.indexOf(pid), 1) };
        },
      };
      const serve = async () => {
        await using _source = source;
        return await harness.files.serve(request, signal);
      };
      return { serving: serve(), client, channel, confined };
    };

    test('work under the limits of their machine, and end when they are disposed of, however often', async () => {
      const { serving, confined } = await start(directory.path);
      const server = await serving;
      assert.deepEqual(confined, [server.record.pid]);
      assert.equal(server.record.file, undefined);
      await server[Symbol.asyncDispose]();
      await server.ended;
      assert.deepEqual(confined, []);
      await server[Symbol.asyncDispose]();
    });

    test('end when their client leaves', async () => {
      const { serving, client, confined } = await start(directory.path);
      const server = await serving;
      client.destroy();
      await server.ended;
      await server[Symbol.asyncDispose]();
      assert.deepEqual(confined, []);
    });

    test('have processes of their own', async () => {
      await using one = await (await start(directory.path)).serving;
      await using other = await (await start(directory.path)).serving;
      assert.ok(one.record.pid > 1 && other.record.pid > 1);
      assert.equal(new Set([one.record.pid, other.record.pid, process.pid]).size, 3);
    });

    test('say the name of a file that is served alone', async () => {
      const path = join(directory.path, 'alone');
      await writeFile(path, '');
      await using server = await (await start(path)).serving;
      assert.equal(server.record.file, 'alone');
      await rm(path);
    });

    test('leave nothing when they are cancelled, and close the connection', async () => {
      const { serving, channel, confined } = await start(directory.path, AbortSignal.abort());
      await assert.rejects(serving, kind('cancelled'));
      assert.deepEqual(confined, []);
      assert.equal(channel.destroyed, true);
    });
  });
}
