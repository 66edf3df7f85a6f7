import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type Method, type Params, paramSchemas } from './messages.ts';

const isMethod = (name: string): name is Method => Object.hasOwn(paramSchemas, name);

/** A call with a known method and valid parameters. */
export type KnownCall = { readonly [M in Method]: { readonly method: M; readonly params: Params<M> } }[Method];

/**
 * Reads a call as the agent does. Errors: `unsupported` for an unknown method; `internal` for invalid parameters, since
 * user input is checked, with messages for the user, before it becomes a call.
 */
export function readCall(method: string, params: unknown): KnownCall {
  if (!isMethod(method)) throw new PodvmError('unsupported', 'Cannot answer: there is no such method');
  const parsed = v.safeParse(paramSchemas[method], params);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    const what = `${v.getDotPath(issue) ?? 'parameters'}: ${issue.message}`;
    throw new PodvmError('internal', `Cannot ${method}: invalid parameters for the agent (${what})`);
  }
  return { method, params: parsed.output } as KnownCall; // SAFE: the schema of this very method has accepted them
}
