import { randomBytes } from 'node:crypto';
import { kindOf, PodvmError } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import { headerBytes } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { protocolVersions } from '#wire/messages.ts';
import { AgentLink } from './agent-link.ts';
import type { Link, LinkOptions } from './link.ts';

/** Interval of hellos, in `ms`: an agent that is not up yet, or a boot that lost bytes, sees a later one. */
const helloIntervalMs = 100;
/**
 * Bytes of padding before a hello, by the hello's number: an agent may wait for the rest of a frame that an earlier
 * connection left torn, and would take hellos for it. First the size of a usual frame, then that of the largest.
 */
const padding: ReadonlyMap<number, number> = new Map([
  [5, limits.maxDataBytes + headerBytes],
  [10, limits.maxMessageBytes + headerBytes],
]);
/** Pause before the channel is opened again, in `ms`. */
const reopenMs = 50;

/**
 * Opens the channel and performs the handshake, driven by the host, so that no "ready" of the guest can be lost. Opens a
 * channel again that tears before the agent has answered, until the deadline. Errors: `timeout` (with what the heartbeat
 * found, if the agent was up), `cancelled`, `unsupported` (no common protocol version), and those of `open`.
 */
export async function connectLink(options: LinkOptions, signal: AbortSignal): Promise<Link> {
  using limit = openDeadline(options.handshakeTimeoutMs, signal);
  const deadline = limit.signal;
  while (true) {
    const link = new AgentLink(await options.open(deadline), randomBytes(4).readUInt32LE() || 1, options.callTimeoutMs);
    if (options.isUp === true) link.watchLiveness(options);
    const outcome = await shakeHands(link, deadline);
    if (outcome === 'welcomed') {
      if (!protocolVersions.some((version) => version === link.welcome.version)) {
        await link[Symbol.asyncDispose]();
        throw new PodvmError(
          'unsupported',
          `Cannot talk to the agent: it supports none of the versions ${protocolVersions.join(', ')}`,
        );
      }
      if (options.isUp !== true) link.watchLiveness(options);
      return link;
    }
    await link[Symbol.asyncDispose]();
    const end = await link.closed;
    if (kindOf(end) === 'timeout') throw new PodvmError('timeout', `Cannot reach the agent: ${end.message}`);
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
    if (link.isBackedUp) return; // a guest that is not up yet reads nothing, so more hellos would pile up
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
