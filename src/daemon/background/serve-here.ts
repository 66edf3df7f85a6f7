import { PodvmError } from '#base/errors.ts';
import { createProgress } from '#setup/progress.ts';
import { commandLog } from '../command-log.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { openNode } from '../node/node.ts';
import { ensureAssets, templateTask } from '../setup-command.ts';

/** Requests to end this process. */
export interface Ends {
  /** Aborted by the first request. */
  readonly any: AbortSignal;
  /** Calls `listener` with each later signal. Returns a function that ends the subscription. */
  listen(listener: (signal: string) => void): () => void;
}

/**
 * Serves the state directory from this process, including set-up. A request to end undoes everything if it comes before
 * serving begins. Disposing announces and awaits the pods of other clients that have joined; another signal ends them.
 * Errors: `denied` without root, and those of set-up and node.
 */
export async function serveHere(
  config: Configuration,
  purpose: 'pods' | 'images',
  write: (line: string) => void,
  ends: Ends,
): Promise<AsyncDisposable> {
  requireRoot('run pods');
  const { any: signal } = ends;
  const assets = await ensureAssets(config, write, signal);
  await using undo = new AsyncDisposableStack();
  const node = undo.use(await openNode(config, assets, commandLog(config, write), signal, 'command'));
  // Pods do not require the template here, but they would wait for it without a message.
  if (purpose === 'pods') await createProgress(write).during(templateTask, () => node.warmUp(signal));
  const owned = undo.move();
  return {
    [Symbol.asyncDispose]: async () => {
      const text = 'podvm: waiting for pods of other terminals (Ctrl-C ends them)\n';
      const timer = setTimeout(() => write(text), 2000);
      const { promise: impatient, resolve } = Promise.withResolvers<void>();
      // A closed terminal is not a request to stop waiting.
      const leave = ends.listen((end) => (end === 'SIGHUP' || end === 'SIGPIPE' ? undefined : resolve()));
      await Promise.race([node.idle(), impatient]);
      leave();
      clearTimeout(timer);
      await owned.disposeAsync();
    },
  };
}

/** Checks for root. Errors: `denied`. */
export function requireRoot(verb: string): void {
  if (process.getuid?.() === 0) return;
  throw new PodvmError('denied', `Cannot ${verb}: only root may`, {
    fix: 'Run the command as root, for example with sudo.',
  });
}
