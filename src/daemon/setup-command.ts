import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Assets } from '#host/assets.ts';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import { makeBundle, setUpFrom } from '#setup/bundle/bundle.ts';
import { isInside } from '#host/inside-namespaces.ts';
import type { GuestKernel } from '#setup/guest-kernel.ts';
import { createProgress } from '#setup/progress.ts';
import { type SetupOptions, ensureSetup, upgradeSetup } from '#setup/setup.ts';
import { commandLog } from './command-log.ts';
import type { Configuration } from './configuration/configuration.ts';
import { machineAssets } from './rootless/machine-assets.ts';
import { openStateDirectory } from './state-directory.ts';

type Write = (line: string) => void;

/** Progress text that completes "podvm is ...". */
export const templateTask = 'making the template of its machines';

const optionsOf = ({ root, repo, mirror }: Configuration, write: Write, signal: AbortSignal): SetupOptions => ({
  root,
  repo,
  ...(mirror === undefined ? {} : { mirror }),
  progress: createProgress(write),
  warn: (text) => write(`podvm: ${text}\n`),
  signal,
});

/** Returns the assets, after making them if they are missing; those of the machine for an ordinary user, who makes none. */
export async function ensureAssets(config: Configuration, write: Write, signal: AbortSignal): Promise<Assets> {
  if (process.getuid?.() !== 0) return await machineAssets(config.repo);
  await openStateDirectory(config.root);
  if (isInside) return await machineAssets(config.repo);
  return await ensureSetup(optionsOf(config, write, signal));
}

/** Parameters of each of these commands. */
export interface SetupSetting {
  readonly config: Configuration;
  readonly write: Write;
  readonly signal: AbortSignal;
}

/** Runs `podvm setup` and returns its output. `kernel`: the choice of it, for root only. */
export async function setupCommand(
  { config, write, signal }: SetupSetting,
  { upgrade, kernel }: { readonly upgrade: boolean; readonly kernel?: GuestKernel },
): Promise<string> {
  if (!upgrade && kernel === undefined)
    return await readyWith(config, await ensureAssets(config, write, signal), write, signal);
  await openStateDirectory(config.root);
  const options = { ...optionsOf(config, write, signal), ...(kernel === undefined ? {} : { kernel }) };
  if (!upgrade) return await readyWith(config, await ensureSetup(options), write, signal);
  const { assets, changes } = await upgradeSetup(options);
  await ensureTemplate(config, assets, write, signal);
  if (changes.length === 0) return 'everything is up to date\n';
  return changes.map(({ package: name, from, to }) => `${name}: ${from ?? 'none'} -> ${to ?? 'none'}\n`).join('');
}

/** Runs `podvm setup --bundle`. Makes missing parts first. */
export async function bundleCommand(
  { config, write, signal }: SetupSetting,
  file: string,
  made: { readonly version: string; readonly epoch: number },
): Promise<string> {
  await ensureAssets(config, write, signal);
  await makeBundle({ ...optionsOf(config, write, signal), ...made }, file);
  return `${file}\n`;
}

/** Runs `podvm setup --from`. */
export async function setupFromCommand(
  { config, write, signal }: SetupSetting,
  file: string,
  version: string,
): Promise<string> {
  await openStateDirectory(config.root);
  const assets = await setUpFrom({ ...optionsOf(config, write, signal), version }, file);
  return await readyWith(config, assets, write, signal);
}

async function readyWith(config: Configuration, assets: Assets, write: Write, signal: AbortSignal): Promise<string> {
  await ensureTemplate(config, assets, write, signal);
  return `ready: QEMU ${assets.qemuVersion}, guest kernel ${assets.kernelVersion}, crun ${assets.crunVersion}\n`;
}

/** Makes the template unless one of these assets exists, or another process serves pods and makes its own. */
async function ensureTemplate(config: Configuration, assets: Assets, write: Write, signal: AbortSignal): Promise<void> {
  const stamp = join(config.root, 'templates-of');
  if (config.template !== 'on') return; // templates are made per pod, or not at all
  const isMade = (await readFileIfThere(stamp)) === assets.key && (await hasEntries(join(config.root, 'templates')));
  if (isMade || process.getuid?.() !== 0) return;
  const { isServed } = await import('#host/socket/is-served.ts');
  if (await isServed(config.socketPath)) return;
  const { openNode } = await import('./node/node.ts');
  await createProgress(write).during(templateTask, async () => {
    await using node = await openNode(config, assets, commandLog(config, write), signal, 'command');
    await node.warmUp(signal);
  });
  await writeFileAtomic(stamp, assets.key, 0o644);
}

const hasEntries = async (path: string): Promise<boolean> => (await readdir(path).catch(() => [])).length > 0;
