import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere } from '#host/files.ts';
import { run } from '#host/run.ts';
import { launcherName, launcherOf } from '#shim/launcher.ts';

/** Where the parts of containerd are on this node; tests give others. */
export interface ContainerdPlaces {
  /** The program, by path or name. */
  readonly containerd: string;
  /** Directory of its configuration. */
  readonly configuration: string;
  /** Directory for the launcher. */
  readonly programs: string;
}

export const containerdPlaces: ContainerdPlaces = {
  containerd: 'containerd',
  configuration: '/etc/containerd',
  programs: '/usr/local/bin',
};

/** First line of what is installed, by which it is known again. */
const mark = 'Made by podvm';

interface Version {
  readonly text: string;
  readonly major: number;
  readonly minor: number;
}

/**
 * Makes podvm a runtime of the node's containerd: writes the launcher, and its part of containerd's configuration where
 * containerd reads such parts. Returns what it did, and what is left to do. Errors: `failedPrecondition` without a
 * containerd, or for another program's file in its place.
 */
export async function installContainerd(
  { shimSocketPath, version }: { readonly shimSocketPath: string; readonly version: string },
  { isDry }: { readonly isDry: boolean },
  places: ContainerdPlaces,
  signal: AbortSignal,
): Promise<string> {
  const containerd = await versionOf(places, signal);
  const launcher = join(places.programs, launcherName);
  const part = partOf(containerd, launcher);
  const readsParts = containerd.major > 2 || (containerd.major === 2 && containerd.minor >= 2);
  const files = [
    { path: launcher, content: launcherOf(shimSocketPath, version), mode: 0o755 },
    ...(readsParts ? [{ path: partPath(places), content: part, mode: 0o644 }] : []),
  ];
  for (const { path } of files) await refuseForeign(path);
  if (!isDry) {
    for (const { path, content, mode } of files) {
      await mkdir(dirname(path), { recursive: true, mode: 0o755 });
      await writeFile(path, content, { mode });
    }
  }
  const verb = isDry ? 'would write' : 'wrote';
  const wrote = files.map(({ path, content }) => `${verb} ${path}\n${isDry ? indented(content) : ''}`);
  const isRead = isDry || !readsParts || (await isConfigured(places, signal));
  return [
    `containerd ${containerd.text}\n`,
    ...wrote,
    ...(readsParts ? [] : [`add to ${join(places.configuration, 'config.toml')}:\n${indented(part)}`]),
    ...(isRead ? [] : [`add to ${join(places.configuration, 'config.toml')}:\n${indented(importsOf(places))}`]),
    'then restart containerd (`systemctl restart containerd`), and make the RuntimeClass of docs/containerd.md\n',
  ].join('');
}

/** Removes what was installed. Returns the paths. */
export async function uninstallContainerd(places: ContainerdPlaces): Promise<readonly string[]> {
  const removed: string[] = [];
  for (const path of [join(places.programs, launcherName), partPath(places)]) {
    if ((await readFileIfThere(path))?.includes(mark) !== true) continue;
    await rm(path);
    removed.push(path);
  }
  return removed;
}

const partPath = ({ configuration }: ContainerdPlaces) => join(configuration, 'conf.d/podvm.toml');
const importsOf = ({ configuration }: ContainerdPlaces) => `imports = ["${configuration}/conf.d/*.toml"]\n`;
const indented = (text: string) => text.replaceAll(/^(?=.)/gm, '    ');

async function versionOf({ containerd }: ContainerdPlaces, signal: AbortSignal): Promise<Version> {
  const fix = 'Install containerd, or see docs/containerd.md for one that is part of another program, such as k3s.';
  const { stdout } = await run(containerd, ['--version'], { signal, okCodes: 'any' }).catch((cause: unknown) => {
    throw new PodvmError('failedPrecondition', 'Cannot install podvm in containerd: this node has none', {
      cause,
      fix,
    });
  });
  const found = /\bv?((\d+)\.(\d+)\.\d+\S*)/.exec(stdout);
  if (found !== null) return { text: found[1] ?? '', major: Number(found[2]), minor: Number(found[3]) };
  throw new PodvmError(
    'failedPrecondition',
    `Cannot install podvm in containerd: it does not tell its version, got ${printable(stdout, 100)}`,
    { fix },
  );
}

async function refuseForeign(path: string): Promise<void> {
  const before = await readFileIfThere(path);
  if (before === undefined || before.includes(mark)) return;
  throw new PodvmError('failedPrecondition', `Cannot write ${path}: it is there, and podvm has not made it`, {
    fix: 'Move it away, and try again.',
  });
}

/** The part of the configuration; the section of CRI has another name since containerd 2. */
function partOf({ major }: Version, launcher: string): string {
  const plugin = major >= 2 ? 'io.containerd.cri.v1.runtime' : 'io.containerd.grpc.v1.cri';
  return `# ${mark}: pods whose RuntimeClass has the handler podvm.
version = ${major >= 2 ? 3 : 2}

[plugins."${plugin}".containerd.runtimes.podvm]
  runtime_type = "io.containerd.podvm.v2"
  runtime_path = "${launcher}"
  pod_annotations = ["podvm.dev/*"]
  container_annotations = ["podvm.dev/*", "io.kubernetes.container.terminationMessagePath"]
  privileged_without_host_devices = true
`;
}

/** Whether containerd reads the part, which a configuration of the node's may prevent. */
async function isConfigured({ containerd, configuration }: ContainerdPlaces, signal: AbortSignal): Promise<boolean> {
  const main = join(configuration, 'config.toml');
  const { stdout } = await run(containerd, ['--config', main, 'config', 'dump'], { signal, okCodes: 'any' });
  return stdout.includes('io.containerd.podvm.v2');
}
