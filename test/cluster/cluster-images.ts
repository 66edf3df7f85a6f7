import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TarSpec } from '#image/tar/tar-builder.ts';
import { type DebianFiles, withParents } from '../conformance/debian-files.ts';
import { standIns } from '../conformance/stand-ins.ts';
import { type ImageSpec, writeLayout } from '../images/layout-writer.ts';
import type { AddOns } from './build-add-ons.ts';
import type { NodeConformance } from './build-node-conformance.ts';
import { until } from './kubectl.ts';
import { nodeConformanceImages } from './node-conformance-images.ts';
import type { ClusterNode } from './node-namespaces.ts';
import { images } from './places.ts';
import { write } from './worker.ts';

/** Packages of the cluster's own images, and of etcd. */
export const packages = ['etcd-server', 'iptables', 'prometheus-node-exporter'];

export interface ImageSources {
  /** Files of the images that critest pulls. */
  readonly suite: DebianFiles;
  /** Files of `packages`. */
  readonly debian: DebianFiles;
  readonly kubernetes: string;
  readonly coredns: string;
  readonly addOns: AddOns | undefined;
  readonly tests: NodeConformance | undefined;
  /** OCI layout of the node image. */
  readonly nodeImage: string;
}

/** The images of the cluster by their names. */
async function makeImages({
  suite,
  debian,
  kubernetes,
  coredns,
  addOns,
  tests,
}: ImageSources): Promise<ReadonlyMap<string, ImageSpec>> {
  const made = await standIns(suite);
  const standIn = (part: string): ImageSpec => {
    const found = made.find(({ names }) => names.some((name) => name.includes(part)))?.image;
    assert.ok(found !== undefined, part);
    return found;
  };
  const box = standIn('/busybox:1.29');
  const program = async (name: string, path: string): Promise<TarSpec> => ({
    name,
    content: await readFile(path),
    mode: 0o755,
  });
  const withProgram = async (path: string, files: readonly TarSpec[], entrypoint: string): Promise<ImageSpec> => {
    const layer = withParents([...files, await program(entrypoint.slice(1), path)]);
    return { layers: [...box.layers, layer], config: { config: { Entrypoint: [entrypoint] } } };
  };
  const ofAddOns = async (built: AddOns): Promise<readonly [string, ImageSpec][]> => {
    const ipset = await withLibraries(built.debian, 'usr/sbin/ipset');
    const mkfs = await withLibraries(built.debian, 'usr/sbin/mkfs.btrfs');
    const rules = onlyLast([...(await iptables(debian)), ...ipset]);
    return [
      [images.metricsServer, await withProgram(built.metricsServer, [], '/metrics-server')],
      [images.kubeRouter, await withProgram(built.kubeRouter, rules, '/usr/local/bin/kube-router')],
      [images.csiDriver, await withProgram(built.csiDriver, mkfs, '/csi-driver')],
      [images.csiResizer, await withProgram(built.csiResizer, [], '/csi-resizer')],
    ];
  };
  const exporter = 'usr/bin/prometheus-node-exporter';
  return new Map<string, ImageSpec>([
    [images.busybox, box],
    [images.nginx, standIn('/nginx:')],
    [images.pause, standIn('/pause:')],
    [images.coredns, await withProgram(coredns, [], '/coredns')],
    [
      images.proxy,
      await withProgram(join(kubernetes, 'kubernetes'), await iptables(debian), '/usr/local/bin/kube-proxy'),
    ],
    [
      images.exporter,
      await withProgram(join(debian.root, exporter), await debian.libraries(exporter), '/bin/node_exporter'),
    ],
    ...(addOns === undefined ? [] : await ofAddOns(addOns)),
    ...(tests === undefined
      ? []
      : await nodeConformanceImages(tests, {
          busybox: box,
          nginx: standIn('/nginx:'),
          nonewprivs: standIn('/nonewprivs:'),
        })),
  ]);
}

const withLibraries = async (debian: DebianFiles, path: string): Promise<readonly TarSpec[]> => [
  await debian.program(path),
  ...(await debian.libraries(path)),
];

/** Programs may have libraries in common. */
const onlyLast = (files: readonly TarSpec[]) => [...new Map(files.map((file) => [file.name, file])).values()];

/** With the names that the package's scripts would link. */
async function iptables(debian: DebianFiles): Promise<readonly TarSpec[]> {
  const multi = 'usr/sbin/xtables-nft-multi';
  const names = ['iptables', 'ip6tables'].flatMap((name) => [name, `${name}-save`, `${name}-restore`]);
  return [
    await debian.program(multi),
    ...names.map((name): TarSpec => ({ name: `usr/sbin/${name}`, type: 'symlink', target: 'xtables-nft-multi' })),
    ...(await debian.tree('usr/lib/x86_64-linux-gnu/xtables')),
    ...(await debian.libraries(multi)),
  ];
}

/** Not 5000, at which a registry of Kubernetes' tests listens. */
const port = 5080;

/** Serves the images from a real registry on the node, to which podvm and containerd of all `nodes` are sent for them. */
export async function serveImages(
  node: ClusterNode,
  nodes: readonly ClusterNode[],
  sources: ImageSources,
): Promise<void> {
  const storage = { filesystem: { rootdirectory: join(node.work, 'registry') } };
  const http = { addr: `0.0.0.0:${port}` };
  const log = { level: 'error', accesslog: { disabled: true } };
  await write(node, '/etc/registry.json', JSON.stringify({ version: '0.1', log, storage, http }));
  await node.serve('registry', 'docker-registry', ['serve', '/etc/registry.json']);
  const policy = JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] });
  for (const each of nodes) await write(each, '/etc/containers/policy.json', policy);
  await until('the registry answers', () => node.run('curl', ['-sf', `http://127.0.0.1:${port}/v2/`]));

  for (const [at, [name, image]] of [...(await makeImages(sources))].entries()) {
    const layout = join(node.work, 'images', String(at));
    await writeLayout(layout, [{ ...image, compression: 'none' }]);
    await push(node, layout, name);
  }
  await push(node, sources.nodeImage, images.node);
  const hosts = new Set(Object.values(images).map((name) => name.slice(0, name.indexOf('/'))));
  await sendToRegistry(nodes, `${node.address}:${port}`, [...hosts]);
}

/** Gives the registry of that node an image. */
export async function push(node: ClusterNode, layout: string, name: string): Promise<void> {
  const flags = ['--quiet', '--preserve-digests', '--dest-tls-verify=false'];
  const target = `docker://127.0.0.1:${port}/${name}`;
  await node.run('skopeo', ['copy', ...flags, `oci:${layout}`, target], { timeoutMs: 120_000 });
}

/** The registry has the images of a host below the host's name. */
async function sendToRegistry(
  nodes: readonly ClusterNode[],
  registry: string,
  hosts: readonly string[],
): Promise<void> {
  const blocks = hosts.map(
    (host) => `[[registry]]\nprefix = "${host}"\nlocation = "${registry}/${host}"\ninsecure = true\n`,
  );
  for (const node of nodes) {
    await write(node, '/etc/containers/registries.conf', blocks.join('\n'));
    for (const host of hosts) {
      const url = `http://${registry}/v2/${host}`;
      const text = `[host."${url}"]\ncapabilities = ["pull", "resolve"]\noverride_path = true\n`;
      await write(node, `/etc/containerd/certs.d/${host}/hosts.toml`, text);
    }
  }
}
