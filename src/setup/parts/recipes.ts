import { chmod, copyFile, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { runInBuildRoot } from './build-root.ts';
import { suite, type DebianArchive } from './debian-archive.ts';
import { extractPackages } from './debian-packages.ts';
import { gatherModules, gatherPodModules } from './gather-modules.ts';
import { bootModules, demandModules, podDirectories, podModules } from './kernel-modules.ts';
import { parseSourceUris, versionsOf, writePackages } from './package-record.ts';
import type { Part, PartRecipe } from './parts.ts';
import { unneededInBuildRoot, unneededInSysroot } from './unneeded-files.ts';
import { extractVmlinux } from './vmlinux.ts';

/** Increased with each change below, so that assets of another version are recognised quickly. */
export const recipesVersion = 14;

/** Inputs that all recipes of packages share. */
export interface Ingredients {
  readonly archive: DebianArchive;
  /** Changes when newer packages are requested. */
  readonly generation: string;
  readonly signal: AbortSignal;
}

/** The packages that the sysroot is for; apt adds their dependencies. */
export const sysrootPackages: readonly string[] = ['qemu-system-x86', 'erofs-utils', 'e2fsprogs', 'busybox-static'];

/** The packages of the build root. */
export const buildRootPackages: readonly string[] = [
  ['gcc', 'libc6-dev', 'make', 'pkgconf', 'python3-minimal'], // crun's libocispec runs a generator
  ['libquickjs', 'libcap-dev', 'libseccomp-dev', 'libyajl-dev'],
  ['base-files', 'coreutils', 'dash', 'diffutils', 'findutils', 'grep', 'gzip', 'mawk', 'sed', 'tar'],
  ['cpio', 'kmod', 'xz-utils'],
].flat();

/**
 * Shell lines: set `image` to the newest kernel's package, and print the version that apt would take. Debian builds its
 * kernel for clouds from the same source, without drivers of hardware that no machine has: a third of the size.
 */
export const kernelImageScript: readonly string[] = [
  'image=$(apt-cache depends --important linux-image-cloud-amd64 | sed -n "s/^ *Depends: \\(linux-image-[^ ]*\\)$/\\1/p" | head -n 1)',
  'apt-get -qq -s --no-install-recommends install "$image" | grep "^Inst $image "',
];

const qemu = 'usr/bin/qemu-system-x86_64';

/**
 * A process whose program its user may run but not read dumps no core, and no other process of that user can trace it
 * (fs/exec.c, `would_dump`). Protects the VMM, whose memory is its guest's.
 */
const unreadable = [qemu];

/** Stores no blocks for the zeros in a file: a third of the kernel and of QEMU. */
export async function leaveHoles(path: string, signal: AbortSignal): Promise<void> {
  const copy = `${path}.sparse`;
  await run('cp', ['--sparse=always', '--preserve=mode,timestamps', path, copy], { signal });
  await rename(copy, path);
}

/** The file system of the jail: VMM, tools for disks and images, and busybox for the base image. */
export function sysrootRecipe({ archive, generation, signal }: Ingredients): PartRecipe {
  const packages = sysrootPackages;
  return {
    name: 'sysroot',
    task: `unpacking QEMU and its tools from Debian ${suite}`,
    inputs: { suite, packages, generation, unneeded: unneededInSysroot, unreadable, sparse: qemu, version: 2 },
    async make(directory) {
      const root = join(directory, 'root');
      const records = await extractPackages({
        archive,
        packages,
        unneeded: unneededInSysroot,
        target: root,
        signal,
      });
      await leaveHoles(join(root, qemu), signal);
      for (const path of unreadable) await chmod(join(root, path), 0o711);
      await writePackages(directory, records);
      return versionsOf(records);
    },
  };
}

/** The file system of the compiler, with crun's source in `/usr/src/crun.tar.gz`. */
export function buildRootRecipe({ archive, generation, signal }: Ingredients): PartRecipe {
  const packages = buildRootPackages;
  // Fetches only the upstream archive, which the signed index covers: not every package mirror carries the .dsc.
  const script = [
    'mkdir -p "$1/usr/src"',
    'cd "$1/usr/src"',
    'apt-get -qq source --only-source --print-uris crun >crun.uris',
    'apt-get -qq source --only-source --tar-only --download-only crun >/dev/null',
    'mv crun_*.orig.tar.* crun.tar.gz',
  ].join('\n');
  return {
    name: 'build-root',
    task: `unpacking a compiler from Debian ${suite}`,
    inputs: { suite, packages, script, generation, unneeded: unneededInBuildRoot, version: 3 },
    async make(directory) {
      const target = join(directory, 'root');
      const records = await extractPackages({
        archive,
        packages,
        script,
        unneeded: unneededInBuildRoot,
        target,
        signal,
      });
      const crun = parseSourceUris(await readFile(join(target, 'usr/src/crun.uris'), 'utf8'));
      await writePackages(directory, [...records, ...(crun === undefined ? [] : [crun])]);
      // The links that update-alternatives would make on installation.
      await symlink('gcc', join(target, 'usr/bin/cc'));
      await symlink('mawk', join(target, 'usr/bin/awk'));
      // Debian names the static library differently from what `-lyajl` looks for.
      await symlink('libyajl_s.a', join(target, 'usr/lib/x86_64-linux-gnu/libyajl.a'));
      return versionsOf(records);
    },
  };
}

/**
 * `vmlinux` and its `config`; and with a `modules.list` each, `modules/` of the initramfs and `pod-modules/` of the disk of
 * modules.
 */
export function kernelRecipe({ archive, generation, signal }: Ingredients, buildRoot: Part): PartRecipe {
  const script = [
    `{ ${kernelImageScript.join('; ')}; } >>"$1/package-versions"`,
    'cd "$1"',
    'apt-get -qq download "$image"',
    'dpkg-deb --fsys-tarfile "$image"_*.deb | tar -x',
    'rm -- *.deb',
    'mkdir -p usr/lib/modules lib && ln -s ../usr/lib/modules lib/modules',
    'ls usr/lib/modules >version',
  ].join('\n');
  return {
    name: 'kernel',
    task: `fetching the guest's kernel from Debian ${suite}`,
    inputs: {
      suite,
      script,
      generation,
      bootModules,
      demandModules,
      podDirectories,
      podModules,
      buildRoot: nameOf(buildRoot),
      version: 8,
    },
    async make(directory) {
      const work = join(directory, 'unpacked');
      const records = await extractPackages({ archive, packages: [], script, target: work, signal });
      await writePackages(directory, records);
      const release = (await readFile(join(work, 'version'), 'utf8')).trim();
      await writeFile(
        join(directory, 'vmlinux'),
        await extractVmlinux(await readFile(join(work, 'boot', `vmlinuz-${release}`))),
        { mode: 0o444 },
      );
      await leaveHoles(join(directory, 'vmlinux'), signal);
      await copyFile(join(work, 'boot', `config-${release}`), join(directory, 'config'));
      const gathering = { work, release, buildRoot: buildRootOf(buildRoot), signal };
      await gatherModules(gathering, join(directory, 'modules'));
      await gatherPodModules(gathering, join(directory, 'pod-modules'));
      await rm(work, { recursive: true });
      return { ...versionsOf(records), kernel: release };
    },
  };
}

/** `modules.erofs`: the disk for pods that administer their network, the same for all of them. `name`: that of the part. */
export function modulesDiskRecipe(name: string, kernel: Part, sysroot: Part, signal: AbortSignal): PartRecipe {
  const options = ['--quiet', '--all-root', '-T0', '-Uclear', '-x-1'];
  return {
    name,
    task: "making the disk of the guest's modules",
    inputs: { options, kernel: nameOf(kernel), sysroot: nameOf(sysroot), version: 1 },
    async make(directory) {
      const readOnly = { '/modules': join(kernel.directory, 'pod-modules') };
      const args = [...options, 'modules.erofs', '/modules'];
      const buildRoot = buildRootOf(sysroot); // the sysroot can run its programs as a build root does
      await runInBuildRoot({ buildRoot, workDir: directory, program: 'mkfs.erofs', args, readOnly, signal });
      await chmod(join(directory, 'modules.erofs'), 0o444);
      return {};
    },
  };
}

/**
 * A static `crun`: under emulation dynamic linking takes half of its time (design, section 10). Built without systemd,
 * criu and loading of plugins, which a guest does not have.
 */
export function crunRecipe(buildRoot: Part, signal: AbortSignal): PartRecipe {
  const script = [
    'mkdir source && tar -xzf /usr/src/crun.tar.gz -C source --strip-components=1 && cd source',
    'quietly() { "$@" >../log 2>&1 || { tail -n 8 ../log >&2; exit 1; }; }',
    'quietly ./configure --disable-dependency-tracking --disable-systemd --disable-criu --disable-dl --disable-shared' +
      ' --enable-static CFLAGS="-O2 -ffunction-sections -fdata-sections"',
    'quietly make -C libocispec -j2 libocispec.la', // generates headers, which must exist before what includes them
    'quietly make git-version.h',
    'quietly make -j2 crun LDFLAGS="-all-static -Wl,--gc-sections"',
    'strip crun && mv crun ../crun && cd .. && rm -r source log',
    './crun --version | sed -n "s/^crun version //p" >version',
  ].join('\n');
  return {
    name: 'crun',
    task: 'building crun',
    inputs: { script, buildRoot: nameOf(buildRoot), version: 1 },
    async make(directory) {
      const args = ['-euc', script];
      await runInBuildRoot({ buildRoot: buildRootOf(buildRoot), workDir: directory, program: 'sh', args, signal });
      return { crun: (await readFile(join(directory, 'version'), 'utf8')).trim() };
    },
  };
}

/** Maximum size: a guest of 64 MiB has no room to unpack a larger one. */
const maxInitramfsBytes = 16 * 1024 * 1024;

/** Makes the agent's static binary at `outFile`. */
export type ProgramBuilder = (options: {
  readonly repo: string;
  readonly buildRoot: string;
  readonly outFile: string;
  readonly entry: string;
  readonly calls: 'guest' | 'fileServer';
  readonly signal: AbortSignal;
}) => Promise<void>;

/** The host's file server: a static program on the agent's engine. */
export function fileServerRecipe(parts: FileServerParts): PartRecipe {
  const { repo, buildRoot, buildProgram, programsKey, signal } = parts;
  return {
    name: 'file-server',
    task: 'building the file server',
    inputs: { agent: programsKey, buildRoot: nameOf(buildRoot), version: 1 },
    async make(directory) {
      const outFile = join(directory, 'files');
      await buildProgram({
        repo,
        buildRoot: buildRootOf(buildRoot),
        outFile,
        entry: 'src/file-server/main.ts',
        calls: 'fileServer',
        signal,
      });
      return {};
    },
  };
}

const pageBytes = 4096;

export interface FileServerParts {
  readonly repo: string;
  readonly buildRoot: Part;
  readonly buildProgram: ProgramBuilder;
  /** Hash of all sources of it and the agent. */
  readonly programsKey: string;
  readonly signal: AbortSignal;
}

export interface InitramfsParts {
  /** Name of the part. */
  readonly name: string;
  readonly repo: string;
  readonly buildRoot: Part;
  readonly kernel: Part;
  readonly crun: Part;
  readonly buildProgram: ProgramBuilder;
  /** Hash of all sources of the agent. */
  readonly programsKey: string;
  readonly signal: AbortSignal;
}

/**
 * `initramfs.img`: agent as `/init`, crun and modules as an uncompressed cpio (unpacking costs an emulated guest more than
 * reading). Padded to whole pages: QEMU puts it on the highest page boundary from which it fits below the end of memory,
 * where the last 896 bytes are the firmware's ACPI tables. A file that left less room than that in its last page, as one
 * build in eight did, overwrote them, and the kernel hung when reading them ("ACPI: Core revision").
 */
export function initramfsRecipe(parts: InitramfsParts): PartRecipe {
  const script = [
    'umask 022',
    'mkdir -p tree/bin tree/lib/modules tree/dev tree/proc tree/sys tree/run tree/tmp',
    'cp agent tree/init && cp /parts/crun/crun tree/bin/crun && cp /parts/kernel/modules/* tree/lib/modules/',
    'chmod 755 tree/init tree/bin/crun',
    'find tree -exec touch --no-dereference --date=@0 {} +', // the same parts give the same bytes
    'cd tree && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible >../initramfs.img',
    'cd .. && rm -r tree',
    `truncate -s %${pageBytes} initramfs.img && chmod 444 initramfs.img`,
  ].join('\n');
  return {
    name: parts.name,
    task: "building the guest's agent and its initial RAM disk",
    inputs: { script, kernel: nameOf(parts.kernel), crun: nameOf(parts.crun), agent: parts.programsKey, version: 1 },
    async make(directory) {
      const buildRoot = buildRootOf(parts.buildRoot);
      const { repo, signal } = parts;
      await parts.buildProgram({
        repo,
        buildRoot,
        outFile: join(directory, 'agent'),
        entry: 'src/agent/main.ts',
        calls: 'guest',
        signal,
      });
      const readOnly = { '/parts/crun': parts.crun.directory, '/parts/kernel': parts.kernel.directory };
      await runInBuildRoot({ buildRoot, workDir: directory, program: 'sh', args: ['-euc', script], readOnly, signal });
      const { length } = await readFile(join(directory, 'initramfs.img'));
      if (length > maxInitramfsBytes) {
        throw new PodvmError(
          'exhausted',
          `Cannot make the initramfs: expected at most ${maxInitramfsBytes} bytes, got ${length}`,
        );
      }
      return {};
    },
  };
}

/** Identifies the input part by name, not by path: the state directory may be anywhere, and move. */
function nameOf(part: Part): string {
  return basename(part.directory);
}

export function buildRootOf(part: Part): string {
  return join(part.directory, 'root');
}
