import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { run } from '#host/process/run.ts';
import { launcherName, launcherOf } from '#shim/launcher.ts';
import {
  hasRuntime,
  hasSection,
  refuseUnread,
  removeRuntime,
  replaceConfig,
  sectionOf,
  withRuntime,
} from './containerd-config.ts';
import { isOwn, mark, refuseForeign, wouldWrite, writeOwn } from './own-files.ts';
import { tryContainerdPod } from './try-containerd-pod.ts';

/** Paths of containerd's parts on this node; tests use others. */
export interface ContainerdPlaces {
  /** Path or name of the program. */
  readonly containerd: string;
  /** Path or name of the program that restarts containerd as a service. */
  readonly systemctl: string;
  /** Socket of containerd, which serves CRI. */
  readonly socket: string;
  /** Directory of containerd's configuration. */
  readonly configuration: string;
  /** Directory for the launcher. */
  readonly programs: string;
}

export const containerdPlaces: ContainerdPlaces = {
  containerd: 'containerd',
  systemctl: 'systemctl',
  socket: '/run/containerd/containerd.sock',
  configuration: '/etc/containerd',
  programs: '/usr/local/bin',
};

interface Version {
  readonly text: string;
  readonly major: number;
  readonly minor: number;
}

/** Options of an installation. */
export interface InstallChoices {
  /** Reports the steps without taking them. */
  readonly isDry: boolean;
  /** Also restarts containerd, with systemd, and runs a pod there. */
  readonly restarts: boolean;
}

/**
 * Makes podvm a runtime of the node's containerd: writes the launcher, and a section of containerd's configuration, in
 * a file of its own if containerd reads such files, else in the main file. Returns the steps taken and those left to
 * do. Errors: `failedPrecondition` without a containerd, for another program's file in its place, or for a
 * configuration that containerd refuses with the section, when the configuration is unchanged, and those of
 * `tryContainerdPod`.
 */
export async function installContainerd(
  { shimSocketPath, version }: { readonly shimSocketPath: string; readonly version: string },
  { isDry, restarts }: InstallChoices,
  places: ContainerdPlaces,
  signal: AbortSignal,
): Promise<string> {
  const containerd = await versionOf(places, signal);
  const launcher = { path: join(places.programs, launcherName), content: launcherOf(shimSocketPath, version) };
  for (const path of [launcher.path, partPath(places)]) await refuseForeign(path);
  const said = [`containerd ${containerd.text}\n`];
  if (isDry) {
    said.push(await tellConfiguration(containerd, launcher.path, places));
    said.push(wouldWrite(launcher.path, launcher.content));
  } else {
    said.push(await configure(containerd, launcher.path, places, signal));
    await writeOwn(launcher.path, launcher.content, 0o755);
    said.push(`wrote ${launcher.path}\n`);
  }
  if (restarts && !isDry) {
    await run(places.systemctl, ['restart', 'containerd'], { signal, timeoutMs: restartTimeoutMs });
    await tryContainerdPod(places.socket, signal);
    said.push('restarted containerd, and ran a pod of podvm there; make the RuntimeClass of docs/containerd.md\n');
  } else
    said.push(
      'then restart containerd (`systemctl restart containerd`), and make the RuntimeClass of docs/containerd.md\n',
    );
  return said.join('');
}

/** Removes the installed files and podvm's section. Returns the paths. */
export async function uninstallContainerd(places: ContainerdPlaces): Promise<readonly string[]> {
  const removed: string[] = [];
  for (const path of [join(places.programs, launcherName), partPath(places)]) {
    if (!(await isOwn(path))) continue;
    await rm(path);
    removed.push(path);
  }
  return [...removed, ...(await removeRuntime(mainPath(places)))];
}

/** Whether its configuration has a section of podvm. */
export async function isInContainerd(places: ContainerdPlaces): Promise<boolean> {
  return (await isOwn(partPath(places))) || (await hasSection(mainPath(places)));
}

/** Writes the section to the file that this containerd reads. Returns the changes. */
async function configure(
  version: Version,
  launcher: string,
  places: ContainerdPlaces,
  signal: AbortSignal,
): Promise<string> {
  const [main, part] = [mainPath(places), partPath(places)];
  if (readsParts(version)) {
    await writeOwn(part, partOf(launcher), 0o644);
    if (await hasRuntime(places.containerd, main, signal).catch(() => false)) return `wrote ${part}\n`;
    await rm(part); // the main file has imports of its own
  }
  const text = await withRuntime(main, launcher, newestOf(version));
  await replaceConfig(main, text, (tried) => refuseUnread(main, tried, places.containerd, signal));
  return `added the runtime podvm to ${main}\n`;
}

async function tellConfiguration(version: Version, launcher: string, places: ContainerdPlaces): Promise<string> {
  if (readsParts(version)) return wouldWrite(partPath(places), partOf(launcher));
  const main = mainPath(places);
  return wouldWrite(main, await withRuntime(main, launcher, newestOf(version)));
}

const restartTimeoutMs = 120_000;
/** The configuration that containerd reads first. */
export const mainPath = ({ configuration }: ContainerdPlaces) => join(configuration, 'config.toml');
const newestOf = ({ major }: Version) => (major >= 2 ? 3 : 2);
/** Since 2.2, containerd without a configuration, or with its default one, reads `conf.d`. */
const readsParts = ({ major, minor }: Version) => major > 2 || (major === 2 && minor >= 2);
const partOf = (launcher: string) =>
  `# ${mark}: pods whose RuntimeClass has the handler podvm.\nversion = 3\n\n${sectionOf(3, launcher)}`;
const partPath = ({ configuration }: ContainerdPlaces) => join(configuration, 'conf.d/podvm.toml');

async function versionOf({ containerd }: ContainerdPlaces, signal: AbortSignal): Promise<Version> {
  const fix = 'Install containerd, or use `podvm install k3s` for the one that is part of k3s.';
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
    `Cannot install podvm in containerd: it does not report its version, got ${printable(stdout, 100)}`,
    { fix },
  );
}
