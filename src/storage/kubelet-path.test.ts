import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kubeletPathOf } from './kubelet-path.ts';

const uid = '0b1e5a3c-2f5f-4f0e-9d68-1d1f7b3f0a11';
const podDirectory = `/var/lib/kubelet/pods/${uid}`;
const of = (rest: string) => kubeletPathOf(`${podDirectory}/${rest}`, uid);

test('kubeletPathOf() recognises the volumes that a kubelet writes, and its emptyDirs', () => {
  for (const plugin of ['configmap', 'secret', 'downward-api', 'projected']) {
    assert.deepEqual(of(`volumes/kubernetes.io~${plugin}/app`), { kind: 'content', podDirectory, volume: 'app' });
  }
  assert.deepEqual(of('volumes/kubernetes.io~empty-dir/cache'), { kind: 'emptyDir', podDirectory, volume: 'cache' });
  assert.deepEqual(of('etc-hosts'), { kind: 'etcHosts', podDirectory });
});

test('kubeletPathOf() recognises a bind mount of a sub-path', () => {
  const subPath = { kind: 'subPath', podDirectory, volume: 'cache', name: 'main.3' };
  assert.deepEqual(of('volume-subpaths/cache/main/3'), subPath);
});

test('kubeletPathOf() accepts any root directory', () => {
  const path = `/srv/pods/x/kubelet/pods/${uid}/etc-hosts`;
  assert.deepEqual(kubeletPathOf(path, uid), {
    kind: 'etcHosts',
    podDirectory: `/srv/pods/x/kubelet/pods/${uid}`,
  });
});

test('kubeletPathOf() returns undefined for all other paths', () => {
  for (const rest of [
    'volumes/kubernetes.io~csi/pvc-1/mount',
    'volumes/kubernetes.io~local-volume/pv',
    'volumes/kubernetes.io~empty-dir/cache/below',
    'volumes/kubernetes.io~configmap',
    'volumes/kubernetes.io~configmap/Not_A_Label',
    'volumes/kubernetes.io~configmap/../../etc-hosts',
    'containers/main/1a2b3c4d',
    'etc-hosts/',
    'volume-subpaths/cache/main',
    'volume-subpaths/cache/main/first',
    'volume-subpaths/../main/1',
  ]) {
    assert.equal(of(rest), undefined, rest);
  }
  assert.equal(kubeletPathOf('/etc/hosts', uid), undefined);
  assert.equal(kubeletPathOf(`pods/${uid}/etc-hosts`, uid), undefined);
});

test('kubeletPathOf() ignores paths of other pods', () => {
  assert.equal(kubeletPathOf(`${podDirectory}/etc-hosts`, 'another'), undefined);
  assert.equal(kubeletPathOf('/var/lib/kubelet/pods//etc-hosts', ''), undefined);
});
