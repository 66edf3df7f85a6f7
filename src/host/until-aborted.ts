/**
 * The work goes on, this caller does not wait for it any more: for what cannot be undone half way, such as the stop of a
 * container. What the work fails with later nobody hears; its state tells.
 */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  work.catch(() => {});
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const leave = () => reject(signal.reason as Error); // SAFE: our calls abort with a PodvmError
  signal.addEventListener('abort', leave, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener('abort', leave);
  }
}
