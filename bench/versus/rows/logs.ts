import { open, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { countRecords } from '#sandbox/log/log-format.ts';
import { CriPod } from '../cri-peer.ts';
import type { Row, Values } from './row.ts';

const lineBytes = 128;
const lines = 262_144;
const pollMs = 20;
const timeoutMs = 180_000;
const line = 'x'.repeat(lineBytes - 1);

const writing = `yes ${line} | head -n ${lines}`;

/**
 * From the start of the container to its last line in the log; all bytes must be there. Then the same lines are thrown
 * away, which is the rate at which the container can write at all.
 */
export const logsRow: Row = async ({ field }) => {
  return async (name): Promise<Values> => {
    let startedMs = 0;
    const command = ['sh', '-c', `${writing}; echo last; exec sleep 100000`];
    await using pod = await CriPod.start(
      field.peer(name),
      { name: 'logs', image: field.images.base, command },
      async (verb, call) => {
        if (verb === 'startContainer') startedMs = performance.now();
        return await call();
      },
    );
    await untilLast(pod.log);
    const seconds = (performance.now() - startedMs) / 1000;
    const found = { stdout: 0, stderr: 0 }; // a record may end within a line
    countRecords(await readFile(pod.log), found);
    if (found.stdout !== lines * lineBytes + 'last\n'.length)
      throw new Error(`${name}: ${found.stdout} bytes of ${lines} lines are in the log`);
    const thrownMs = performance.now();
    await pod.exec('sh', '-ec', `${writing} >/dev/null`);
    const thrownSeconds = (performance.now() - thrownMs) / 1000;
    const megabytes = (lines * lineBytes) / 1e6;
    return { logMBps: megabytes / seconds, thrownMBps: megabytes / thrownSeconds };
  };
};

/** Reads only the end of the log. */
async function untilLast(log: string): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  const end = Buffer.alloc(lineBytes);
  for (;;) {
    await using file = await open(log, 'r');
    const { size } = await file.stat();
    const { bytesRead } = await file.read(end, 0, end.length, Math.max(0, size - end.length));
    const text = end.toString('latin1', 0, bytesRead);
    if (text.endsWith(' last\n')) return;
    if (performance.now() > deadlineMs) throw new Error(`no last line in ${log}, got ${text}`);
    await delay(pollMs);
  }
}
