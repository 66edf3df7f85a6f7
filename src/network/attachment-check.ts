import { messageOf } from '#base/errors.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import { checkChain, whyNoCheck, type ChainCall } from './cni/cni-chain.ts';
import type { Conflist } from './cni/cni-schema.ts';
import type { DroppedFrames } from './dropped-frames.ts';
import type { AttachmentCheck } from './network.ts';

/**
 * Runs CHECK, except for `unreliable` plugins, which are listed with the reason. Undefined when no chain has connected
 * the attachment.
 */
export async function checkAttachment(
  { sandboxId, podName, podNamespace, conflist, added, guest }: AttachmentRecord,
  callOf: (conflist: Conflist) => ChainCall,
  unreliable: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<AttachmentCheck | undefined> {
  if (conflist === undefined || added === undefined || guest === undefined) return undefined;
  const whose = { sandboxId, podName, podNamespace, network: conflist.name };
  const why = whyNoCheck(conflist);
  if (why !== undefined) return { ...whose, verdict: 'unasked', detail: why };
  const plugins = conflist.plugins.filter(({ type }) => !unreliable.has(type));
  const unasked = conflist.plugins.filter(({ type }) => unreliable.has(type));
  try {
    await checkChain(callOf({ ...conflist, plugins }), added, signal);
  } catch (error) {
    if (signal.aborted) return { ...whose, verdict: 'unasked', detail: 'not checked: no time was left' };
    return { ...whose, verdict: 'wrong', detail: messageOf(error) };
  }
  const detail = [
    `found well by ${plugins.map(({ type }) => type).join(', ')}`,
    ...unasked.map(({ type }) => `${type} was not called: ${unreliable.get(type)}`),
  ].join('; ');
  return { ...whose, verdict: 'well', detail };
}

/** The count of frames that the filter of the built-in network dropped, as part of a check. */
export async function framesOf(
  { sandboxId, isFiltered }: AttachmentRecord,
  frames: DroppedFrames,
): Promise<Pick<AttachmentCheck, 'droppedFrames'>> {
  if (isFiltered !== true) return { droppedFrames: 'unfiltered' };
  const count = await frames.of(sandboxId).catch(() => undefined); // gone by now
  return count === undefined ? {} : { droppedFrames: count };
}
