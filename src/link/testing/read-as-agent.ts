import type { Method } from '#wire/messages.ts';
import { readCall } from '#wire/params.ts';
import { encodeCall } from '../encode-call.ts';

/**
 * Sends and reads a call as link and agent do, for a fake of the agent in tests of the layers above: what they ask of it
 * has to be what the real one takes. Errors: those of both.
 */
export function readAsAgent(method: Method, params: unknown): void {
  const sent = JSON.parse(encodeCall(1, method, params).toString()) as { params: unknown }; // SAFE: just encoded
  readCall(method, sent.params);
}
