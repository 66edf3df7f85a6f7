import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { sysroot } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { type CriNode, openCriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const MiB = 1024 ** 2;
const large = randomBytes(6 * MiB);
const odd = randomBytes(3 * MiB + 777);
const more = randomBytes(5 * MiB + 1);
const md5 = (bytes: Buffer) => createHash('md5').update(bytes).digest('hex');
const name = (of: string) => `docker.io/shop/${of}:1`;

describe('images with large layers in common', { skip, timeout: 900_000 }, () => {
  let node: CriNode;
  const layers = async () => await readdir(join(node.cli.root, 'images/layers'));

  before(async () => {
    node = await openCriNode();
    const busybox = await readFile(join(await sysroot(), 'usr/bin/busybox'));
    const base = [
      { name: 'bin/busybox', content: busybox, mode: 0o755 },
      ...['sh', 'md5sum', 'sleep', 'cat'].map((applet) => ({
        ...{ name: `bin/${applet}`, type: 'symlink' as const, target: 'busybox' },
      })),
      { name: 'large', content: large },
      { name: 'odd', content: odd },
    ];
    const layout = join(node.cli.root, 'shop');
    await writeLayout(layout, [
      { layers: [base, [{ name: 'which', content: 'one' }]], name: name('one') },
      {
        layers: [
          base,
          [
            { name: 'odd', content: 'two' },
            { name: 'more', content: more },
          ],
        ],
        name: name('two'),
      },
    ]);
    const { code, stderr } = await node.cli.type(['image', 'load', layout]);
    assert.equal(code, 0, stderr);
  });
  after(async () => await node[Symbol.asyncDispose]());

  const start = async (of: string) => {
    const config = { metadata: { name: of, namespace: 'default', uid: `uid-of-${of}`, attempt: 0 } };
    const { podSandboxId } = await node.runtime.runPodSandbox({ config });
    node.ids.push(podSandboxId);
    return { podSandboxId, containerId: await addContainer(podSandboxId, 'main', of) };
  };
  const addContainer = async (podSandboxId: string, container: string, of: string) => {
    const config = { metadata: { name: container }, image: { image: name(of) }, command: ['sleep', '6000'] };
    const { containerId } = await node.runtime.createContainer({ podSandboxId, config });
    await node.runtime.startContainer({ containerId });
    return containerId;
  };
  const sums = async (containerId: string) => {
    const cmd = ['sh', '-c', 'md5sum /large /odd /which /more 2>/dev/null'];
    const { stdout } = await node.runtime.execSync({ containerId, cmd });
    return Buffer.from(stdout)
      .toString()
      .trim()
      .split('\n')
      .map((line) => line.split(/ +/).toReversed().join(' '));
  };
  const one = [`/large ${md5(large)}`, `/odd ${md5(odd)}`, `/which ${md5(Buffer.from('one'))}`];
  const two = [`/large ${md5(large)}`, `/odd ${md5(Buffer.from('two'))}`, `/more ${md5(more)}`];

  it('have one file of each on the node, and each pod the files of its own image', async () => {
    assert.equal((await layers()).length, 2);
    const { imageFilesystems } = await node.images.imageFsInfo();
    const used = Number(imageFilesystems[0]?.usedBytes?.value);
    const sizes = (await node.images.listImages()).images.map(({ size }) => Number(size));
    assert.ok(used < sizes.reduce((sum, size) => sum + size, 0) - large.length - odd.length, `${used} bytes`);
    const pods = [await start('one'), await start('two')];
    assert.deepEqual(await sums(pods[0]?.containerId ?? ''), one);
    assert.deepEqual(await sums(pods[1]?.containerId ?? ''), two);
    for (const { podSandboxId } of pods) await node.runtime.removePodSandbox({ podSandboxId });
  });

  it('serve pods across daemons, beside each other in one pod', async () => {
    const { podSandboxId, containerId } = await start('one');
    await node.end('SIGKILL');
    await node.start();
    assert.deepEqual(await sums(containerId), one);
    assert.deepEqual(await sums(await addContainer(podSandboxId, 'again', 'one')), one);
    assert.deepEqual(await sums(await addContainer(podSandboxId, 'other', 'two')), two);
    const files = await readdir(join(node.cli.root, 'sandboxes', podSandboxId, 'machine'));
    assert.deepEqual(files.filter((file) => file.endsWith('.erofs')).sort(), [
      'image-0.1.erofs',
      'image-0.erofs',
      'image-1.1.erofs',
      'image-1.2.erofs',
      'image-1.erofs',
    ]);
    await node.runtime.removePodSandbox({ podSandboxId });
  });

  it('keep a layer until the last of them is removed', async () => {
    const { podSandboxId, containerId } = await start('two');
    await node.images.removeImage({ image: { image: name('one') } });
    assert.equal((await layers()).length, 2);
    assert.deepEqual(await sums(containerId), two);
    await node.runtime.removePodSandbox({ podSandboxId });
    await node.images.removeImage({ image: { image: name('two') } });
    assert.deepEqual(await layers(), []);
  });
});
