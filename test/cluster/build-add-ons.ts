import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { buildHelm } from '../../tools/chart/build-helm.ts';
import { buildProgram, type GoModule, inNewDirectory, sourceOf } from '../conformance/go-module.ts';
import { DebianFiles } from '../conformance/debian-files.ts';
import { build, compile, optionsIn } from './build-kubernetes.ts';

interface AddOn {
  readonly module: GoModule;
  /** Package of the program. */
  readonly from: string;
}

const addOns = {
  // Its policies need no more of a kernel than `iptables` and `ipset`.
  'kube-router': {
    module: {
      path: 'github.com/cloudnativelabs/kube-router/v2',
      version: 'v2.1.0',
      sum: 'h1:xWsptKtmZ44L+NjwFKoFAFlVdxCz8fka9A/eYJe95Ok=',
    },
    from: 'github.com/cloudnativelabs/kube-router/v2/cmd/kube-router',
  },
  'csi-resizer': {
    module: {
      path: 'github.com/kubernetes-csi/external-resizer/v2',
      version: 'v2.3.0',
      sum: 'h1:dsdHhB3s4BJUkO7Jaemd6hw3YEms1ZlMF/bksbDE+bw=',
    },
    from: 'github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer',
  },
} as const satisfies Readonly<Record<string, AddOn>>;

/** Its descriptions of the API need the versions of Kubernetes' modules for which they were made. */
const metricsServer: GoModule = {
  path: 'sigs.k8s.io/metrics-server',
  version: 'v0.9.0',
  sum: 'h1:nlqqZ2H0Xfko8eJC/1qaNVVT17hu4rxndkOi22KTZ4w=',
};

/** What clusters have beside Kubernetes itself: paths of programs. */
export interface AddOns {
  readonly csiDriver: string;
  readonly csiResizer: string;
  readonly helm: string;
  readonly kubeRouter: string;
  readonly metricsServer: string;
  /** Files of the programs that they run: `ipset` and `mkfs.btrfs`. */
  readonly debian: DebianFiles;
}

/** `kubernetes`: directory of the built Kubernetes. */
export async function buildAddOns(cache: string, kubernetes: string, signal: AbortSignal): Promise<AddOns> {
  const beside = async (name: keyof typeof addOns) => {
    const home = join(cache, `${name}-${addOns[name].module.version}`);
    await inNewDirectory(home, (work) => buildBeside(name, addOns[name], kubernetes, work, signal));
    return join(home, name);
  };
  return {
    csiDriver: join(await buildDriver(cache, kubernetes, signal), 'csi-driver'),
    csiResizer: await beside('csi-resizer'),
    helm: await buildHelm(cache, signal),
    kubeRouter: await beside('kube-router'),
    metricsServer: await buildProgram(cache, 'metrics-server', metricsServer, signal),
    debian: await DebianFiles.unpack(cache, signal, ['btrfs-progs', 'ipset']),
  };
}

/**
 * Compiles a program with the versions that Kubernetes has of all modules: most packages are compiled already. Versions of
 * other modules are those of the program's own `go.mod`, which is otherwise replaced, since the highest version that any
 * `go.mod` requires would count.
 */
async function buildBeside(
  name: string,
  { module, from }: AddOn,
  kubernetes: string,
  work: string,
  signal: AbortSignal,
): Promise<void> {
  const options = optionsIn(work, signal);
  const copy = join(work, 'source');
  const source = await sourceOf(module, options);
  await run('cp', ['-r', '--no-preserve=mode', source, copy], { signal });
  const theirs = await readFile(join(source, 'go.mod'), 'utf8');
  const ours = await readFile(join(kubernetes, 'go.mod'), 'utf8');
  await writeFile(join(copy, 'go.mod'), `module ${module.path}\n\n${/^go .*$/m.exec(ours)?.[0] ?? ''}\n`);
  const known = new Set([...modulesOf(ours)].map(([path]) => path));
  const others = modulesOf(theirs).filter(([path]) => !known.has(path));
  const required = [[module.path, module.version] as const, ...others].map((words) => `require ${words.join(' ')}\n`);
  const replaced = `replace ${module.path} => ./source\n`;
  await writeFile(join(work, 'go.mod'), [ours, '\n', ...required, replaced].join(''));
  await copyFile(join(kubernetes, 'go.sum'), join(work, 'go.sum'));
  await mkdir(join(work, 'tools'));
  await writeFile(join(work, 'tools/tools.go'), `//go:build tools\n\npackage tools\n\nimport _ "${from}"\n`);
  await compile(name, from, [], options);
}

/** Modules with their versions, as a `go.mod` requires or replaces them. */
function modulesOf(text: string): readonly (readonly [path: string, version: string])[] {
  const lines = [...text.matchAll(/^(?:require |replace |\t)(\S+) (?:=> \S+ )?(v\S+)/gm)];
  return lines.map(([, path = '', version = '']) => [path, version]);
}

/** The driver is ours, made of modules that Kubernetes has. */
async function buildDriver(cache: string, kubernetes: string, signal: AbortSignal): Promise<string> {
  const own = await readFile(join(import.meta.dirname, 'programs/csi-driver.go'));
  const home = join(cache, `csi-driver-${createHash('sha256').update(own).digest('hex').slice(0, 16)}`);
  await inNewDirectory(home, async (work) => {
    for (const name of ['go.mod', 'go.sum']) await copyFile(join(kubernetes, name), join(work, name));
    await build('csi-driver', [], optionsIn(work, signal));
  });
  return home;
}
