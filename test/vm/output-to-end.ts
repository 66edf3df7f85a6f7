import type { Container } from '#sandbox/sandbox.ts';

/** Starts a container, removes it once it has ended, and returns its output. Each step has a deadline of its own. */
export async function outputToEnd(container: Container, deadline: () => AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
  await container.start(deadline());
  await container.exited;
  await follower.ended;
  await container.remove(deadline());
  return Buffer.concat(chunks).toString();
}
