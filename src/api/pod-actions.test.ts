import assert from 'node:assert/strict';
import { it } from 'node:test';
import { podActions, refusalOf } from './pod-actions.ts';

const possible = (pod: Parameters<typeof refusalOf>[1]) =>
  (Object.keys(podActions) as (keyof typeof podActions)[]).filter((action) => refusalOf(action, pod) === undefined);

it('the state and the owner of a pod decide what is possible, and each refusal names the pod and a fix', () => {
  const endedAt = '2026-01-01T00:00:00Z';
  const ofAnyOwner = ['exec', 'readFiles', 'portForward'];
  const ofOwn = ['stop', 'restart', 'killAndRemove', 'exec', 'resize', 'manifest', 'readFiles', 'portForward'];
  assert.deepEqual(possible({ name: 'web' }), [...ofOwn, 'logs', 'console', 'examine']);
  assert.deepEqual(possible({ name: 'web', endedAt }), ['restart', 'start', 'remove', 'manifest', 'logs']);
  assert.deepEqual(possible({ name: 'web', owner: 'kubelet' }), [...ofAnyOwner, 'logs', 'console', 'examine']);
  assert.deepEqual(possible({ name: 'web', owner: 'containerd' }), [...ofAnyOwner, 'console', 'examine']);
  assert.deepEqual(refusalOf('stop', { name: 'web', owner: 'containerd' }), {
    message: 'Cannot stop web: the pod belongs to containerd',
    fix: 'Delete it with `kubectl delete pod`; without a cluster, use `crictl stopp` at containerd. `podvm drain` ends all pods of the node.',
  });
  assert.deepEqual(refusalOf('remove', { name: 'web' }), {
    message: 'Cannot remove web: the pod runs',
    fix: 'Stop it first with `podvm stop web`, or kill and remove it with `podvm rm -f web`.',
  });
});
