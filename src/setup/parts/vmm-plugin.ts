import { chmod, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { programDirectory } from '#host/program-files.ts';
import { runInBuildRoot } from './build-root.ts';
import type { Part, PartRecipe } from './parts.ts';
import { buildRootOf } from './recipes.ts';

/** Source of QEMU's plugin; a release contains it. `recipesVersion` is increased with each change of it, too. */
const source = join(programDirectory, 'src/vm/qemu/plugin/discard-translations.c');

const options = [
  ...['-std=gnu17', '-shared', '-fPIC', '-Os', '-s', '-fvisibility=hidden'],
  ...['-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Wno-sign-conversion', '-Werror'],
  ...['-fstack-protector-strong', '-D_FORTIFY_SOURCE=3', '-Wl,-z,relro,-z,now'],
];

/** `discard-translations.so`: QEMU's plugin that gives memory of translations back to the host. */
export async function vmmPluginRecipe(buildRoot: Part, signal: AbortSignal): Promise<PartRecipe> {
  const text = await readFile(source, 'utf8');
  return {
    name: 'vmm-plugin',
    task: "building QEMU's plugin",
    inputs: { text, options, buildRoot: basename(buildRoot.directory), version: 1 },
    async make(directory) {
      const args = [...options, '-o', 'discard-translations.so', '/source.c'];
      const readOnly = { '/source.c': source };
      await runInBuildRoot({
        buildRoot: buildRootOf(buildRoot),
        workDir: directory,
        program: 'gcc',
        args,
        readOnly,
        signal,
      });
      await chmod(join(directory, 'discard-translations.so'), 0o444);
      return {};
    },
  };
}
