import { chmod, copyFile, mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parse } from 'smol-toml';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';

/** First and last line of the section that podvm adds to containerd's configuration. */
const begin = '# Made by podvm: begin. `podvm uninstall` removes these lines.\n';
const end = '# Made by podvm: end\n';
/** Ending of the file name under which containerd's original configuration is kept. */
const copyEnding = '.before-podvm';

/** Name of podvm as a runtime in containerd's configuration. */
export const runtimeType = 'io.containerd.podvm.v2';

/** The section that makes podvm a runtime. Its name changed with version 3 of the configuration. */
export const sectionOf = (version: number, launcher: string): string => `\
[plugins."${version >= 3 ? 'io.containerd.cri.v1.runtime' : 'io.containerd.grpc.v1.cri'}".containerd.runtimes.podvm]
  runtime_type = "${runtimeType}"
  runtime_path = "${launcher}"
  pod_annotations = ["podvm.dev/*"]
  container_annotations = ["podvm.dev/*", "io.kubernetes.container.terminationMessagePath"]
  privileged_without_host_devices = true
`;

/** Whether containerd has the runtime podvm with this configuration. Errors: those of containerd for an invalid one. */
export async function hasRuntime(containerd: string, config: string, signal: AbortSignal): Promise<boolean> {
  const { stdout } = await run(containerd, ['--config', config, 'config', 'dump'], { signal });
  return stdout.includes(runtimeType);
}

/**
 * Returns the configuration with podvm's section, in the version of the configuration; `newest` is the version for a
 * file that does not exist. Errors: those of `versionOf`.
 */
export async function withRuntime(config: string, launcher: string, newest: number): Promise<string> {
  const before = withoutSection((await readFileIfThere(config)) ?? `version = ${newest}\n`);
  return withSection(before, versionOf(config, before), launcher);
}

/** The text with podvm's section for one version of the configuration in place of an older section. */
export function withSection(text: string, version: number, launcher: string): string {
  const before = withoutSection(text);
  const gap = before === '' || before.endsWith('\n') ? '' : '\n';
  return `${before}${gap}${begin}${sectionOf(version, launcher)}${end}`;
}

/** Whether a file is there and has podvm's section. */
export async function hasSection(config: string): Promise<boolean> {
  return (await readFileIfThere(config))?.includes(begin) === true;
}

/**
 * Replaces a configuration or its template, once `accepts` has returned for a file beside it with the new text. Keeps a
 * copy of the file from before podvm's first change. Errors: those of `accepts`; nothing has changed then.
 */
export async function replaceConfig(
  config: string,
  text: string,
  accepts: (tried: string) => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const before = await readFileIfThere(config);
  if (before === text) return;
  await mkdir(dirname(config), { recursive: true, mode: 0o755 });
  const tried = `${config}.podvm-new`;
  try {
    await writeFile(tried, text);
    await chmod(tried, before === undefined ? 0o644 : (await stat(config)).mode & 0o777);
    await accepts(tried);
    if (before !== undefined && !before.includes(begin)) await copyFile(config, `${config}${copyEnding}`);
    await rename(tried, config);
  } finally {
    await rm(tried, { force: true });
  }
}

/** Removes podvm's section, the copy, and a file with no other content. Returns the changed paths. */
export async function removeRuntime(config: string): Promise<readonly string[]> {
  const before = await readFileIfThere(config);
  if (before?.includes(begin) !== true) return [];
  const after = withoutSection(before);
  if (/^(?:version = \d|\{\{ template "base" \. \}\})\n$/.test(after)) await rm(config);
  else await writeFile(config, after);
  await rm(`${config}${copyEnding}`, { force: true });
  return [config];
}

/** The text as it was before podvm's section was added. */
export function withoutSection(text: string): string {
  const from = text.indexOf(begin);
  const to = text.indexOf(end, from);
  return from === -1 || to === -1 ? text : text.slice(0, from) + text.slice(to + end.length);
}

/**
 * The version of a configuration. Errors: `failedPrecondition` for a text that is not TOML, or whose version has no
 * section of this kind.
 */
export function versionOf(config: string, text: string): 2 | 3 {
  const version = parsedVersion(config, text);
  if (version === 2 || version === 3) return version;
  throw new PodvmError('failedPrecondition', `Cannot add podvm to ${config}: it has version ${version}, not 2 or 3`, {
    fix: 'Migrate it (`containerd config migrate`), and try again.',
  });
}

function parsedVersion(config: string, text: string): number {
  try {
    const { version = 1 } = parse(text);
    return Number(version);
  } catch (cause) {
    const fix = 'Correct the file: containerd cannot read it either.';
    throw new PodvmError('failedPrecondition', `Cannot add podvm to ${config}: ${printable(messageOf(cause), 300)}`, {
      cause,
      fix,
    });
  }
}

/** Errors: `failedPrecondition` if containerd does not accept the file `tried` in place of its configuration. */
export async function refuseUnread(
  config: string,
  tried: string,
  containerd: string,
  signal: AbortSignal,
): Promise<void> {
  const fix = `Add the section of \`podvm install containerd --dry-run\` to ${config} by hand.`;
  const has = await hasRuntime(containerd, tried, signal).catch((cause: unknown) => {
    signal.throwIfAborted();
    const why = `containerd refuses it: ${printable(messageOf(cause), 500)}`;
    throw new PodvmError('failedPrecondition', `Cannot add podvm to ${config}: ${why}`, { cause, fix });
  });
  if (has) return;
  throw new PodvmError('failedPrecondition', `Cannot add podvm to ${config}: containerd does not accept the section`, {
    fix,
  });
}
