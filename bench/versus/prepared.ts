import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { basename, join } from 'node:path';
import * as v from 'valibot';
import { assetsSchema } from '#host/assets.ts';
import { run } from '#host/process/run.ts';
import { makeBaseLayout } from '#image/source/base-image.ts';
import { callersEnv } from '../../test/conformance/callers-env.ts';
import { buildCriTools } from '../../test/conformance/cri-tools.ts';
import { goVersion } from '../../test/conformance/go-module.ts';
import { buildContainerd } from '../../test/containerd/build-containerd.ts';
import { buildImage } from '../../test/images/build-images.ts';
import { iperfRecipe } from '../../test/images/recipes.ts';
import { makeRelease } from '../release.ts';
import { buildGvisor } from './build-gvisor.ts';
import { measureBusy } from './busy.ts';
import type { Result } from './result.ts';

/** Programs of the peers, and images, made while the network can be reached. Handed on as JSON. */
export interface Prepared {
  /** Directory for all files of this run. */
  readonly work: string;
  /** Command of a release of this checkout, as users have it. */
  readonly podvm: string;
  /** Parent of the cgroups of containerd's pods. */
  readonly cgroupParent: string;
  /** State directory with what set-up made. */
  readonly assetsRoot: string;
  readonly programs: Readonly<Record<'containerd' | 'ctr' | 'runc' | 'runsc' | 'crictl' | 'busybox', string>> & {
    readonly version: string;
  };
  /** OCI layouts. */
  readonly layouts: { readonly base: string; readonly iperf: string };
  readonly machine: Result['machine'];
  readonly versions: Result['versions'];
}

/** Cache of the tools of peers, which tests use too. */
const cache = '/var/cache/podvm-conformance';
const setUpTimeoutMs = 30 * 60_000;
/** Time in which the machine's other work is measured. */
const watchedMs = 5_000;
const repo = join(import.meta.dirname, '../..');

/** Errors: `Error` on a machine without Go, with which peers are built. */
export async function prepare(work: string, say: (line: string) => void, signal: AbortSignal): Promise<Prepared> {
  const busyBefore = await measureBusy(watchedMs, signal);
  const go = await goVersion(signal);
  if (go === undefined) throw new Error('this machine has no Go toolchain (`go`), with which peers are built');
  say(`building containerd, crictl and gVisor with ${go}, unless they are there`);
  const containerd = await buildContainerd(cache, signal);
  const { crictl } = await buildCriTools(cache, signal);
  const gvisor = await buildGvisor(cache, signal);
  say('making images, unless they are there');
  const env = callersEnv();
  await run(join(repo, 'podvm'), ['setup'], { env, timeoutMs: setUpTimeoutMs, signal });
  const assetsRoot = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';
  const podvm = await makeRelease(assetsRoot, work, signal);
  const assets = v.parse(assetsSchema, await json(join(assetsRoot, 'assets/current.json')));
  const images = join(work, 'images');
  await mkdir(images);
  const layouts = {
    base: await makeBaseLayout(assets.sysroot, images, signal),
    iperf: await buildImage(iperfRecipe, signal),
  };
  const firstLine = async (program: string, ...args: readonly string[]) =>
    /\d+\.\d+\S*/.exec((await run(program, args, { signal })).stdout)?.[0] ?? '?';
  const { qemuVersion, kernelVersion, accelerator } = await factsOf(assetsRoot);
  return {
    work,
    podvm,
    cgroupParent: `/${basename(work)}`,
    assetsRoot,
    programs: {
      ...containerd,
      ...gvisor,
      crictl,
      version: containerd.version,
      busybox: join(assets.sysroot, 'usr/bin/busybox'),
    },
    layouts,
    machine: {
      processor: cpus()[0]?.model ?? '?',
      cores: cpus().length,
      memoryMiB: Math.round(totalmem() / 1024 ** 2),
      kernel: release(),
      accelerator,
      busyBefore,
    },
    versions: {
      PodVM: `${(await run('git', ['describe', '--always', '--dirty', '--tags'], { cwd: repo })).stdout.trim()} (bundled)`,
      QEMU: qemuVersion,
      "guests' kernel": kernelVersion,
      containerd: containerd.version,
      runc: await firstLine(containerd.runc, '--version'),
      crun: await firstLine('crun', '--version'),
      gVisor: gvisor.version,
    },
  };
}

const factsSchema = v.object({ qemuVersion: v.string(), kernelVersion: v.string() });

async function factsOf(root: string) {
  const { accelerator } = v.parse(
    v.object({ accelerator: v.string() }),
    await json(join(root, 'probe/accelerator.json')),
  );
  return { ...v.parse(factsSchema, await json(join(root, 'assets/current.json'))), accelerator };
}

const json = async (path: string): Promise<unknown> => JSON.parse(await readFile(path, 'utf8'));
const fileOf = (work: string) => join(work, 'prepared.json');

export async function handOn(prepared: Prepared): Promise<string> {
  await writeFile(fileOf(prepared.work), JSON.stringify(prepared));
  return fileOf(prepared.work);
}

export async function takeOver(file: string): Promise<Prepared> {
  return (await json(file)) as Prepared; // SAFE: written by `handOn`
}
