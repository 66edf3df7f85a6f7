import assert from 'node:assert/strict';
import { test } from 'node:test';
import { groupId } from './socket-group.ts';

test('groupId() finds a group of the host, and names one that is missing', async () => {
  assert.equal(await groupId(undefined), undefined);
  assert.equal(await groupId('root'), 0);
  assert.ok(((await groupId('nogroup')) ?? 0) > 0);
  await assert.rejects(groupId('no-such-group'), { kind: 'notFound', fix: /groupadd no-such-group/ });
});
