import { isAbsolute } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { hostPortSchema, sandboxIdSchema } from './attachment-record.ts';
import type { AttachmentOwner, AttachmentRequest, HostPort } from './network.ts';
import { isAnyAddress } from './port-address.ts';

const invalid = (what: string) => new PodvmError('invalid', `Cannot attach a sandbox: ${what}`);

/** Errors: `invalid`. */
export function checkRequest(request: AttachmentRequest): void {
  if (!v.is(sandboxIdSchema, request.sandboxId)) throw invalid('its id must match [a-z0-9-]{1,40}');
  checkOwner(request);
  if (request.mode !== 'cni' && request.hostPorts.length > 0) {
    throw invalid(`host ports need a network of podvm, got ${request.mode}`);
  }
  if (request.mode === 'given' && !isAbsolute(request.netns ?? '')) {
    throw invalid(`its netns must be an absolute path, got ${printable(request.netns ?? 'none')}`);
  }
}

/** Errors: `invalid`. */
export function checkOwner({ podName, podNamespace, podUid, hostPorts }: AttachmentOwner): void {
  for (const port of hostPorts) {
    if (!v.is(hostPortSchema, port)) throw invalid(`host port ${JSON.stringify(port).slice(0, 100)}`);
  }
  // These names become CNI_ARGS, which cannot escape these characters.
  const names = [podName, podNamespace, podUid];
  if (names.some((name) => /[;=\n\0]/.test(name) || name.length > 253)) throw invalid('name, namespace or uid');
}

/** The host ports of one pod, and its name. */
export interface PodPorts {
  readonly pod: string;
  readonly hostPorts: readonly HostPort[];
}

/** Errors: `alreadyExists` when two pods ask for the same host port. */
export function checkClash({ pod, hostPorts }: PodPorts, other: PodPorts): void {
  const clash = hostPorts.find((port) => other.hostPorts.some((one) => clashes(port, one)));
  if (!clash) return;
  throw new PodvmError(
    'alreadyExists',
    `Cannot give pod ${printable(pod)} host port ${clash.hostPort}/${clash.protocol}: pod ${printable(other.pod)} has it`,
    { fix: 'Give the pod another hostPort or hostIP, or stop the other pod.' },
  );
}

function clashes(a: HostPort, b: HostPort): boolean {
  if (a.hostPort !== b.hostPort || a.protocol !== b.protocol) return false;
  return isAnyAddress(a.hostIP) || isAnyAddress(b.hostIP) || a.hostIP === b.hostIP;
}
