import * as v from 'valibot';
import { errorBodySchema } from './pods.ts';

/**
 * `WS /v1/pods/{namespace}/{name}/exec?container=&command=&command=&tty=&stdin=&columns=&rows=`: every binary frame
 * begins with its channel, as in Kubernetes' `v5.channel.k8s.io`.
 */
export const channel = { stdin: 0, stdout: 1, stderr: 2, status: 3, resize: 4, close: 255 } as const;

/**
 * `WS /v1/pods/{namespace}/{name}/debug?image=&container=&...`: the same for a new container of `image` that sees the
 * processes of `container`. It ends with the session.
 */

/**
 * Body of the only frame on channel `status`, the server's last. An error with an exit code was caused by the command:
 * 127 for a missing program, 126 for one that cannot be executed, as in shells and docker.
 */
export const execStatusSchema = v.union([
  v.object({ error: errorBodySchema, exitCode: v.optional(v.number()) }),
  v.object({ exitCode: v.number() }),
]);
export type ExecStatus = v.InferOutput<typeof execStatusSchema>;

/**
 * `WS /v1/pods/{namespace}/{name}/input?container=`: standard input and terminal size of a running container, in the same
 * frames from client to server. The server closes when the container has ended; it sends nothing but a `status` with an
 * error. The container's output goes the way of `run`.
 */

/** Body of a frame on channel `resize`: Kubernetes' TerminalSize. */
export const terminalSizeSchema = v.object({
  Width: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
  Height: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
});
