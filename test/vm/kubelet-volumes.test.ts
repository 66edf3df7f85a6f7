import assert from 'node:assert/strict';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { is } from '#cri/testing/grpc-client.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';
import { KubeletDirectory } from './kubelet-directory.ts';

const skip = await whyNoVm();
const uid = '5a6f3c1e-0d5b-4f8e-9a57-2f1f6b7a9c10';
const mebibyte = 1024 * 1024;

interface WantedMount {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly readonly?: boolean;
}

describe('volumes of a kubelet', { skip }, () => {
  let node: CriNode;
  let runtime: CriNode['runtime'];
  let pod: KubeletDirectory;
  let podSandboxId = '';
  const config = { metadata: { name: 'volumes', namespace: 'default', uid, attempt: 0 } };

  before(async () => {
    node = await openCriNode();
    ({ runtime } = node);
  });
  after(async () => await node[Symbol.asyncDispose]());
  beforeEach(async () => {
    pod = await KubeletDirectory.open(uid);
    ({ podSandboxId } = await runtime.runPodSandbox({ config }));
    node.ids.push(podSandboxId);
  });
  afterEach(async () => {
    await pod[Symbol.asyncDispose](); // a kubelet removes volumes first, which must not affect the sandbox
    await runtime.removePodSandbox({ podSandboxId });
  });

  const create = async (name: string, mounts: readonly WantedMount[], more: object = {}) => {
    const container = {
      metadata: { name, attempt: 0 },
      image: { image: 'localhost/podvm/base:latest' },
      command: ['sleep', '3600'],
      mounts: mounts.map((mount) => ({ readonly: false, ...mount })),
      ...more,
    };
    const { containerId } = await runtime.createContainer({ podSandboxId, config: container, sandboxConfig: config });
    return containerId;
  };
  const start = async (name: string, mounts: readonly WantedMount[], more: object = {}) => {
    const containerId = await create(name, mounts, more);
    await runtime.startContainer({ containerId });
    return containerId;
  };
  const sh = async (containerId: string, script: string) => {
    const { stdout, stderr } = await runtime.execSync({ containerId, cmd: ['sh', '-c', script], timeout: 60n });
    return Buffer.from(stdout).toString() + Buffer.from(stderr).toString();
  };
  const shows = async (containerId: string, script: string, wanted: string) => {
    const deadline = Date.now() + 60_000;
    for (;;) {
      const seen = await sh(containerId, script);
      if (seen === wanted) return;
      assert.ok(Date.now() < deadline, `${script} shows ${seen}`);
    }
  };

  it('show configMaps, and each new version of them, at no moment without a file', async () => {
    const hostPath = await pod.write('configmap', 'app', { key: 'one', gone: 'x' });
    const id = await start('main', [{ hostPath, containerPath: '/etc/app', readonly: true }]);
    assert.equal(await sh(id, 'cat /etc/app/key; ls /etc/app'), 'onegone\nkey\n');
    assert.match(await sh(id, 'echo no > /etc/app/key'), /Read-only file system/);
    const read = 'while :; do cat /etc/app/key; done';
    await sh(id, `(${read}) </dev/null >/dev/null 2>/tmp/missed & touch /tmp/missed`);
    for (const text of ['a', 'b', 'c']) {
      await pod.write('configmap', 'app', { key: text, gone: 'x' });
      await shows(id, 'cat /etc/app/key', text);
    }
    await pod.write('configmap', 'app', { key: 'two', new: 'y' });
    await shows(id, 'cat /etc/app/key; ls /etc/app', 'twokey\nnew\n');
    assert.equal(await sh(id, 'cat /tmp/missed'), ''); // it was there at every moment

    const { info } = await runtime.containerStatus({ containerId: id, verbose: true });
    const { mounts } = JSON.parse(info['info'] ?? '') as { mounts: unknown };
    assert.deepEqual(mounts, [{ mountPath: '/etc/app', mode: 'push' }]);
  });

  it('give secrets and tokens to the user and group that the kubelet gave them', async () => {
    const secret = await pod.write('secret', 'password', { key: 'geheim' }, { gid: 2000, mode: 0o440 });
    const token = await pod.write('projected', 'token', { token: 'one' }, { uid: 1000, gid: 2000, mode: 0o600 });
    const mounts = [
      { hostPath: secret, containerPath: '/secret', readonly: true },
      { hostPath: token, containerPath: '/var/run/secrets/token', readonly: true },
    ];
    const as = (user: bigint, groups: bigint[]) => ({
      linux: { securityContext: { runAsUser: { value: user }, supplementalGroups: groups } },
    });
    const id = await start('member', mounts, as(1000n, [2000n]));
    assert.equal(await sh(id, 'cat /secret/key /var/run/secrets/token/token'), 'geheimone');
    assert.equal(await sh(id, 'stat -Lc "%u %g %a" /secret /secret/key'), '0 2000 2777\n0 2000 440\n');
    const stranger = await start('stranger', mounts, as(1001n, []));
    assert.match(await sh(stranger, 'cat /secret/key'), /Permission denied/);
    assert.match(await sh(stranger, 'cat /var/run/secrets/token/token'), /Permission denied/);
    await pod.write('projected', 'token', { token: 'two' }, { uid: 1000, gid: 2000, mode: 0o600 });
    await shows(id, 'cat /var/run/secrets/token/token', 'two');
  });

  it('keep /etc/hosts as the kubelet writes it, also for a container that has it mounted', async () => {
    const hostPath = await pod.etcHosts('127.0.0.1 localhost\n10.0.0.7 one\n');
    const id = await start('main', [{ hostPath, containerPath: '/etc/hosts' }]);
    assert.match(await sh(id, 'cat /etc/hosts'), /10\.0\.0\.7 one/);
    await writeFile(hostPath, '127.0.0.1 localhost\n10.0.0.8 two\n');
    await shows(id, 'cat /etc/hosts', '127.0.0.1 localhost\n10.0.0.8 two\n');
  });

  it('share emptyDirs between containers, on disk and in memory, with owner, mode and size', async () => {
    const disk = await pod.emptyDir('disk', { gid: 2000, mode: 0o2777 });
    const memory = await pod.emptyDirInMemory('memory', 4);
    const mounts = [
      { hostPath: disk, containerPath: '/disk' },
      { hostPath: memory, containerPath: '/memory' },
    ];
    const one = await start('one', mounts);
    await sh(one, 'echo hello > /disk/file; echo there > /memory/file');
    assert.equal(await sh(one, 'stat -c "%u %g %a" /disk /disk/file'), '0 2000 2777\n0 2000 644\n');
    await runtime.stopContainer({ containerId: one });
    await runtime.removeContainer({ containerId: one });
    const two = await start('two', mounts); // it sees the files of the first one, as after an init container
    assert.equal(await sh(two, 'cat /disk/file /memory/file'), 'hello\nthere\n');
    assert.match(await sh(two, 'dd if=/dev/zero of=/memory/big bs=1M count=8'), /No space left/);
    assert.match(await sh(two, 'df -k /memory | tail -1'), /\b4096\b/);
  });

  it('mount a sub-path of an emptyDir and of a configMap', async () => {
    const disk = await pod.emptyDir('disk');
    const configMap = await pod.write('configmap', 'app', { 'app.conf': 'port=1\n' });
    const mounts = [
      { hostPath: await pod.subPath('disk', 'main', 0, join(disk, 'a/b')), containerPath: '/data' },
      {
        hostPath: await pod.subPath('app', 'main', 1, join(configMap, '..data/app.conf'), true),
        containerPath: '/etc/app.conf',
        readonly: true,
      },
    ];
    const id = await start('main', mounts);
    assert.equal(await sh(id, 'cat /etc/app.conf; echo x > /data/file; stat -c %a /data'), 'port=1\n777\n');
    const whole = await start('whole', [{ hostPath: disk, containerPath: '/disk' }]);
    assert.equal(await sh(whole, 'cat /disk/a/b/file'), 'x\n');
  });

  it('are refused by name when they are too large, and the pod continues', async () => {
    const hostPath = await pod.write('secret', 'huge', { key: '' });
    await truncate(join(hostPath, '..data/key'), 2 * 1024 ** 3);
    await assert.rejects(
      create('main', [{ hostPath, containerPath: '/huge' }]),
      is(status.RESOURCE_EXHAUSTED, /volume huge: .* at most 16777216 bytes, got 2147483648/),
    );
    await start('main', [{ hostPath: await pod.emptyDir('small'), containerPath: '/small' }]);
  });

  it('return a container’s termination message, even if it was killed for lack of memory', async () => {
    const hostPath = join(pod.path, 'termination-log');
    await writeFile(hostPath, '');
    const containerPath = '/dev/termination-log';
    const id = await start('hungry', [{ hostPath, containerPath }], {
      command: ['sh', '-c', `echo starving >${containerPath}; x=a; while :; do x=$x$x; done`],
      annotations: { 'io.kubernetes.container.terminationMessagePath': containerPath },
      linux: { resources: { memoryLimitInBytes: 15n << 20n } },
    });
    const deadline = Date.now() + 60_000;
    for (;;) {
      const { status: seen } = await runtime.containerStatus({ containerId: id });
      if (seen?.reason === 'OOMKilled') break;
      assert.ok(Date.now() < deadline, `it is ${seen?.reason}`);
    }
    assert.equal(await readFile(hostPath, 'utf8'), 'starving\n');
  });

  it('hold 16 MiB of files, the maximum', async () => {
    const files = Object.fromEntries(Array.from({ length: 16 }, (_, index) => [`f${index}`, 'x'.repeat(mebibyte)]));
    const hostPath = await pod.write('secret', 'large', files);
    const id = await start('main', [{ hostPath, containerPath: '/large' }]);
    assert.equal(await sh(id, 'cat /large/* | wc -c'), `${16 * mebibyte}\n`);
  });

  it('are counted: what a container writes, without a walk', async () => {
    const id = await start('main', [{ hostPath: await pod.emptyDir('disk'), containerPath: '/disk' }]);
    const layerBytes = async () => {
      const { stats } = await runtime.containerStats({ containerId: id });
      return Number(stats?.writableLayer?.usedBytes?.value ?? -1n);
    };
    const before = await layerBytes();
    assert.ok(before >= 0 && before < mebibyte, `${before} bytes in a fresh layer`);
    await sh(id, 'dd if=/dev/zero of=/file bs=1M count=5; dd if=/dev/zero of=/disk/file bs=1M count=9');
    const grown = (await layerBytes()) - before;
    assert.ok(grown >= 5 * mebibyte && grown < 6 * mebibyte, `${grown} bytes more`);
  });
});
