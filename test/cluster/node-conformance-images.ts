import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TarSpec } from '#image/tar/tar-builder.ts';
import { withParents } from '../conformance/debian-files.ts';
import { type ImageSpec, writeLayout } from '../images/layout-writer.ts';
import type { NodeConformance } from './build-node-conformance.ts';

const registry = 'registry.k8s.io/e2e-test-images';
const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const file = (name: string, content: string): TarSpec => ({ name, content });

/** Images of other suites that stand in here, too. */
export interface OtherStandIns {
  readonly busybox: ImageSpec;
  readonly nginx: ImageSpec;
  /** A setuid program that prints the user as whom it runs. */
  readonly nonewprivs: ImageSpec;
}

/**
 * Stand-ins for the images of Kubernetes' tests of a node, with the names that `test/utils/image/manifest.go` of its module
 * has. Several versions of an image are one.
 */
export async function nodeConformanceImages(
  built: NodeConformance,
  { busybox, nginx, nonewprivs }: OtherStandIns,
): Promise<readonly (readonly [name: string, image: ImageSpec])[]> {
  const agnhost = await agnhostLayers(built, busybox);
  const asAgnhost = (Cmd: readonly string[]): ImageSpec => ({
    layers: agnhost,
    config: { config: { Env: [path], Entrypoint: ['/agnhost'], Cmd } },
  });
  const asUser = { Env: [path], Cmd: ['sh'], User: '1234' };
  return [
    ...['2.55', '2.59'].map((tag) => [`${registry}/agnhost:${tag}`, asAgnhost(['pause'])] as const),
    // It ends by SIGTERM, as the real one does.
    ['registry.k8s.io/pause:3.10.1', asAgnhost(['pause'])],
    [`${registry}/busybox:1.37.0-1`, await busyboxWithBash(built, busybox)],
    ...['1.14-4', '1.15-4'].map((tag) => [`${registry}/nginx:${tag}`, nginx] as const),
    [`${registry}/nonewprivs:1.3`, nonewprivs],
    [`${registry}/nonroot:1.4`, { layers: busybox.layers, config: { config: asUser } }],
  ];
}

/**
 * Busybox with bash as the `sh` that PATH finds first: unlike the real one, Debian's busybox does not pass on variables whose
 * names contain a hyphen. /bin/sh stays, since a spec compares its messages.
 */
async function busyboxWithBash({ debian }: NodeConformance, busybox: ImageSpec): Promise<ImageSpec> {
  const bash = 'usr/bin/bash';
  const shell = await debian.program(bash, { as: 'usr/local/bin/sh' });
  const layer = withParents([shell, ...(await debian.libraries(bash))]);
  return { ...busybox, layers: [...busybox.layers, layer] };
}

/**
 * As its Dockerfile makes them, apart from programs that no spec of a node uses. The shell is bash, since that of Debian's
 * busybox prefers its own `nc`, which has no UDP.
 */
async function agnhostLayers(
  { agnhost, certificate, debian }: NodeConformance,
  busybox: ImageSpec,
): Promise<ImageSpec['layers']> {
  const [bash, curl, nc] = ['usr/bin/bash', 'usr/bin/curl', 'usr/bin/nc.openbsd'] as const;
  const programs: readonly TarSpec[] = [
    await debian.program(bash, { as: 'bin/bash' }),
    { name: 'bin/sh', type: 'symlink', target: 'bash' },
    await debian.program(curl),
    await debian.program(nc, { as: 'bin/nc' }),
    ...(await debian.libraries(bash, curl, nc)),
  ];
  const users = [
    file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n'),
    file(
      'etc/group',
      'root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n',
    ),
  ];
  const served = [
    file('localhost.crt', await readFile(certificate.crt, 'utf8')),
    file('localhost.key', await readFile(certificate.key, 'utf8')),
    ...(await servedImage('pause', 'testing', {
      layers: busybox.layers,
      config: { config: { Cmd: ['sleep', '1000'] } },
    })),
  ];
  const own: readonly TarSpec[] = [
    { name: 'agnhost', content: await readFile(agnhost), mode: 0o755 },
    { name: 'agnhost-2', type: 'symlink', target: 'agnhost' },
    { name: 'uploads', type: 'directory', mode: 0o755 },
  ];
  return [...busybox.layers, withParents([...programs, ...users, ...served]), own];
}

/** Files by which the registry of agnhost serves an image. */
async function servedImage(name: string, tag: string, image: ImageSpec): Promise<readonly TarSpec[]> {
  const layout = await mkdtemp('/var/tmp/podvm-served-');
  try {
    const [written] = await writeLayout(layout, [image]);
    if (written === undefined) return [];
    const { manifestDigest, id, layerDigests } = written;
    const blob = async (directory: string, digest: string): Promise<TarSpec> => ({
      name: join('var/registry', name, directory, digest),
      content: await readFile(join(layout, 'blobs', digest.replace(':', '/'))),
    });
    return [
      file(join('var/registry', name, 'manifests', tag), manifestDigest),
      await blob('manifests', manifestDigest),
      ...(await Promise.all([id, ...layerDigests].map((digest) => blob('blobs', digest)))),
    ];
  } finally {
    await rm(layout, { recursive: true });
  }
}
