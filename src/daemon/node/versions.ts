import { formatVersions } from '#sandbox/format-versions.ts';
import { hashProgramSources } from '#setup/parts/program-sources.ts';
import { readCurrent } from '#setup/setup.ts';
import type { Configuration } from '../configuration/configuration.ts';

/**
 * Versions of the program, of its protocols and records, and of the parts that set-up made; the last are undefined
 * before set-up.
 */
export async function readVersions({ root, repo }: Pick<Configuration, 'root' | 'repo'>, version: string) {
  const current = await readCurrent(root);
  return {
    podvm: version,
    node: process.versions.node,
    ...formatVersions,
    agent: await hashProgramSources(repo),
    qemu: current?.qemuVersion,
    kernel: current?.kernelVersion,
    crun: current?.crunVersion,
  };
}
