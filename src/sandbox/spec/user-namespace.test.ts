import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { checkUserNamespace, type IdMapping } from './user-namespace.ts';

const usual: IdMapping = { containerId: 0, hostId: 65_536, size: 65_536 };

test('checkUserNamespace() accepts what the kernel accepts, up to its limits', () => {
  const check = (...uids: IdMapping[]) => checkUserNamespace('pod a/b', { uids, gids: [usual] });
  check(usual);
  check({ containerId: 0, hostId: 0, size: 0xffff_ffff });
  check(usual, { containerId: 65_536, hostId: 1000, size: 1 });
  check(...Array.from({ length: 340 }, (_, at) => ({ containerId: at, hostId: 1000 + at, size: 1 })));
});

test('checkUserNamespace() refuses what the kernel refuses, naming the ids', () => {
  const refused: [IdMapping[], RegExp][] = [
    [[], /gids .* have no mapping/],
    [[{ ...usual, size: 0 }], /length 0/],
    [[{ ...usual, containerId: 1 }], /leave out the container id 0/],
    [[usual, { containerId: 0, hostId: 200_000, size: 5 }], /map the container id 0 twice/],
    [[usual, { containerId: 65_535, hostId: 200_000, size: 5 }], /map the container id 65535 twice/],
    [[usual, { containerId: 65_536, hostId: 131_071, size: 5 }], /map the host id 131071 twice/],
    [[{ containerId: 0, hostId: 1, size: 0xffff_ffff }], /past the last id/],
    [Array.from({ length: 341 }, (_, at) => ({ containerId: at, hostId: at, size: 1 })), /341 mappings/],
  ];
  for (const [gids, reason] of refused) {
    assert.throws(
      () => checkUserNamespace('pod a/b', { uids: [usual], gids }),
      (error) => error instanceof PodvmError && error.kind === 'invalid' && reason.test(error.message),
      String(reason),
    );
  }
});
