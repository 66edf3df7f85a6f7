import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { fixOf } from './advice.ts';

const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });

test('fixOf() returns undefined for unknown errors', () => {
  assert.equal(fixOf(new Error('odd')), undefined);
  assert.equal(fixOf('odd'), undefined);
  assert.equal(fixOf(new PodvmError('internal', 'odd')), undefined);
});

test('fixOf() finds the fix of a cause', () => {
  const cause = new PodvmError('notFound', 'no such image', { fix: 'Pull it.' });
  assert.equal(fixOf(new PodvmError('notFound', 'Cannot create', { cause })), 'Pull it.');
});

test('fixOf() has a fix for a full disk, unless the error has its own', () => {
  assert.match(fixOf(new PodvmError('internal', 'Cannot write', { cause: full })) ?? '', /^Free space/);
  assert.equal(fixOf(new PodvmError('internal', 'Cannot write', { cause: full, fix: 'Buy a disk.' })), 'Buy a disk.');
});
