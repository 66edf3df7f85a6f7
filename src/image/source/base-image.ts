import { copyFile, mkdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/run.ts';
import { digestOf, ociArchitecture } from '../oci.ts';

/** The image of the examples: only Debian's busybox. */
export const baseReference = 'localhost/podvm/base:latest';

const passwd = 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n';
const group = 'root:x:0:\nnogroup:x:65534:\n';

/**
 * Makes an OCI layout of the base image in `directory` from the sysroot's static busybox. The same busybox gives the same
 * image.
 */
export async function makeBaseLayout(sysroot: string, directory: string, signal: AbortSignal): Promise<string> {
  const root = join(directory, 'base-root');
  const layout = join(directory, 'base-layout');
  await makeRoot(join(sysroot, 'usr/bin/busybox'), root, signal);
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });

  const tar = join(directory, 'base.tar');
  const fixed = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--format=gnu'];
  await run('tar', ['--create', '--file', tar, ...fixed, '--directory', root, '.'], { signal });
  const { stdout } = await run('sha256sum', [tar], { signal });
  const layerDigest = `sha256:${stdout.slice(0, 64)}`;
  await copyFile(tar, blobPath(layout, layerDigest));
  const layer = {
    mediaType: 'application/vnd.oci.image.layer.v1.tar',
    digest: layerDigest,
    size: (await stat(tar)).size,
  };

  const config = await addJson(layout, 'application/vnd.oci.image.config.v1+json', {
    architecture: ociArchitecture(),
    os: 'linux',
    config: { Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['sh'], WorkingDir: '/' },
    rootfs: { type: 'layers', diff_ids: [layerDigest] },
  });
  const manifestType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = await addJson(layout, manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    config,
    layers: [layer],
  });
  const annotations = { 'org.opencontainers.image.ref.name': baseReference };
  await writeFile(
    join(layout, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  return layout;
}

async function makeRoot(busybox: string, root: string, signal: AbortSignal): Promise<void> {
  for (const directory of [
    'bin',
    'sbin',
    'usr/bin',
    'usr/sbin',
    'etc',
    'proc',
    'sys',
    'dev',
    'run',
    'home',
    'root',
    'var/log',
  ]) {
    await mkdir(join(root, directory), { recursive: true });
  }
  await mkdir(join(root, 'tmp'), { mode: 0o777 });
  await run('chmod', ['1777', join(root, 'tmp')], { signal });
  await copyFile(busybox, join(root, 'bin/busybox'));
  const { stdout } = await run(busybox, ['--list-full'], { signal });
  for (const applet of stdout.split('\n').filter((line) => line !== '' && line !== 'bin/busybox')) {
    await symlink('/bin/busybox', join(root, applet)).catch(() => undefined); // the image lacks the applet's directory
  }
  await writeFile(join(root, 'etc/passwd'), passwd);
  await writeFile(join(root, 'etc/group'), group);
}

const blobPath = (layout: string, digest: string) => join(layout, 'blobs', digest.replace(':', '/'));

async function addJson(layout: string, mediaType: string, body: unknown) {
  const text = JSON.stringify(body);
  const digest = digestOf(text);
  await writeFile(blobPath(layout, digest), text);
  return { mediaType, digest, size: Buffer.byteLength(text) };
}
