import { join } from 'node:path';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { readFileIfThere } from '#host/file/files.ts';
import {
  ConnectRequestSchema,
  ConnectResponseSchema,
  PidsRequestSchema,
  PidsResponseSchema,
  StateRequestSchema,
  StateResponseSchema,
} from '../schema/generated/runtime/task/v2/shim_pb.ts';
import { Status } from '../schema/generated/types/task/task_pb.ts';
import { parseTaskRecord, type TaskRecord } from '../task/task-records.ts';
import type { AnswerAway } from './relay.ts';

/**
 * Answers requests of a starting containerd from the records of tasks: containerd takes a task for dead if its answer
 * is late (2 to 5 s). Execs are not on record.
 */
export function answersFrom(directory: string): AnswerAway {
  const recordOf = async (id: string): Promise<TaskRecord | undefined> => {
    if (id.includes('/')) return undefined;
    const text = await readFileIfThere(join(directory, `${id}.json`));
    return text === undefined ? undefined : parseTaskRecord(text);
  };
  return async ({ method, payload }) => {
    switch (method) {
      case 'Connect': {
        const record = await recordOf(fromBinary(ConnectRequestSchema, payload).id);
        if (record === undefined) return undefined;
        const answer = { shimPid: process.pid, taskPid: record.pid, version: 'v2' };
        return toBinary(ConnectResponseSchema, create(ConnectResponseSchema, answer));
      }
      case 'Pids': {
        const record = await recordOf(fromBinary(PidsRequestSchema, payload).id);
        if (record === undefined) return undefined;
        return toBinary(PidsResponseSchema, create(PidsResponseSchema, { processes: [{ pid: record.pid }] }));
      }
      case 'State': {
        const { id, execId } = fromBinary(StateRequestSchema, payload);
        const record = execId === '' ? await recordOf(id) : undefined;
        if (record === undefined) return undefined;
        const { bundle, pid, io, exit } = record;
        const exited =
          exit === undefined ? {} : { exitStatus: exit.status, exitedAt: timestampFromDate(new Date(exit.at)) };
        const state = create(StateResponseSchema, { id, bundle, pid, status: statusOf(record), ...io, ...exited });
        return toBinary(StateResponseSchema, state);
      }
      default:
        return undefined;
    }
  };
}

function statusOf({ isStarted, exit }: TaskRecord): Status {
  if (exit !== undefined) return Status.STOPPED;
  return isStarted ? Status.RUNNING : Status.CREATED;
}
