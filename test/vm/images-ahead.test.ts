import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { poll } from '#host/wait.ts';
import { NamespaceMode } from '#cri/schema/api_pb.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const base = 'localhost/podvm/base:latest';
/** An image of another pod, and words that it alone has. */
const other = 'docker.io/tenant/other:1';
const words = 'content-of-another-tenant';
/** Much more than the other image, and much less than a scratch disk, in bytes. */
const readBytes = 8 * 1024 * 1024;

describe('a waiting machine that has images ahead', { skip, timeout: 600_000 }, () => {
  let node: CriNode;
  let runtime: CriNode['runtime'];
  let pods = 0;

  before(async () => {
    node = await openCriNode({ pool: '1' });
    ({ runtime } = node);
    const layout = join(node.cli.root, 'other');
    await writeLayout(layout, [{ layers: [[{ name: 'file', content: `${words}\n`.repeat(4096) }]], name: other }]);
    assert.equal((await node.cli.type(['image', 'load', layout])).code, 0);
    for (const image of [other, base]) {
      await createContainer(await runPod(), image); // the other image has no program, but the pod begins with it
    }
  });
  after(async () => await node[Symbol.asyncDispose]());

  /** Runs a pod in a machine that waited. */
  const runPod = async () => {
    const made = () => [...node.log().matchAll(/info spare machine made sandbox=(\S+)/g)].at(-1)?.[1] ?? '';
    const waiting = async () => (made() === '' || node.ids.includes(made()) ? undefined : made());
    const spare = await poll(waiting, { everyMs: 100, signal: AbortSignal.timeout(180_000) });
    const name = `pod-${(pods += 1)}`;
    const metadata = { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 };
    const config = { metadata, linux: { securityContext: { privileged: true } } };
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    node.ids.push(podSandboxId);
    assert.equal(podSandboxId, spare, node.log());
    return { podSandboxId, config };
  };
  /** Runs a pod in a machine that has both images: on a busy host, one is made before both are known. */
  const runAhead = async () => {
    for (let attempt = 1; attempt <= 5; attempt += 1) {
      const pod = await runPod();
      if ((await imagesOf(pod)).length === 2) return pod;
      await runtime.removePodSandbox({ podSandboxId: pod.podSandboxId });
    }
    return assert.fail(node.log());
  };
  const createContainer = async (pod: Awaited<ReturnType<typeof runPod>>, image: string) => {
    const { podSandboxId, config: sandboxConfig } = pod;
    const securityContext = { privileged: true, namespaceOptions: { pid: NamespaceMode.CONTAINER } };
    const metadata = { name: 'main' };
    const config = { metadata, image: { image }, command: ['sleep', '1000'], linux: { securityContext } };
    return (await runtime.createContainer({ podSandboxId, config, sandboxConfig })).containerId;
  };
  const imagesOf = async ({ podSandboxId }: { readonly podSandboxId: string }) =>
    (await readdir(join(node.cli.root, 'sandboxes', podSandboxId, 'machine'))).filter((name) =>
      /^image-.*erofs$/.test(name),
    );
  /** Counts the lines with the words on each of the machine's disks, as a container does that owns the machine. */
  const search = async (containerId: string) => {
    const each =
      'n=${d##*/}; mknod /tmp/$n b $(tr : " " < $d/dev); ' +
      `head -c ${readBytes} /tmp/$n | grep -c ${words.slice(0, -1)}[${words.slice(-1)}]; echo $?`;
    const script = `mkdir -p /tmp; sync; echo 3 > /proc/sys/vm/drop_caches; for d in /sys/block/sd*; do ${each}; done`;
    const { stdout, stderr } = await runtime.execSync({ containerId, cmd: ['sh', '-c', script] });
    return Buffer.from(stdout).toString() + Buffer.from(stderr).toString();
  };
  /** grep counts no line, and ends with 1, on each disk: of scratch, of the other image, of the container's and of modules. */
  const nowhere = '0\n1\n'.repeat(4);

  it('gives a pod the one that it asks for, and lets it read none of the others', async () => {
    const pod = await runAhead();
    const containerId = await createContainer(pod, base);
    assert.equal((await imagesOf(pod)).length, 1);
    await runtime.startContainer({ containerId });
    assert.equal(await search(containerId), nowhere);
    const [, how = ''] = new RegExp(`container created sandbox=${pod.podSandboxId} (.*)`).exec(node.log()) ?? [];
    assert.match(how, /other_images_removed=/);
    assert.doesNotMatch(how, /image_plugged=/);
  });

  it('does so too for a daemon that took the pod over before it had a container', async () => {
    const pod = await runAhead();
    await node.end('SIGKILL');
    await node.start();
    ({ runtime } = node);
    const containerId = await createContainer(pod, base);
    assert.equal((await imagesOf(pod)).length, 1);
    await runtime.startContainer({ containerId });
    assert.equal(await search(containerId), nowhere);
    assert.doesNotMatch(node.log(), /image_plugged=/);
  });
});
