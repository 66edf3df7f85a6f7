import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Assets } from '#host/assets.ts';
import { readFileIfThere, writeFileAtomic } from '#host/files.ts';
import { createLog } from '#host/log.ts';
import { createProgress } from '#setup/progress.ts';
import { type SetupOptions, ensureSetup, upgradeSetup } from '#setup/setup.ts';
import type { Configuration } from './configuration.ts';
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

/** Returns the assets, after making them if they are missing. */
export async function ensureAssets(config: Configuration, write: Write, signal: AbortSignal): Promise<Assets> {
  await openStateDirectory(config.root);
  return await ensureSetup(optionsOf(config, write, signal));
}

/** Runs `podvm setup` and returns its output. */
export async function setupCommand(
  config: Configuration,
  upgrade: boolean,
  write: Write,
  signal: AbortSignal,
): Promise<string> {
  if (!upgrade) {
    const assets = await ensureAssets(config, write, signal);
    await ensureTemplate(config, assets, write, signal);
    return `ready: QEMU ${assets.qemuVersion}, guest kernel ${assets.kernelVersion}, crun ${assets.crunVersion}\n`;
  }
  await openStateDirectory(config.root);
  const { assets, changes } = await upgradeSetup(optionsOf(config, write, signal));
  await ensureTemplate(config, assets, write, signal);
  if (changes.length === 0) return 'everything is up to date\n';
  return changes.map(({ package: name, from, to }) => `${name}: ${from ?? 'none'} -> ${to ?? 'none'}\n`).join('');
}

/** Makes the template unless one of these assets exists, or another process serves pods and makes its own. */
async function ensureTemplate(config: Configuration, assets: Assets, write: Write, signal: AbortSignal): Promise<void> {
  const stamp = join(config.root, 'templates-of');
  if (config.template !== 'on') return; // templates are made per pod, or not at all
  const isMade = (await readFileIfThere(stamp)) === assets.key && (await hasEntries(join(config.root, 'templates')));
  if (isMade || process.getuid?.() !== 0) return;
  const { isServed } = await import('#host/is-served.ts');
  if (await isServed(config.socketPath)) return;
  const { openNode } = await import('./node.ts');
  await createProgress(write).during(templateTask, async () => {
    await using node = await openNode(config, assets, createLog(config.logLevel, write), signal, 'command');
    await node.warmUp(signal);
  });
  await writeFileAtomic(stamp, assets.key, 0o644);
}

const hasEntries = async (path: string): Promise<boolean> => (await readdir(path).catch(() => [])).length > 0;
