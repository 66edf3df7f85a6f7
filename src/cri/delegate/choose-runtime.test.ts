import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { NamespaceMode, PodSandboxConfigSchema } from '../schema/api_pb.ts';
import { chooseRuntime } from './choose-runtime.ts';

const { NODE, POD } = NamespaceMode;

const podIn = (namespace: string, namespaceOptions = {}, privileged = false) =>
  create(PodSandboxConfigSchema, {
    metadata: { name: 'p', namespace, uid: 'u' },
    linux: { securityContext: { privileged, namespaceOptions } },
  });

test('chooseRuntime() gives the delegate pods of its namespaces that ask for the host', () => {
  const choose = (namespace: string, options = {}, isPrivileged = false, handler = '') =>
    chooseRuntime(podIn(namespace, options, isPrivileged), handler, ['kube-system', 'monitoring']);
  for (const kind of ['network', 'pid', 'ipc']) {
    assert.equal(choose('kube-system', { [kind]: NODE }), 'delegate');
    assert.equal(choose('monitoring', { [kind]: NODE }), 'delegate');
    assert.equal(choose('default', { [kind]: NODE }), 'podvm', 'where it is refused');
    assert.equal(choose('kube-system', { [kind]: NODE }, false, 'podvm'), 'podvm', 'where it is refused');
  }
  assert.equal(choose('kube-system', {}, true), 'delegate');
  assert.equal(choose('default', {}, true), 'podvm');
  assert.equal(choose('kube-system', {}, true, 'podvm-own-boot'), 'podvm');
  assert.equal(choose('kube-system', { network: POD, pid: POD, ipc: POD }), 'podvm');
  assert.equal(chooseRuntime(podIn('any', { network: NODE }), '', ['*']), 'delegate');
  assert.equal(chooseRuntime(undefined, '', ['*']), 'podvm');
});

test('chooseRuntime() gives the delegate pods of its namespaces with a handler that is not ours, and refuses others', () => {
  assert.equal(chooseRuntime(podIn('kube-system'), 'runc', ['kube-system']), 'delegate');
  assert.throws(() => chooseRuntime(podIn('default'), 'runc', ['kube-system']), {
    kind: 'denied',
    message: /"runc".* namespace default/,
    fix: /delegateNamespaces/,
  });
});
