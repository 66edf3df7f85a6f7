/**
 * Stops waiting at an abort for work that cannot be interrupted, such as the stop of a container. The work continues;
 * its later errors are discarded, and its state shows the result.
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
