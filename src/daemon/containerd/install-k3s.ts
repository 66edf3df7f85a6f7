import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { launcherName, launcherOf } from '#shim/launcher.ts';
import {
  hasSection,
  removeRuntime,
  replaceConfig,
  versionOf,
  withoutSection,
  withSection,
} from './containerd-config.ts';
import type { InstallChoices } from './install-containerd.ts';
import { refuseForeign, wouldWrite, writeOwn } from './own-files.ts';
import { tryContainerdPod } from './try-containerd-pod.ts';

/** Paths of the parts of k3s on this node; tests use others. */
export interface K3sPlaces {
  /** Path or name of the program. */
  readonly k3s: string;
  /** Path or name of the program that restarts k3s as a service. */
  readonly systemctl: string;
  /** Socket of its containerd, which serves CRI. */
  readonly socket: string;
  /** Directory of its containerd's configuration, and of the templates that it is made from. */
  readonly configuration: string;
  /** Directory for the launcher. */
  readonly programs: string;
}

export const k3sPlaces: K3sPlaces = {
  k3s: 'k3s',
  systemctl: 'systemctl',
  socket: '/run/k3s/containerd/containerd.sock',
  configuration: '/var/lib/rancher/k3s/agent/etc/containerd',
  programs: '/usr/local/bin',
};

/** Names of the templates by the version of the configuration that k3s makes of them. */
const templates = { 2: 'config.toml.tmpl', 3: 'config-v3.toml.tmpl' } as const;
/** The template of k3s itself, in Go's language of templates. */
const ownTemplate = '{{ template "base" . }}\n';
/** The first one whose templates can include that of k3s itself. */
const oldest = { major: 1, minor: 28, patch: 1 };
const restartTimeoutMs = 300_000;

/**
 * Makes podvm a runtime of the containerd that is part of k3s: writes the launcher, and a section of the template from
 * which k3s makes the configuration at each start. Returns the steps taken and those left to do. Errors:
 * `failedPrecondition` without a k3s that has started once, for an older one, for another program's file in the
 * launcher's place, for a runtime podvm of another origin, and those of `tryContainerdPod`.
 */
export async function installK3s(
  { shimSocketPath, version }: { readonly shimSocketPath: string; readonly version: string },
  { isDry, restarts }: InstallChoices,
  places: K3sPlaces,
  signal: AbortSignal,
): Promise<string> {
  const said = [`k3s ${await readK3sVersion(places, signal)}\n`];
  const launcher = { path: join(places.programs, launcherName), content: launcherOf(shimSocketPath, version) };
  await refuseForeign(launcher.path);
  const template = await makeTemplate(launcher.path, places);
  if (isDry) {
    said.push(wouldWrite(template.path, template.content), wouldWrite(launcher.path, launcher.content));
  } else {
    await replaceConfig(template.path, template.content);
    await writeOwn(launcher.path, launcher.content, 0o755);
    said.push(`added the runtime podvm to ${template.path}\nwrote ${launcher.path}\n`);
  }
  const service = await serviceOf(places, signal);
  if (!restarts || isDry) {
    const restart = `\`systemctl restart ${service}\``;
    return [...said, `then restart k3s (${restart}), and make the RuntimeClass of docs/containerd.md\n`].join('');
  }
  await run(places.systemctl, ['restart', service], { signal, timeoutMs: restartTimeoutMs });
  await tryContainerdPod(places.socket, signal);
  said.push('restarted k3s, and ran a pod of podvm there; make the RuntimeClass of docs/containerd.md\n');
  return said.join('');
}

/** Removes podvm's sections. Returns the paths. The launcher is that of `uninstallContainerd`. */
export async function uninstallK3s(places: K3sPlaces): Promise<readonly string[]> {
  const removed = await Promise.all(templatesOf(places).map((path) => removeRuntime(path)));
  return removed.flat();
}

/** Whether podvm was installed there. */
export async function isInK3s(places: K3sPlaces): Promise<boolean> {
  const found = await Promise.all(templatesOf(places).map((path) => hasSection(path)));
  return found.includes(true);
}

/** The configuration that k3s has made. */
export const k3sConfig = ({ configuration }: K3sPlaces): string => join(configuration, 'config.toml');

const templatesOf = ({ configuration }: K3sPlaces) => Object.values(templates).map((name) => join(configuration, name));

/** The template in use, or one like that of k3s itself, with podvm's section. */
async function makeTemplate(launcher: string, places: K3sPlaces): Promise<{ path: string; content: string }> {
  const made = k3sConfig(places);
  const text = await readFileIfThere(made);
  if (text === undefined) {
    throw new PodvmError('failedPrecondition', `Cannot install podvm in k3s: ${made} is missing`, {
      fix: 'Start k3s on this node once: it makes that file.',
    });
  }
  const configuration = withoutSection(text);
  const version = versionOf(made, configuration);
  const path = join(places.configuration, templates[version]);
  if (/\.runtimes\.["']?podvm["']?\]/.test(configuration)) {
    throw new PodvmError('failedPrecondition', `Cannot add podvm to ${path}: k3s has a runtime podvm already`, {
      fix: 'Remove that section from the template, restart k3s, and try again.',
    });
  }
  return { path, content: withSection((await readFileIfThere(path)) ?? ownTemplate, version, launcher) };
}

/** An agent of k3s is another service than a server. */
async function serviceOf({ systemctl }: K3sPlaces, signal: AbortSignal): Promise<string> {
  const argv = ['is-active', '--quiet', 'k3s-agent'];
  const { code } = await run(systemctl, argv, { signal, okCodes: 'any' }).catch(() => ({ code: 1 }));
  return code === 0 ? 'k3s-agent' : 'k3s';
}

async function readK3sVersion({ k3s }: K3sPlaces, signal: AbortSignal): Promise<string> {
  const cannot = (why: string, fix: string, cause?: unknown) =>
    new PodvmError('failedPrecondition', `Cannot install podvm in k3s: ${why}`, { cause, fix });
  const { stdout } = await run(k3s, ['--version'], { signal, okCodes: 'any' }).catch((cause: unknown) => {
    throw cannot('this node has none', 'Install k3s, or use `podvm install containerd`.', cause);
  });
  const [, text, ...numbers] = /\bv?((\d+)\.(\d+)\.(\d+)\S*)/.exec(stdout) ?? [];
  if (text === undefined) {
    throw cannot(`it does not report its version, got ${printable(stdout, 100)}`, 'Check `k3s --version`.');
  }
  const [major = 0, minor = 0, patch = 0] = numbers.map(Number);
  const isOld = [major - oldest.major, minor - oldest.minor, patch - oldest.patch].find((by) => by !== 0) ?? 0;
  if (isOld >= 0) return text;
  throw cannot(`${text} is older than ${Object.values(oldest).join('.')}`, 'Update k3s.');
}
