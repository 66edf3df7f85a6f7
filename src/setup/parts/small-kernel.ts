import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { programDirectory } from '#host/program-files.ts';
import { runInBuildRoot } from './build-root.ts';
import { suite } from './debian-archive.ts';
import { extractPackages } from './debian-packages.ts';
import { gatherModules, gatherPodModules } from './gather-modules.ts';
import { mergeConfig, refusedOptions } from './kernel-config.ts';
import { builtInNames, namesInList } from './kernel-modules.ts';
import { versionsOf, writePackages } from './package-record.ts';
import type { Part, PartRecipe } from './parts.ts';
import { type Ingredients, leaveHoles } from './recipes.ts';

/** The fragment of a configuration: what differs from Debian's. */
export const fragmentFile = join(programDirectory, 'src/setup/parts/small-kernel.config');

/** The packages that build a kernel; they are removed with the directory of the build. */
const tools: readonly string[] = [
  ['gcc', 'libc6-dev', 'make', 'bc', 'bison', 'flex', 'perl'],
  ['libelf-dev', 'libssl-dev', 'openssl'], // for `objtool`; for the signatures of modules
  ['base-files', 'bash', 'coreutils', 'dash', 'diffutils', 'findutils', 'grep', 'gzip', 'mawk', 'sed', 'tar'],
  ['cpio', 'kmod', 'xz-utils'],
].flat();

/** Time limit of a build on a slow machine, in `ms`. */
const buildTimeoutMs = 12 * 60 * 60_000;

/** A shell function that shows only the last lines of what fails. */
const quietly = 'quietly() { "$@" >>log 2>&1 </dev/null || { tail -n 20 log >&2; exit 1; }; }';

/**
 * Shell script in the directory of the build: unpacks the source, and makes `build/.config` of `config`, whose modules
 * become those listed in `modules`, and what these depend on.
 */
const configure = [
  quietly,
  'mkdir source build',
  'quietly tar -xJf /usr/src/linux-source-*.tar.xz -C source --strip-components=1',
  'cp config build/.config',
  // The kernel's own program for a list of `lsmod`. It asks about what is new in its configuration: the defaults.
  'yes "" | make -C source O=/work/build LSMOD=/work/modules localmodconfig >log 2>&1 || { tail -n 20 log >&2; exit 1; }',
  'quietly make -C source O=/work/build olddefconfig',
].join('\n');

/**
 * Shell script: builds the kernel, and installs its modules below `unpacked` as Debian's package does. The only difference
 * between two builds is the key that they make for the signatures of modules, which is thrown away with the directory.
 */
const build = [
  quietly,
  'made=$(date -u -d "@$(stat -c %Y /usr/src/linux-source-*.tar.xz)")',
  'export KBUILD_BUILD_TIMESTAMP="$made" KBUILD_BUILD_USER=podvm KBUILD_BUILD_HOST=podvm KBUILD_BUILD_VERSION=1',
  'build() { quietly make -C source O=/work/build LOCALVERSION="$version" -j"$(nproc)" "$@"; }',
  'version=$1',
  'build vmlinux modules',
  'build INSTALL_MOD_PATH=/work/unpacked/usr INSTALL_MOD_STRIP=1 modules_install',
  'mkdir unpacked/lib && ln -s ../usr/lib/modules unpacked/lib/modules',
  'objcopy --remove-section .comment --strip-all build/vmlinux vmlinux', // as in Debian's image
].join('\n');

/**
 * Modules of Debian's kernel for pods that this one does not have, each for a reason: `drop_monitor` needs the kernel's
 * tracing.
 */
const withoutModules: ReadonlySet<string> = new Set(['drop_monitor']);

/** A package of Debian's source of a kernel. */
interface KernelSource {
  readonly name: string;
  readonly version: string;
  /** What the release of the kernel has behind upstream's version. */
  readonly localVersion: string;
}

/** Shell script below `$1`, with apt configured: the archive of the source, in `usr/src`. */
const fetchOf = ({ name, version }: KernelSource) =>
  [
    `apt-get -qq -s --no-install-recommends install "${name}=${version}" | grep "^Inst ${name} " >>"$1/package-versions"`,
    'cd "$1"',
    `apt-get -qq download "${name}=${version}"`,
    `dpkg-deb --fsys-tarfile ${name}_*.deb | tar -x`,
    'rm -- *.deb',
  ].join('\n');

/**
 * A kernel with what a pod needs and no more, from Debian's source package of the version of `kernel`, which is Debian's: its
 * configuration, as the fragment changes it, with those of its modules that pods may load. Has the files of such a part.
 * Building it takes about half an hour of processor time and 3 GB of disk.
 */
export async function smallKernelRecipe(
  { archive, signal }: Omit<Ingredients, 'generation'>,
  kernel: Part,
): Promise<PartRecipe> {
  const fragment = await readFile(fragmentFile, 'utf8');
  const read = (path: string) => readFile(join(kernel.directory, path), 'utf8');
  const debian = await read('config');
  const lists = [await read('modules/modules.list'), await read('pod-modules/modules.list')];
  const source = sourceOf(kernel);
  const fetch = source === undefined ? undefined : fetchOf(source);
  // Not the name of Debian's part: an upgrade of other packages gives it another one, and needs no other build.
  const inputs = { suite, fragment, source, fetch, tools, configure, build, debian, lists };
  return {
    name: 'small-kernel',
    task: "building the guest's small kernel, for half an hour or more",
    inputs: { ...inputs, withoutModules: [...withoutModules], version: 1 },
    async make(directory) {
      if (source === undefined || fetch === undefined)
        throw new PodvmError('unsupported', `Cannot build the small kernel: Debian's has an unknown version`, {
          fix: 'Run `podvm setup --kernel debian`.',
        });
      const buildRoot = join(directory, 'tools');
      const extraction = { archive, packages: tools, script: fetch, target: buildRoot, signal };
      const records = await extractPackages(extraction).catch((cause: unknown) => {
        if (kindOf(cause) !== 'unavailable') throw cause;
        const fix = `If the archives have a newer kernel than ${source.version}, run \`podvm setup --upgrade --kernel small\`.`;
        throw new PodvmError('unavailable', `Cannot build the small kernel: ${messageOf(cause)}`, { cause, fix });
      });
      // The links that update-alternatives would make on installation.
      await symlink('gcc', join(buildRoot, 'usr/bin/cc'));
      await symlink('mawk', join(buildRoot, 'usr/bin/awk'));
      const work = join(directory, 'work');
      await mkdir(work);
      const sh = (script: string, ...args: readonly string[]) =>
        runInBuildRoot({
          ...{ buildRoot, workDir: work, signal, timeoutMs: buildTimeoutMs },
          ...{ program: 'nice', args: ['-n', '15', 'sh', '-euc', script, 'sh', ...args] },
        });
      await writeFile(join(work, 'config'), mergeConfig(debian, fragment));
      await writeFile(
        join(work, 'modules'),
        lists.flatMap((list) => namesInList(list).map((name) => `${name}\n`)).join(''),
      );
      await sh(configure);
      const config = await readFile(join(work, 'build/.config'), 'utf8');
      refuse(refusedOptions(fragment, config), 'its rules refuse options of the fragment');
      await sh(build, source.localVersion);
      const unpacked = join(work, 'unpacked');
      const [release = ''] = await readdir(join(unpacked, 'usr/lib/modules'));
      const gathering = { work: unpacked, release, buildRoot, signal };
      await gatherModules(gathering, join(directory, 'modules'));
      await gatherPodModules(gathering, join(directory, 'pod-modules'));
      const own = ['modules', 'pod-modules'].map((name) => readFile(join(directory, name, 'modules.list'), 'utf8'));
      const builtIn = await readFile(join(unpacked, 'usr/lib/modules', release, 'modules.builtin'), 'utf8');
      refuse(lostModules(lists, await Promise.all(own), builtIn), 'it lacks modules that pods are promised');
      await rename(join(work, 'vmlinux'), join(directory, 'vmlinux'));
      await chmod(join(directory, 'vmlinux'), 0o444);
      await leaveHoles(join(directory, 'vmlinux'), signal);
      await copyFile(join(work, 'build/.config'), join(directory, 'config'));
      await writePackages(
        directory,
        records.filter(({ name }) => name === source.name),
      );
      for (const path of [work, buildRoot]) await rm(path, { recursive: true, force: true, maxRetries: 5 });
      return { ...versionsOf(records.filter(({ name }) => name === source.name)), 'small-kernel': release };
    },
    async howFar(directory) {
      const log = await readFile(join(directory, 'work/log'), 'utf8').catch(() => ''); // there while the kernel's own make runs
      const compiled = log.match(/^ {2}CC /gm)?.length;
      return compiled === undefined ? undefined : `${compiled} files compiled`;
    },
  };
}

/** The source package of a part with Debian's kernel; undefined for a version of another form. */
export function sourceOf({ versions }: Part): KernelSource | undefined {
  const version = Object.entries(versions).find(([name]) => name.startsWith('linux-image-'))?.[1] ?? '';
  const [, upstream, series, revision = ''] = /^((\d+\.\d+)\.\d+)(-[\w.+~]+)$/.exec(version) ?? [];
  if (upstream === undefined || series === undefined) return undefined;
  return { name: `linux-source-${series}`, version, localVersion: `${revision}-podvm` };
}

/**
 * Modules that Debian's kernel has for pods and this one neither has nor contains, except for those without a use here. `debian`
 * and `own`: each `modules.list`; `builtIn`: the kernel's `modules.builtin`.
 */
export function lostModules(debian: readonly string[], own: readonly string[], builtIn: string): readonly string[] {
  const there = new Set([...own.flatMap(namesInList), ...builtInNames(builtIn), ...withoutModules]);
  return debian.flatMap(namesInList).filter((name) => !there.has(name));
}

/** Errors: `internal` when there is anything wrong. */
function refuse(wrong: readonly string[], why: string): void {
  if (wrong.length > 0) throw new PodvmError('internal', `Cannot build the small kernel: ${why}: ${wrong.join(', ')}`);
}
