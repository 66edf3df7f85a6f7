import { randomBytes } from 'node:crypto';
import { PodvmError } from '#base/errors.ts';
import { headerBytes } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { protocolVersions } from '#wire/messages.ts';
import { AgentLink } from './agent-link.ts';
import type { Link, LinkOptions } from './link.ts';

/** How often the hello is repeated: an agent that is not up yet, or a boot that lost bytes, sees a later one. In `ms`. */
const helloIntervalMs = 100;
/**
 * Which hello has padding before it, and how many bytes: the agent may wait for the rest of a frame that an earlier
 * connection left torn, and would take hello after hello for it. First as much as the usual frame, then as the largest.
 */
const padding: ReadonlyMap<number, number> = new Map([
  [5, limits.maxDataBytes + headerBytes],
  [10, limits.maxMessageBytes + headerBytes],
]);
/** Pause before the channel is opened again, in `ms`. */
const reopenMs = 50;

/**
 * Opens the channel and shakes hands; the host drives, so that no "ready" of the guest can be lost. A channel torn
 * before the agent has answered is opened again until the deadline. Errors: `timeout`, `cancelled`, `unsupported` (no
 * protocol version in common), and what `open` says.
 */
export async function connectLink(options: LinkOptions, signal: AbortSignal): Promise<Link> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(options.handshakeTimeoutMs)]);
  while (true) {
    const link = new AgentLink(await options.open(deadline), randomBytes(4).readUInt32LE() || 1, options.callTimeoutMs);
    const outcome = await shakeHands(link, deadline);
    if (outcome === 'welcomed') {
      if (!protocolVersions.some((version) => version === link.welcome.version)) {
        await link[Symbol.asyncDispose]();
        throw new PodvmError(
          'unsupported',
          `Cannot talk to the agent: it speaks none of the versions ${protocolVersions.join(', ')}`,
        );
      }
      link.watchLiveness();
      return link;
    }
    await link[Symbol.asyncDispose]();
    if (signal.aborted)
      throw new PodvmError('cancelled', 'Cannot reach the agent: cancelled', { cause: signal.reason });
    if (deadline.aborted) {
      throw new PodvmError(
        'timeout',
        `Cannot reach the agent: it did not answer within ${options.handshakeTimeoutMs} ms`,
      );
    }
    await new Promise((resolve) => {
      setTimeout(resolve, reopenMs);
    });
  }
}

async function shakeHands(link: AgentLink, deadline: AbortSignal): Promise<'welcomed' | 'torn' | 'late'> {
  link.sendHello(protocolVersions);
  let hellos = 1;
  const timer = setInterval(() => {
    if (link.isBackedUp) return; // a guest that is not up yet reads nothing, and more of it would only pile up
    hellos += 1;
    const bytes = padding.get(hellos);
    if (bytes !== undefined) link.sendPadding(bytes);
    link.sendHello(protocolVersions);
  }, helloIntervalMs);
  const late = Promise.withResolvers<'late'>();
  const onAbort = () => late.resolve('late');
  deadline.addEventListener('abort', onAbort, { once: true });
  if (deadline.aborted) onAbort();
  try {
    const welcomed = link.welcomed.then(
      () => 'welcomed' as const,
      () => 'torn' as const,
    );
    return await Promise.race([welcomed, late.promise]);
  } finally {
    clearInterval(timer);
    deadline.removeEventListener('abort', onAbort);
  }
}
