import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseManifest } from '../manifest/manifest.ts';
import { oomScoreOf, qosClassOf } from './qos.ts';

const gibibyte = 1024 ** 3;

/** Makes a pod whose containers have these resources, in YAML; `ofPod` are those of the pod itself. */
function specOf(containers: readonly string[], ofPod = '') {
  const all = containers.map((resources, at) => `{ name: c${at}, image: i, resources: ${resources} }`).join(', ');
  const text = `{ apiVersion: v1, kind: Pod, metadata: { name: p }, spec: { containers: [${all}] ${ofPod} } }`;
  return parseManifest(text, 'f').pods[0]?.spec ?? assert.fail('no pod');
}

const small = '{ limits: { cpu: 1, memory: 1Gi } }';

test('oomScoreOf() matches the kubelet’s value for the class of the pod', () => {
  const cases = [
    [['{}'], 'BestEffort', 1000],
    [['{}', '{ requests: { cpu: 0 } }'], 'BestEffort', 1000],
    [[small], 'Guaranteed', -997],
    [[small, '{ requests: { cpu: 1000m, memory: 1024Mi }, limits: { cpu: 1, memory: 1Gi } }'], 'Guaranteed', -997],
    [[small, '{}'], 'Burstable', 900],
    [['{ limits: { memory: 1Gi } }'], 'Burstable', 900],
    [['{ requests: { cpu: 100m } }'], 'Burstable', 999],
    [['{ requests: { memory: 1Mi } }'], 'Burstable', 999],
    [['{ requests: { memory: 2Gi } }', '{ requests: { memory: 3Gi } }'], 'Burstable', 500],
    [['{ requests: { memory: 12Gi } }'], 'Burstable', 3],
  ] as const;
  for (const [containers, qos, score] of cases) {
    const spec = specOf(containers);
    assert.equal(qosClassOf(spec), qos, containers.join());
    assert.equal(oomScoreOf(spec, 10 * gibibyte), score, containers.join());
  }
});

test('oomScoreOf() uses the resources of the pod itself, if it has any', () => {
  const ofPod = ', resources: { requests: { memory: 5Gi, cpu: 1 }, limits: { memory: 6Gi, cpu: 1 } }';
  assert.equal(oomScoreOf(specOf(['{}'], ofPod), 10 * gibibyte), 500);
  assert.equal(qosClassOf(specOf(['{}'], `, resources: ${small}`)), 'Guaranteed');
});
