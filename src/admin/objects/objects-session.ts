import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import { type RunEvent, runRequestSchema } from '#api/run.ts';
import type { Clock } from '#host/clock.ts';
import { applyObjects, type ObjectsParts } from './apply.ts';
import { errorBodyOf } from '../error-body.ts';
import { parseJson } from '../http.ts';
import type { NewestCalls } from '../newest-calls.ts';
import type { CronJobs } from '../pods/cron-jobs.ts';
import {
  endsWithCommand,
  eventText,
  firstMessage,
  refusedCode,
  type RunSessionParts,
  send,
} from '../session/run-session.ts';
import { tellManifest } from '../tell-manifest.ts';

export type ObjectsSessionParts = RunSessionParts & {
  readonly clock: Clock;
  readonly calls: NewestCalls;
  readonly cronJobs: CronJobs;
};

/** Serves one session about the objects of files: see `#api/run.ts`. A client that disconnects ends the work. */
export async function serveObjects(
  socket: WebSocket,
  act: (parts: ObjectsParts) => Promise<number>,
  { mayDetach, ...parts }: ObjectsSessionParts,
): Promise<void> {
  const say = (event: RunEvent) => send(socket, eventText(event));
  const leaving = new AbortController();
  socket.once('close', () => leaving.abort());
  const { signal } = leaving;
  try {
    const request = parseJson(await firstMessage(socket, () => {}), runRequestSchema);
    if (act === applyObjects && !mayDetach) throw endsWithCommand('apply');
    const manifest = await tellManifest(request, say, signal, { needsPods: false });
    if (manifest === undefined) return;
    const [unnamed] = manifest.generated;
    if (unnamed !== undefined) throw hasNoName(unnamed);
    const exitCode = await act({ ...parts, request, manifest, say, signal });
    await say({ event: 'finished', exitCode: manifest.refused.length > 0 ? refusedCode : exitCode });
  } catch (error) {
    await say({ event: 'failed', error: errorBodyOf(error) });
  } finally {
    socket.close();
  }
}

const hasNoName = (object: string) =>
  new PodvmError('invalid', `Cannot use ${object}: its name is generated, so that a later command would not find it`, {
    fix: 'Give it a metadata.name, or start it with `podvm run`.',
  });
