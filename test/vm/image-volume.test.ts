import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { is } from '#cri/testing/grpc-client.ts';
import { NamespaceMode } from '#cri/schema/api_pb.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';
import { KubeletDirectory } from './kubelet-directory.ts';

const skip = await whyNoVm();
const models = 'docker.io/shop/models:1';
const base = { image: 'localhost/podvm/base:latest' };
const layer = [
  { name: 'weights', type: 'directory' as const, mode: 0o750, uid: 0, gid: 3000 },
  { name: 'weights/small', content: 'small\n', mode: 0o640, uid: 0, gid: 3000 },
  { name: 'run', content: '#!/bin/sh\necho ran\n', mode: 0o755 },
  { name: 'out', type: 'symlink' as const, target: '/etc' },
];

describe('an image as a volume, as a kubelet asks for it', { skip, timeout: 600_000 }, () => {
  let node: CriNode;
  let runtime: CriNode['runtime'];
  let images: CriNode['images'];

  before(async () => {
    node = await openCriNode();
    ({ runtime, images } = node);
    await writeLayout(join(node.cli.root, 'models'), [{ layers: [layer], name: models }]);
    assert.equal((await node.cli.type(['image', 'load', join(node.cli.root, 'models')])).code, 0);
  });
  after(async () => await node[Symbol.asyncDispose]());

  const runPod = async (name: string, linux = {}) => {
    const config = { metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 }, linux };
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    node.ids.push(podSandboxId);
    return podSandboxId;
  };
  const create = async (podSandboxId: string, name: string, mounts: readonly object[]) => {
    const config = { metadata: { name }, image: base, command: ['sleep', '600'], mounts: [...mounts] };
    return (await runtime.createContainer({ podSandboxId, config })).containerId;
  };
  const run = async (containerId: string, script: string) => {
    const { stdout } = await runtime.execSync({ containerId, cmd: ['sh', '-c', `exec 2>&1; ${script}`] });
    return Buffer.from(stdout).toString().trim().split('\n');
  };
  const mount = (containerPath: string, more: object = {}) => ({ containerPath, image: { image: models }, ...more });

  it('is mounted read-only and not executable, whole and by sub-path, for each container, and is in use', async () => {
    const podSandboxId = await runPod('reader');
    const mounts = [mount('/models'), mount('/some/small', { imageSubPath: 'weights/small' })];
    const first = await create(podSandboxId, 'first', mounts);
    await runtime.startContainer({ containerId: first });
    const script =
      'ls /models; stat -c %u:%g:%a /models/weights; cat /models/weights/small /some/small;' +
      'touch /models/x; chmod 777 /models/run; /models/run; echo $?';
    assert.deepEqual(await run(first, script), [
      ...['out', 'run', 'weights', '0:3000:750', 'small', 'small'],
      'touch: /models/x: Read-only file system',
      'chmod: /models/run: Read-only file system',
      'sh: /models/run: Permission denied',
      '126',
    ]);
    const { status: seen } = await runtime.containerStatus({ containerId: first });
    assert.deepEqual(
      seen?.mounts.map(({ containerPath, image, imageSubPath }) => [containerPath, image?.image, imageSubPath]),
      [
        ['/models', models, ''],
        ['/some/small', models, 'weights/small'],
      ],
    );

    const second = await create(podSandboxId, 'second', [mount('/w', { imageSubPath: 'weights' })]);
    await runtime.startContainer({ containerId: second });
    assert.deepEqual(await run(second, 'ls /w; ls -d /sys/block/sd*'), ['small', '/sys/block/sda', ...two('b', 'c')]);
    await assert.rejects(images.removeImage({ image: { image: models } }), is(status.ABORTED, /a pod uses it/));
    await runtime.removeContainer({ containerId: first });
    assert.deepEqual(await run(second, 'cat /w/small'), ['small']);
    await runtime.removePodSandbox({ podSandboxId });
    await images.removeImage({ image: { image: models } });
    assert.equal((await node.cli.type(['image', 'load', join(node.cli.root, 'models')])).code, 0);
  });

  it('is refused if it or the path in it is missing, and never leads outside', async () => {
    const podSandboxId = await runPod('refused');
    const missing = mount('/m', { image: { image: 'docker.io/shop/nothing:1' } });
    await assert.rejects(
      create(podSandboxId, 'a', [missing]),
      is(status.NOT_FOUND, /ImageVolumeMountFailed: Cannot mount image docker.io\/shop\/nothing:1 at \/m.*not here/),
    );
    for (const imageSubPath of ['none', 'weights/none', 'run/below', 'out/hostname']) {
      await assert.rejects(
        create(podSandboxId, 'b', [mount('/m', { imageSubPath })]),
        is(status.INVALID_ARGUMENT, /ImageVolumeMountFailed.*the image has no /),
      );
    }
    await assert.rejects(
      create(podSandboxId, 'c', [mount('/m', { imageSubPath: '../x' })]),
      is(status.INVALID_ARGUMENT, /leads outside the image/),
    );
    await runtime.removePodSandbox({ podSandboxId });
  });

  it("belongs to the users of the pod's user namespace, like a kubelet's other volumes", async () => {
    await using kubelet = await KubeletDirectory.open('uid-of-mapped');
    const mountOf = (hostPath: string, containerPath: string) => ({ hostPath, containerPath, image: undefined });
    const mounts = [
      mount('/models'),
      mountOf(await kubelet.write('secret', 's', { key: 'secret' }, { gid: 3000, mode: 0o440 }), '/secret'),
      mountOf(await kubelet.emptyDir('e', { gid: 3000, mode: 0o2770 }), '/empty'),
      mountOf(await kubelet.etcHosts('127.0.0.1 here\n'), '/etc/hosts'),
    ];
    const mapping = [{ containerId: 0, hostId: 100_000, length: 65_536 }];
    const usernsOptions = { mode: NamespaceMode.POD, uids: mapping, gids: mapping };
    const podSandboxId = await runPod('mapped', { securityContext: { namespaceOptions: { usernsOptions } } });
    const containerId = await create(podSandboxId, 'main', mounts);
    await runtime.startContainer({ containerId });
    const script =
      'stat -Lc %u:%g /models/weights /secret/key /empty /etc/hosts; touch /empty/x; stat -c %u:%g /empty/x;' +
      'cat /models/weights/small /secret/key; echo; cat /etc/hosts';
    assert.deepEqual(await run(containerId, script), [
      ...['0:3000', '0:3000', '0:3000', '0:0', '0:3000'],
      ...['small', 'secret', '127.0.0.1 here'],
    ]);
    await runtime.removePodSandbox({ podSandboxId });
  });
});

const two = (...letters: string[]) => letters.map((letter) => `/sys/block/sd${letter}`);
