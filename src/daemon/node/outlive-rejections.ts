import type { Log } from '#host/log/log.ts';

const maxFrames = 6;

/**
 * Logs unhandled rejections without ending the process: each belongs to one pod or client. An uncaught exception is
 * logged and still ends the process, because the state of the interrupted code is unknown; the next process takes over
 * a kubelet's pods. Active until the result is disposed.
 */
export function outliveRejections(itself: NodeJS.EventEmitter, log: Log): Disposable {
  const onRejection = (error: unknown) => {
    log.error('bug in podvm: unhandled rejection', error, { at: framesOf(error) });
  };
  const onException = (error: unknown) => {
    const fix = 'Start podvm again: it takes over the pods of a kubelet.';
    log.error('podvm ends because of a bug', error, { at: framesOf(error), fix });
  };
  itself.on('unhandledRejection', onRejection);
  itself.on('uncaughtExceptionMonitor', onException); // Node then ends the process
  return {
    [Symbol.dispose]: () => {
      itself.off('unhandledRejection', onRejection);
      itself.off('uncaughtExceptionMonitor', onException);
    },
  };
}

function framesOf(error: unknown): string {
  const lines = error instanceof Error ? (error.stack ?? '').split('\n') : [];
  const frames = lines.filter((line) => /^\s+at /.test(line)).map((line) => line.trim());
  return frames.slice(0, maxFrames).join(', ');
}
