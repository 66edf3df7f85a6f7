import { PodvmError } from '#base/errors.ts';
import { checkCommand } from '#sandbox/container/process-size.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { ExecRequest, ExecResponseSchema } from '../schema/api_pb.ts';

/** Returns a URL that runs the command when opened. Errors: `notFound`, `failedPrecondition`, those of the streams. */
export async function exec(
  { pods, streaming }: CriParts,
  { containerId, cmd, stdin, stdout, stderr, tty }: ExecRequest,
): Promise<Answer<typeof ExecResponseSchema>> {
  const { container } = pods.container(containerId);
  const { state, name } = container.status;
  if (state !== 'running') {
    throw new PodvmError('failedPrecondition', `Cannot run a command in container ${name}: it is ${state}`);
  }
  checkCommand(`a command in container ${name}`, cmd);
  return { url: streaming.execUrl({ target: container, command: cmd, stdin, stdout, stderr, tty }) };
}
