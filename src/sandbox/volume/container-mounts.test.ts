import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import type { DeviceMode } from './block-mode.ts';
import { createContainerMounts } from './container-mounts.ts';
import type { HostMode } from './host-mode.ts';
import type { ImageMode } from './image-mode.ts';
import type { ContainerMount } from '../sandbox.ts';

const never = new AbortController().signal;

/** A mode that attaches every source, and records its actions. */
function place() {
  const journal: string[] = [];
  const share: HostMode = {
    async find({ source }) {
      if (source.path === '/missing') throw new PodvmError('notFound', 'Cannot share /missing: it is not there');
      journal.push(`find ${source.path}`);
      return {
        mode: 'share',
        key: source.path,
        async attach(volume) {
          journal.push(`attach ${source.path}`);
          return {
            guest: { volume },
            [Symbol.asyncDispose]: async () => void journal.push(`detach ${source.path}`),
          };
        },
        [Symbol.asyncDispose]: async () => void journal.push(`let go ${source.path}`),
      };
    },
  };
  const blockOf = (path: string) => ({
    serial: 'block-0',
    sizeBytes: 512,
    claim: { path, readOnly: false, device: { major: 7, minor: 1 }, keeper: { pid: 1, startTicks: '1' } },
  });
  const deviceMode: DeviceMode = {
    adopt: async (block) => ({
      block,
      [Symbol.asyncDispose]: async () => void journal.push(`detach adopted ${block.claim.path}`),
    }),
    find: async ({ hostPath }) => ({
      key: hostPath,
      async attach() {
        journal.push(`attach ${hostPath}`);
        return { block: blockOf(hostPath), [Symbol.asyncDispose]: async () => void journal.push(`detach ${hostPath}`) };
      },
    }),
  };
  const imageMode: ImageMode = {
    adopt: ({ guest, key }) => ({
      guest,
      [Symbol.asyncDispose]: async () => void journal.push(`detach adopted ${key}`),
    }),
    find: async ({ source }) => ({
      mode: 'image',
      key: source.image,
      async attach(volume) {
        journal.push(`attach ${source.image}`);
        return { guest: { volume }, [Symbol.asyncDispose]: async () => void journal.push(`detach ${source.image}`) };
      },
      [Symbol.asyncDispose]: async () => {},
    }),
  };
  const volumes = [{ name: 'data', kind: 'scratch' }] as const;
  const parts = { volumes, hostModes: [share], imageMode, deviceMode, log: silentLog };
  return { journal, mounts: createContainerMounts(parts) };
}

const ofHost = (path: string, more: Partial<ContainerMount> = {}): ContainerMount => ({
  source: { kind: 'host', path, propagation: 'private' },
  mountPath: `/mnt${path}`,
  readOnly: false,
  ...more,
});

test('prepare() returns the source in the guest and the way there for each mount', async () => {
  const { mounts } = place();
  const prepared = await mounts.prepare(
    {
      mounts: [
        { source: { kind: 'volume', name: 'data' }, mountPath: '/data', readOnly: true, subPath: 'a/b' },
        ofHost('/srv', { readOnly: true }),
      ],
      devices: [{ hostPath: '/dev/vdb', devicePath: '/dev/data', readOnly: false }],
    },
    never,
  );
  assert.deepEqual(prepared.guest, [
    { destination: '/data', readOnly: true, subPath: 'a/b', volume: 'data' },
    { destination: '/mnt/srv', readOnly: true, volume: 'host_1' },
  ]);
  assert.deepEqual(prepared.devices, [{ disk: 'block-0', path: '/dev/data', readOnly: false }]);
  assert.deepEqual(prepared.status, [
    { mountPath: '/data', mode: 'scratch' },
    { mountPath: '/mnt/srv', mode: 'share' },
    { mountPath: '/dev/data', mode: 'block' },
  ]);
});

test('a source is attached once for all containers that mount it, and detached with the last one', async () => {
  const { journal, mounts } = place();
  const one = await mounts.prepare({ mounts: [ofHost('/srv'), ofHost('/srv', { mountPath: '/other' })] }, never);
  const other = await mounts.prepare({ mounts: [ofHost('/srv')] }, never);
  await one[Symbol.asyncDispose]();
  assert.deepEqual(
    journal.filter((line) => line.startsWith('attach') || line.startsWith('detach')),
    ['attach /srv'],
  );
  await other[Symbol.asyncDispose]();
  assert.equal(journal.at(-1), 'detach /srv');
  assert.equal(journal.filter((line) => line.startsWith('find')).length, 3);
  assert.equal(journal.filter((line) => line.startsWith('let go')).length, 3);
});

test('a failed mount leaves none of the others attached', async () => {
  const { journal, mounts } = place();
  await assert.rejects(mounts.prepare({ mounts: [ofHost('/srv'), ofHost('/missing')] }, never), { kind: 'notFound' });
  assert.equal(journal.at(-1), 'detach /srv');
  await assert.rejects(
    mounts.prepare({ mounts: [{ source: { kind: 'volume', name: 'none' }, mountPath: '/x', readOnly: false }] }, never),
    { kind: 'notFound' },
  );
});

test('everything is removed when the sandbox ends, even if still held', async () => {
  const { journal, mounts } = place();
  const devices = [{ hostPath: '/dev/vdb', devicePath: '/dev/data', readOnly: false }];
  const prepared = await mounts.prepare({ mounts: [ofHost('/srv'), ofHost('/opt')], devices }, never);
  await mounts[Symbol.asyncDispose]();
  assert.deepEqual(journal.filter((line) => line.startsWith('detach')).sort(), [
    'detach /dev/vdb',
    'detach /opt',
    'detach /srv',
  ]);
  await prepared[Symbol.asyncDispose]();
  assert.equal(journal.filter((line) => line.startsWith('detach')).length, 3);
});

test('an image is mounted read-only, and attached once for all that mount it', async () => {
  const { journal, mounts } = place();
  const ofImage = (mountPath: string, more: Partial<ContainerMount> = {}): ContainerMount => ({
    source: { kind: 'image', image: 'models', pullPolicy: 'Never' },
    mountPath,
    readOnly: false,
    ...more,
  });
  const prepared = await mounts.prepare({ mounts: [ofImage('/a'), ofImage('/b', { subPath: 'bin' })] }, never);
  const [{ volume } = { volume: '' }] = prepared.guest;
  assert.deepEqual(prepared.guest, [
    { destination: '/a', readOnly: true, volume },
    { destination: '/b', readOnly: true, volume, subPath: 'bin' },
  ]);
  assert.deepEqual(
    prepared.status.map(({ mode }) => mode),
    ['image', 'image'],
  );
  await prepared[Symbol.asyncDispose]();
  assert.deepEqual(journal, ['attach models', 'detach models']);
});

test('sources of a container that is taken over are shared with new containers, and released with the last', async () => {
  const wanted = {
    mounts: [
      ofHost('/srv'),
      { source: { kind: 'image', image: 'i', pullPolicy: 'Never' }, mountPath: '/i', readOnly: true },
    ],
    devices: [{ hostPath: '/dev/vdb', devicePath: '/dev/data', readOnly: false }],
  } as const;
  const { status, sources } = await place().mounts.prepare(wanted, never);
  const { journal, mounts } = place();
  await assert.rejects(mounts.adopt({ status, sources }, never), /Cannot take over \/srv: nothing is on record/);
  const known = sources.filter(({ mode }) => mode !== 'share');
  await using adopted = await mounts.adopt({ status, sources: known }, never);
  assert.deepEqual(adopted.status, status);
  const next = await mounts.prepare(wanted, never);
  assert.equal(journal.includes('attach /dev/vdb'), false);
  assert.equal(next.guest[1]?.volume, sources[1]?.guest.volume);
  assert.equal(next.guest[0]?.volume, 'host_3', 'no name is given out twice');
  await next[Symbol.asyncDispose]();
  assert.equal(
    journal.some((line) => line.startsWith('detach adopted')),
    false,
  );
  await adopted[Symbol.asyncDispose]();
  assert.deepEqual(
    journal.filter((line) => line.startsWith('detach adopted')),
    ['detach adopted /dev/vdb', 'detach adopted image i'],
  );
});
