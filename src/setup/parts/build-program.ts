import { build } from 'esbuild';
import { copyFile, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { guestText } from '#base/guest-text.ts';
import { runInBuildRoot } from './build-root.ts';

export interface ProgramBuild {
  /** Directory with `src/` and `node_modules/`. */
  readonly repo: string;
  /** Extracted Debian packages: gcc, libc6-dev, libquickjs. */
  readonly buildRoot: string;
  /** Path of the static binary; replaced in one rename. */
  readonly outFile: string;
  /** Relative to `repo`: `src/agent/main.ts`. */
  readonly entry: string;
  /** System calls that it has: those of a guest's agent, of the host's file server, or of the engine's own test. */
  readonly calls: keyof typeof cFolders;
  /** Enables address and undefined-behaviour checks in the C code, dynamically linked: for tests only. */
  readonly sanitize?: boolean;
  readonly signal: AbortSignal;
}

/** The engine that the sources are written for: Debian 13's libquickjs. */
const engineName = 'quickjs 2025-04-26';
const library = '/usr/lib/x86_64-linux-gnu/quickjs/libquickjs.a';

/** Folders whose C a program has: the engine, and what binds the system calls of that program. */
const cFolders = {
  guest: ['src/engine', 'src/engine/guest'],
  fileServer: ['src/engine', 'src/file-server'],
  scenarios: ['src/engine', 'src/engine/guest', 'src/engine/testing'],
} as const;

const warnings = ['-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Wno-sign-conversion', '-Werror'];
const release = [
  ...['-Os', '-static', '-s', '-ffunction-sections', '-fdata-sections', '-Wl,--gc-sections'],
  '-fno-asynchronous-unwind-tables', // no C stack is unwound: QuickJS keeps its own
];
const hardening = ['-fstack-protector-strong', '-D_FORTIFY_SOURCE=3'];
const checks = [
  '-O1',
  '-g',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=undefined',
  '-fno-omit-frame-pointer',
];

/**
 * Builds a program on the agent's engine: bundles TypeScript into one script, compiles it to bytecode, and links that with
 * the engine into a static binary. Errors: `internal` with the bundler's or the compiler's last lines as `tail`.
 */
export async function buildProgram(options: ProgramBuild): Promise<void> {
  const { repo, outFile, entry, calls, sanitize = false } = options;
  await mkdir(dirname(outFile), { recursive: true });
  const workDir = await mkdtemp(`${outFile}.build-`);
  try {
    await bundle(join(repo, entry), join(workDir, 'agent.js'));
    const inRoot = async (program: string, args: readonly string[]) =>
      await runInBuildRoot({
        buildRoot: options.buildRoot,
        workDir,
        program,
        args,
        readOnly: { '/src': join(repo, 'src') },
        signal: options.signal,
      });
    const sources = (await Promise.all(cFolders[calls].map((folder) => sourcesIn(repo, folder)))).flat();
    await inRoot('gcc', ['-O1', '-o', 'compile', '/src/engine/compile.c', library, '-lm', '-lpthread']);
    await inRoot('./compile', ['agent.js', 'agent.bytecode']);
    await inRoot('gcc', [
      '-std=gnu17',
      `-DENGINE_NAME="${engineName}"`,
      ...(calls === 'scenarios' ? ['-DSCENARIOS'] : []),
      ...warnings,
      ...(sanitize ? [...checks, ...ownLoader(options.buildRoot)] : [...release, ...hardening]),
      '-o',
      'agent',
      '-I/src/engine',
      ...sources,
      library,
      '-lm',
      '-lpthread',
    ]);
    await copyFile(join(workDir, 'agent'), `${outFile}.new`);
    await rename(`${outFile}.new`, outFile);
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

/** The C files of a folder, by their paths in the build root. */
async function sourcesIn(repo: string, folder: string): Promise<string[]> {
  const names = (await readdir(join(repo, folder))).filter((name) => name.endsWith('.c') && name !== 'compile.c');
  return names.sort().map((name) => `/${folder}/${name}`);
}

/** The checks' libraries are dynamic and newer than the host's: uses those of the build root. */
const ownLoader = (buildRoot: string): string[] => [
  `-Wl,--dynamic-linker=${buildRoot}/usr/lib64/ld-linux-x86-64.so.2`,
  `-Wl,-rpath=${buildRoot}/usr/lib/x86_64-linux-gnu`,
];

/** Bundles into one script for the engine, which supports neither `using` nor loading modules at run time. */
async function bundle(entry: string, outfile: string): Promise<void> {
  try {
    await build({
      entryPoints: [entry],
      outfile,
      bundle: true,
      format: 'iife',
      platform: 'neutral',
      mainFields: ['module', 'main'],
      target: 'es2022',
      minifySyntax: true,
      legalComments: 'none',
      charset: 'utf8',
      logLevel: 'silent',
    });
  } catch (cause) {
    const tail = cause instanceof Error ? cause.message.split('\n').slice(0, 8) : [];
    throw new PodvmError('internal', `Cannot bundle ${entry}: ${tail[1] ?? 'the bundler failed'}`, {
      cause,
      tail: tail.map(guestText),
    });
  }
}
