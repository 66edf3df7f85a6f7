import type { PodOverhead } from '#api/node.ts';
import { printable } from '#base/guest-text.ts';
import { openDeadline } from '#host/deadline.ts';
import type { Sandbox, Sandboxes } from '#sandbox/sandbox.ts';

/** Time in which all guests must answer, in `ms`. */
const answerMs = 5000;
/** Least age of a measured pod, in `ms`: before it, the processor time of the start would outweigh the rest. */
const minAgeMs = 30_000;

/** Measures the pods that are old enough and whose guests answer. */
export async function measureOverhead(
  sandboxes: Pick<Sandboxes, 'list'>,
  nowMs: number,
  signal: AbortSignal,
): Promise<readonly PodOverhead[]> {
  using deadline = openDeadline(answerMs, signal);
  const old = sandboxes
    .list()
    .filter(({ status }) => status.state === 'ready' && nowMs - status.createdAt.getTime() >= minAgeMs);
  const measured = await Promise.all(
    old.map((sandbox) => overheadOf(sandbox, nowMs, deadline.signal).catch(() => undefined)),
  );
  return measured.filter((overhead) => overhead !== undefined);
}

async function overheadOf(sandbox: Sandbox, nowMs: number, signal: AbortSignal): Promise<PodOverhead> {
  const guest = await sandbox.stats(signal);
  const { vmm } = await sandbox.hostFigures(signal);
  const { namespace, name } = sandbox.spec;
  const seconds = (nowMs - sandbox.status.createdAt.getTime()) / 1000;
  return {
    namespace: printable(namespace),
    name: printable(name),
    memoryBytes: vmm.privateBytes - guest.memoryBytes,
    cpuMillis: Math.max(0, ((vmm.cpuSeconds - guest.cpuUsec / 1e6) * 1000) / seconds),
  };
}
