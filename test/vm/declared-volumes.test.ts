import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { NamespaceMode } from '#cri/schema/api_pb.ts';
import { sysroot } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const name = 'docker.io/shop/store:1';
const directory = (path: string, uid: number, mode = 0o755) => ({
  name: path,
  type: 'directory' as const,
  uid,
  gid: uid,
  mode,
});
const link = (path: string, target: string) => ({ name: path, type: 'symlink' as const, target });
const declared = ['/cache', '/data/store', 'relative', '/out/x', '/dangling/y', '/pod', '/up/one', '/', '/proc/x'];

/** Script that prints the owner, mode and content of each path, and whether it is writable. */
const look = (paths: string) =>
  `for p in ${paths}; do touch $p/new 2>/dev/null && w=writable || w=closed; ` +
  'echo $p $(stat -c %u:%a $p) $w $(ls $p); done';

describe('what an image declares as VOLUME', { skip, timeout: 600_000 }, () => {
  let node: CriNode;
  let runtime: CriNode['runtime'];

  before(async () => {
    node = await openCriNode();
    ({ runtime } = node);
    const busybox = await readFile(join(await sysroot(), 'usr/bin/busybox'));
    const applets = ['sh', 'ls', 'stat', 'touch', 'cat', 'sleep', 'rm', 'readlink'];
    const layer = [
      { name: 'bin/busybox', content: busybox, mode: 0o755 },
      ...applets.map((applet) => link(`bin/${applet}`, 'busybox')),
      directory('cache', 1000, 0o750),
      { name: 'cache/seed', content: 'seed', uid: 1000, gid: 1000 },
      directory('srv/real/x', 1000, 0o700),
      link('out', '/../../srv/real'),
      link('dangling', '../../gone'),
      { name: 'pod/image', content: 'image' },
    ];
    const config = { Cmd: ['sh'], Env: ['PATH=/bin'], Volumes: Object.fromEntries(declared.map((path) => [path, {}])) };
    await writeLayout(join(node.cli.root, 'store'), [{ layers: [layer], name, config: { config } }]);
    const file = {
      layers: [layer],
      name: 'docker.io/shop/file:1',
      config: { config: { Volumes: { '/cache/seed': {} } } },
    };
    await writeLayout(join(node.cli.root, 'file'), [file]);
    for (const layout of ['store', 'file'])
      assert.equal((await node.cli.type(['image', 'load', join(node.cli.root, layout)])).code, 0);
  });
  after(async () => await node[Symbol.asyncDispose]());

  it('is writable even with a read-only root, and replaced by mounts of the pod there or above', async () => {
    const yaml = JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'store' },
      spec: {
        restartPolicy: 'Never',
        volumes: [{ name: 'pods', emptyDir: {} }],
        initContainers: [
          {
            name: 'closed',
            image: name,
            command: [
              'sh',
              '-c',
              `${look('/cache /data/store /srv/real/x /out/x /pod /up /cache/below /relative /')}; ls /up`,
            ],
            securityContext: { readOnlyRootFilesystem: true, runAsUser: 1000 },
            volumeMounts: ['/pod', '/up', '/cache/below'].map((mountPath) => ({ name: 'pods', mountPath })),
          },
        ],
        containers: [
          {
            name: 'open',
            image: name,
            command: ['sh', '-c', `${look('/cache /data/store /gone/y /dangling/y /pod')}; ls /proc/x 2>&1`],
          },
        ],
      },
    });
    const file = join(node.cli.root, 'store.json');
    await writeFile(file, yaml);
    const { stdout, stderr } = await node.cli.type(['run', file]);
    const said = (container: string) =>
      stdout
        .split('\n')
        .filter((line) => line.includes(container))
        .map((line) => line.replace(/^.*?\| /, ''));
    assert.deepEqual(
      said('closed'),
      [
        '/cache 1000:750 writable below new seed',
        '/data/store 0:755 closed',
        '/srv/real/x 1000:700 writable new',
        '/out/x 1000:700 writable new',
        '/pod 0:777 writable new',
        '/up 0:777 writable new',
        '/cache/below 0:777 writable new',
        '/relative 0:755 closed',
        '/ 0:755 closed bin cache dangling data dev etc gone out pod proc relative srv sys up',
        'new',
      ],
      stderr,
    );
    assert.deepEqual(said('open'), [
      '/cache 1000:750 writable new seed',
      '/data/store 0:755 writable new',
      '/gone/y 0:755 writable new',
      '/dangling/y 0:755 writable new',
      '/pod 0:755 writable image new',
      'ls: /proc/x: No such file or directory',
    ]);
  });

  it('is separate for each container, also by CRI, and owned by root in a pod with a user namespace', async () => {
    const mapping = [{ containerId: 0, hostId: 100_000, length: 65_536 }];
    const usernsOptions = { mode: NamespaceMode.POD, uids: mapping, gids: mapping };
    for (const [pod, linux] of [
      ['plain', {}],
      ['mapped', { securityContext: { namespaceOptions: { usernsOptions } } }],
    ] as const) {
      const config = { metadata: { name: pod, namespace: 'default', uid: `uid-of-${pod}`, attempt: 0 }, linux };
      const { podSandboxId } = await runtime.runPodSandbox({ config });
      node.ids.push(podSandboxId);
      for (const attempt of [0, 1]) {
        const { containerId } = await runtime.createContainer({
          podSandboxId,
          config: {
            metadata: { name: 'main', attempt },
            image: { image: name },
            command: ['sleep', '600'],
            linux: { securityContext: { readonlyRootfs: true } },
          },
        });
        await runtime.startContainer({ containerId });
        const { stdout } = await runtime.execSync({
          containerId,
          cmd: ['sh', '-c', look('/cache /data /data/store /relative')],
        });
        assert.deepEqual(Buffer.from(stdout).toString().trim().split('\n'), [
          '/cache 1000:750 writable new seed',
          '/data 0:755 closed store',
          '/data/store 0:755 writable new',
          '/relative 0:755 writable new',
        ]);
        await runtime.removeContainer({ containerId });
      }
      await runtime.removePodSandbox({ podSandboxId });
    }
  });

  it('is refused if the image has a file there', async () => {
    const { code, stdout, stderr } = await node.cli.type(
      ['run', '-'],
      'apiVersion: v1\nkind: Pod\nmetadata: {name: file}\nspec:\n  restartPolicy: Never\n' +
        '  containers: [{name: c, image: "docker.io/shop/file:1", command: [sh]}]\n',
    );
    assert.notEqual(code, 0);
    assert.match(`${stdout}${stderr}`, /Cannot make the image's volume \/cache\/seed: \/cache\/seed .*not a directory/);
  });
});
