import { PodvmError } from '#base/errors.ts';
import { createLog } from '#host/log.ts';
import { createProgress } from '#setup/progress.ts';
import type { Configuration } from './configuration.ts';
import { openEngine } from './engine.ts';
import { ensureAssets, templateTask } from './setup-command.ts';

/**
 * Serves the state directory from this process, set-up included. Disposing waits for the pods of other clients that
 * joined meanwhile, and says so. Errors: `denied` without root, and those of set-up and engine.
 */
export async function serveHere(
  config: Configuration,
  purpose: 'pods' | 'images',
  write: (line: string) => void,
): Promise<AsyncDisposable> {
  requireRoot();
  const assets = await ensureAssets(config, write);
  const { signal } = new AbortController();
  await using undo = new AsyncDisposableStack();
  const engine = undo.use(await openEngine(config, assets, createLog(config.logLevel, write), signal, 'command'));
  // Not the pods' own business, but they would wait for it without a word.
  if (purpose === 'pods') await createProgress(write).during(templateTask, () => engine.warmUp(signal));
  const owned = undo.move();
  return {
    [Symbol.asyncDispose]: async () => {
      const timer = setTimeout(() => write('podvm: waiting for pods that other terminals run here\n'), 2000);
      await engine.idle();
      clearTimeout(timer);
      await owned.disposeAsync();
    },
  };
}

export function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new PodvmError(
    'denied',
    'Cannot run pods: podvm must be root, to make network namespaces and to jail the VMM',
    {
      fix: 'Run it as root, for instance with sudo.',
    },
  );
}
