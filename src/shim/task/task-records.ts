import * as v from 'valibot';
import type { Log } from '#host/log/log.ts';
import { RecordFiles } from '#host/file/record-files.ts';

const recordSchema = v.object({
  version: v.literal(1),
  kind: v.picklist(['pod', 'container', 'single']),
  pid: v.number(),
  bundle: v.string(),
  /** Address for its events; absent: events are not sent. */
  eventsSocket: v.exactOptional(v.string()),
  io: v.object({ stdin: v.string(), stdout: v.string(), stderr: v.string(), terminal: v.boolean() }),
  sandboxId: v.string(),
  /** Id of the container in its sandbox; absent for the task of a sandbox. */
  containerId: v.exactOptional(v.string()),
  isStarted: v.boolean(),
  exit: v.exactOptional(v.object({ status: v.number(), at: v.string() })),
  /** Whether containerd has been told of the exit. */
  isExitTold: v.boolean(),
});

/** Record of a task for the next process. Until that one runs, the keeper answers from it. */
export type TaskRecord = Readonly<v.InferOutput<typeof recordSchema>>;

export type TaskRecords = RecordFiles<TaskRecord>;

/** The records of tasks, by the ids of the tasks. */
export const taskRecordsIn = (directory: string, log: Log): TaskRecords =>
  new RecordFiles({ directory, what: 'a task', parse: parseTaskRecord, log });

export const parseTaskRecord = (text: string): TaskRecord => v.parse(recordSchema, JSON.parse(text));
