import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { runInBuildRoot } from './build-root.ts';
import { moduleFile, modulesList, planModules, planPodModules, podModulesList } from './kernel-modules.ts';

export interface Gathering {
  /** Directory of the unpacked package. */
  readonly work: string;
  readonly release: string;
  readonly buildRoot: string;
  readonly signal: AbortSignal;
}

const treeOf = ({ work, release }: Gathering) => join(work, 'usr/lib/modules', release);

export async function gatherModules(gathering: Gathering, into: string): Promise<void> {
  const { work, release, buildRoot, signal } = gathering;
  const tree = treeOf(gathering);
  await runInBuildRoot({ buildRoot, workDir: work, program: 'depmod', args: ['-b', '/work', release], signal });
  const modules = planModules(
    await readFile(join(tree, 'modules.dep'), 'utf8'),
    await readFile(join(tree, 'modules.builtin'), 'utf8'),
  );
  await mkdir(into);
  const packed: string[] = [];
  for (const module of modules) {
    // Modules of every boot are stored decompressed; the kernel decompresses the rest itself (CONFIG_MODULE_DECOMPRESS).
    const file = moduleFile(module);
    const xz = module.path.endsWith('.xz') && !file.endsWith('.xz');
    if (xz) packed.push(`${file}.xz`);
    await copyFile(join(tree, module.path), join(into, xz ? `${file}.xz` : file));
  }
  // Signature and type information cost an emulated guest a third of a second of every boot (checked, never used); a
  // signature adds nothing, since the host's root can replace the module anyway.
  const unpack = 'for file; do xz -d -- "$file"; objcopy --strip-debug --remove-section .BTF "${file%.xz}"; done';
  const args = ['-euc', unpack, 'sh', ...packed];
  await runInBuildRoot({ buildRoot, workDir: into, program: 'sh', args, signal });
  await writeFile(join(into, 'modules.list'), modulesList(modules));
}

/**
 * Decompressed, since an emulated guest takes longer to decompress a module than to load it; with signatures, which the
 * kernel may be told to require. Runs after `gatherModules`.
 */
export async function gatherPodModules(gathering: Gathering, into: string): Promise<void> {
  const { buildRoot, signal } = gathering;
  const tree = treeOf(gathering);
  const read = (name: string) => readFile(join(tree, name), 'utf8');
  const modules = planPodModules(await read('modules.dep'), await read('modules.builtin'));
  await mkdir(into);
  for (const { path } of modules) await copyFile(join(tree, path), join(into, basename(path)));
  const args = ['-euc', 'for file in *.ko.xz; do test ! -e "$file" || xz -d -- "$file"; done'];
  await runInBuildRoot({ buildRoot, workDir: into, program: 'sh', args, signal });
  await writeFile(join(into, 'modules.list'), podModulesList(modules, await read('modules.alias')));
}
