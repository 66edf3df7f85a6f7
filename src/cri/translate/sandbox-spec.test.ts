import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { PodSandboxConfigSchema } from '../schema/api_pb.ts';
import { sandboxSpecOf } from './sandbox-spec.ts';

test('sandboxSpecOf() reads a pod’s QoS class from its cgroup, for both of kubelet’s drivers', () => {
  const scoreOf = (cgroupParent: string) => {
    const metadata = { name: 'p', namespace: 'n', uid: 'u', attempt: 0 };
    return sandboxSpecOf(create(PodSandboxConfigSchema, { metadata, linux: { cgroupParent } }), '').resources
      .oomScoreAdj;
  };
  assert.equal(scoreOf('/kubepods/besteffort/pod1a'), 1000);
  assert.equal(scoreOf('/kubepods/burstable/pod1a'), 999);
  assert.equal(scoreOf('/kubepods/pod1a'), -997);
  assert.equal(
    scoreOf('/kubelet.slice/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1a.slice'),
    1000,
  );
  assert.equal(scoreOf('kubepods-burstable-pod1a.slice'), 999);
  assert.equal(scoreOf('kubepods-pod1a.slice'), -997);
  assert.equal(scoreOf(''), undefined);
  assert.equal(scoreOf('/podsandbox'), undefined);
});
