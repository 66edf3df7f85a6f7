import { copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run, type RunOptions } from '#host/process/run.ts';
import { type GoModule, goEnv, inNewDirectory, sourceOf } from '../conformance/go-module.ts';
import { kubernetes, goModOf } from '../kubelet/build-kubelet.ts';

export const programs = [
  'kubectl',
  'kubelet',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-proxy',
  'kube-scheduler',
] as const;

const coredns: GoModule = {
  path: 'github.com/coredns/coredns',
  version: 'v1.14.7',
  sum: 'h1:UPDkn4QN+xyNfjz3U5ldgoLszDYpMZEJoy3+ze9au4Q=',
};
export const { version: coreDnsVersion } = coredns;

/** Directory with a name for each program of Kubernetes, which all lead to the file `kubernetes`. */
export async function buildKubernetes(cache: string, signal: AbortSignal): Promise<string> {
  const home = join(cache, `kubernetes-${kubernetes.version}`);
  await inNewDirectory(home, async (work) => {
    const options = optionsIn(work, signal);
    await writeFile(join(work, 'go.mod'), await goModOf(await sourceOf(kubernetes, options)));
    const [major = '', minor = ''] = kubernetes.version.slice(1).split('.');
    const words = { gitVersion: kubernetes.version, gitMajor: major, gitMinor: minor };
    const flags = Object.entries(words).map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`);
    await build('kubernetes', flags, options);
    for (const name of programs) await symlink('kubernetes', join(work, name));
  });
  return home;
}

/**
 * Returns the path of the program. Modules that Kubernetes also uses have its versions, so that they are compiled only
 * once.
 */
export async function buildCoreDns(cache: string, signal: AbortSignal): Promise<string> {
  const home = join(cache, `coredns-${coredns.version}`);
  await inNewDirectory(home, async (work) => {
    const options = optionsIn(work, signal);
    const source = await sourceOf(coredns, options);
    const go = /^go .*$/m.exec(await readFile(join(source, 'go.mod'), 'utf8'))?.[0] ?? '';
    const listing = join(work, 'kubernetes');
    await mkdir(listing);
    await writeFile(join(listing, 'go.mod'), await goModOf(await sourceOf(kubernetes, options)));
    const form = '{{if not .Main}}{{.Path}} {{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}{{end}}';
    const { stdout } = await run('go', ['list', '-mod=mod', '-m', '-f', form, 'all'], { ...options, cwd: listing });
    const replaced = stdout
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith(`${kubernetes.path} `))
      .map((line) => `replace ${line.replace(' ', ` => ${line.split(' ')[0] ?? ''} `)}\n`);
    const lines = [`module podvm.invalid/coredns\n\n${go}\n\nrequire ${coredns.path} ${coredns.version}\n\n`];
    await writeFile(join(work, 'go.mod'), [...lines, ...replaced].join(''));
    await build('coredns', [], options);
  });
  return join(home, 'coredns');
}

/** Options of a run in the directory of one `go.mod`. */
export type BuildOptions = RunOptions & { readonly cwd: string };

export const optionsIn = (work: string, signal: AbortSignal): BuildOptions => ({
  signal,
  env: { ...goEnv(), CGO_ENABLED: '0', GOTMPDIR: work }, // /tmp may be cleaned meanwhile
  timeoutMs: 120 * 60_000,
  cwd: work,
});

/** Compiles one of `programs/` in the directory whose `go.mod` is written. */
export async function build(name: string, flags: readonly string[], options: BuildOptions): Promise<void> {
  await copyFile(join(import.meta.dirname, `programs/${name}.go`), join(options.cwd, 'main.go'));
  await compile(name, '.', flags, options);
}

/** Compiles a package. `verb`: that of `go`. */
export async function compile(
  name: string,
  from: string,
  flags: readonly string[],
  options: BuildOptions,
  verb: readonly string[] = ['build'],
): Promise<void> {
  const argv = [...verb, '-mod=mod', '-trimpath', '-buildvcs=false', `-ldflags=${['-s', '-w', ...flags].join(' ')}`];
  await run('go', [...argv, '-o', name, from], options);
}
