import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { PodvmError } from '#base/errors.ts';
import { ImageSpecSchema, MountPropagation, MountSchema, type Mount } from '../schema/api_pb.ts';
import { mountsOf } from './mounts.ts';

const mount = (more: Partial<Omit<Mount, '$typeName' | '$unknown'>> = {}): Mount => ({
  ...create(MountSchema, { containerPath: '/data', hostPath: '/srv' }),
  ...more,
});

test('mountsOf() converts host paths with access and propagation', () => {
  const { PROPAGATION_HOST_TO_CONTAINER, PROPAGATION_BIDIRECTIONAL } = MountPropagation;
  assert.deepEqual(
    mountsOf('container c', [
      mount(),
      mount({ readonly: true, propagation: PROPAGATION_HOST_TO_CONTAINER, selinuxRelabel: true }),
      mount({ readonly: true, recursiveReadOnly: true }),
      mount({ propagation: PROPAGATION_BIDIRECTIONAL }),
    ]),
    [
      { source: { kind: 'host', path: '/srv', propagation: 'private' }, mountPath: '/data', readOnly: false },
      {
        source: { kind: 'host', path: '/srv', propagation: 'hostToContainer' },
        mountPath: '/data',
        readOnly: true,
        recursiveReadOnly: false,
      },
      {
        source: { kind: 'host', path: '/srv', propagation: 'private' },
        mountPath: '/data',
        readOnly: true,
        recursiveReadOnly: true,
      },
      { source: { kind: 'host', path: '/srv', propagation: 'bidirectional' }, mountPath: '/data', readOnly: false },
    ],
  );
});

test('mountsOf() refuses mounts without paths, and recursive read-only without its requirements', () => {
  const refused: readonly [Partial<Mount>, RegExp][] = [
    [{ containerPath: 'data' }, /absolute path/],
    [{ hostPath: '' }, /absolute host path/],
    [{ hostPath: '../srv' }, /absolute host path, got \.\.\/srv/],
    [{ recursiveReadOnly: true }, /without being read-only/],
    [{ recursiveReadOnly: true, readonly: true, propagation: 1 }, /propagation hostToContainer/],
    [{ recursiveReadOnly: true, readonly: true, propagation: 2 }, /propagation bidirectional/],
    [{ propagation: 7 as MountPropagation }, /unknown propagation, got 7/], // SAFE: a newer client may send it
  ];
  for (const [more, message] of refused) {
    assert.throws(
      () => mountsOf('container c', [mount(more)]),
      (error) => error instanceof PodvmError && error.kind === 'invalid' && message.test(error.message),
      String(message),
    );
  }
});

test('mountsOf() converts image mounts, always read-only, and refuses those without an image or with a path outside it', () => {
  const image = (reference: string, more: Partial<Mount> = {}) =>
    mount({ hostPath: '', image: create(ImageSpecSchema, { image: reference }), ...more });
  const source = { kind: 'image', image: 'models', pullPolicy: 'Never' };
  assert.deepEqual(mountsOf('container c', [image('models'), image('models', { imageSubPath: 'a/b' })]), [
    { source, mountPath: '/data', readOnly: true },
    { source, mountPath: '/data', readOnly: true, subPath: 'a/b' },
  ]);
  const refused: readonly [Mount, RegExp][] = [
    [image(''), /has no image/],
    [image('models', { hostPath: '/srv' }), /must not have a host path/],
    [image('models', { imageSubPath: '/a' }), /sub-path \/a, which leads outside the image/],
    [image('models', { imageSubPath: 'a/../..' }), /leads outside the image/],
  ];
  for (const [bad, message] of refused) {
    assert.throws(() => mountsOf('container c', [bad]), { name: 'PodvmError', message });
  }
});
