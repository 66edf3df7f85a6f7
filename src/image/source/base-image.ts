import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { writeImageLayout } from './write-image-layout.ts';

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
  await makeBusyboxRoot(join(sysroot, 'usr/bin/busybox'), root, signal);
  const config = { Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['sh'], WorkingDir: '/' };
  const layers = [{ root, isCompressed: false }];
  await writeImageLayout(layout, { reference: baseReference, layers, config, epoch: 0 }, signal);
  return layout;
}

/** Makes a root directory with busybox, and a link to it for each of its programs. */
export async function makeBusyboxRoot(busybox: string, root: string, signal: AbortSignal): Promise<void> {
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
