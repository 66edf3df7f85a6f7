import { create } from '@bufbuild/protobuf';
import { messageOf } from '#base/errors.ts';
import type { Answer } from '../rpc/service.ts';
import {
  RuntimeConditionSchema,
  RuntimeService,
  RuntimeStatusSchema,
  type StatusResponse,
  StatusResponseSchema,
} from '../schema/api_pb.ts';
import type { Delegate } from './delegate.ts';

type Status = Answer<typeof StatusResponseSchema>;

/** Our condition for the delegate. Kubelets know only RuntimeReady and NetworkReady, which stay those of podvm. */
const conditionType = 'DelegateReady';

/**
 * Adds the delegate's handlers that are not ours, its readiness, and in verbose answers its own `info`. Only the
 * features that both have are reported, since a kubelet applies them to the node.
 */
export async function mergeStatus(
  own: Status,
  delegate: Delegate,
  verbose: boolean,
  signal: AbortSignal,
): Promise<StatusResponse> {
  const merged = create(StatusResponseSchema, own);
  const theirs = await statusOf(delegate, verbose, signal);
  merged.status ??= create(RuntimeStatusSchema);
  merged.status.conditions.push(create(RuntimeConditionSchema, conditionOf(theirs)));
  if (typeof theirs === 'string') return merged;
  const names = new Set(merged.runtimeHandlers.map(({ name }) => name));
  merged.runtimeHandlers.push(...theirs.runtimeHandlers.filter(({ name }) => !names.has(name)));
  if (merged.features !== undefined) {
    merged.features.supplementalGroupsPolicy &&= theirs.features?.supplementalGroupsPolicy === true;
  }
  if (verbose) merged.info['delegate'] = JSON.stringify(theirs.info);
  return merged;
}

/** Returns the delegate's status, or the reason why there is none. */
async function statusOf(delegate: Delegate, verbose: boolean, signal: AbortSignal): Promise<StatusResponse | string> {
  try {
    return await delegate.askPromptly(RuntimeService.method.status, { verbose }, signal);
  } catch (error) {
    signal.throwIfAborted();
    return messageOf(error);
  }
}

function conditionOf(theirs: StatusResponse | string) {
  const type = conditionType;
  if (typeof theirs === 'string') return { type, status: false, reason: 'DelegateAway', message: theirs };
  const wrong = theirs.status?.conditions.filter(({ status }) => !status) ?? [];
  const isReady = wrong.every((condition) => condition.type !== 'RuntimeReady');
  const message = wrong.map((condition) => `${condition.type} is false: ${condition.message}`).join('; ');
  return { type, status: isReady, reason: isReady ? '' : 'DelegateNotReady', message };
}
