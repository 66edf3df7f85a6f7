import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cgroupParentOf } from './cgroup-parent.ts';

const parentOf = (given: string) => cgroupParentOf('pod sandbox p', given);

test('cgroupParentOf() reads the names of both drivers of the kubelet', () => {
  assert.equal(parentOf('/kubepods/burstable/pod1a'), 'kubepods/burstable/pod1a');
  const slices = 'kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1a.slice';
  assert.equal(parentOf(`/${slices}`), slices);
  assert.equal(parentOf('kubepods-burstable-pod1a.slice'), slices);
  assert.equal(parentOf('kubepods.slice'), 'kubepods.slice');
});

test('cgroupParentOf() returns undefined for clients and kubelets without cgroups for pods', () => {
  for (const none of ['', '/', '//']) assert.equal(parentOf(none), undefined);
});

test('cgroupParentOf() refuses paths outside the cgroups of the host, and text that is not a path', () => {
  for (const bad of [
    '../etc',
    '/kubepods/../../etc',
    'kubepods/pod1',
    '/kubepods/',
    '/kube\npods',
    `/${'x'.repeat(4096)}`,
  ]) {
    assert.throws(() => parentOf(bad), { kind: 'invalid', message: /must be an absolute path/ });
  }
});
