import type { Log } from '#host/log/log.ts';
import type { Container } from '../sandbox.ts';

/** Ends and removes a container whose id no client knows. */
export async function removeUnknown(container: Container, log: Log): Promise<void> {
  const { id } = container.status;
  log.warn('removing a container that no client knows', { container: id });
  const never = new AbortController().signal;
  try {
    await container.stop(0, never);
    await container.remove(never);
  } catch (error) {
    log.error('container not removed', error, { container: id });
  }
}
