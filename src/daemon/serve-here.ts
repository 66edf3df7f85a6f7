import { PodvmError } from '#base/errors.ts';
import { createLog } from '#host/log.ts';
import { createProgress } from '#setup/progress.ts';
import type { Configuration } from './configuration.ts';
import { openNode } from './node.ts';
import { ensureAssets, templateTask } from './setup-command.ts';

/** How this process is asked to end. */
export interface Ends {
  /** Aborted by the first time. */
  readonly any: AbortSignal;
  /** Called with each signal's name from now on; gives the way to leave. */
  listen(listener: (signal: string) => void): () => void;
}

/**
 * Serves the state directory from this process, set-up included; an end that comes before it serves undoes what there
 * is. Disposing waits for the pods of other clients that joined meanwhile, and says so; a person who does not want to
 * wait ends them. Errors: `denied` without root, and those of set-up and node.
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
  const node = undo.use(await openNode(config, assets, createLog(config.logLevel, write), signal, 'command'));
  // Not the pods' own business, but they would wait for it without a word.
  if (purpose === 'pods') await createProgress(write).during(templateTask, () => node.warmUp(signal));
  const owned = undo.move();
  return {
    [Symbol.asyncDispose]: async () => {
      const text = 'podvm: waiting for pods that other terminals run here (Ctrl-C ends them)\n';
      const timer = setTimeout(() => write(text), 2000);
      const { promise: impatient, resolve } = Promise.withResolvers<void>();
      // A terminal that goes away is no person's word.
      const leave = ends.listen((end) => (end === 'SIGHUP' || end === 'SIGPIPE' ? undefined : resolve()));
      await Promise.race([node.idle(), impatient]);
      leave();
      clearTimeout(timer);
      await owned.disposeAsync();
    },
  };
}

/** Errors: `denied`. */
export function requireRoot(verb: string): void {
  if (process.getuid?.() === 0) return;
  throw new PodvmError('denied', `Cannot ${verb}: podvm must be root, to make network namespaces and to jail the VMM`, {
    fix: 'Run it as root, for instance with sudo.',
  });
}
