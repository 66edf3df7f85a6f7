import * as v from 'valibot';
import { terminalSizeSchema } from './exec.ts';
import { errorBodySchema, podEventSchema } from './pods.ts';
import { registryLoginsSchema } from './registry-logins.ts';

/**
 * `WS /v1/run`: runs the pods of a manifest in the foreground of one client. When the client disconnects, the pods are
 * terminated. With `detach` they belong to the node: the server sends no output, and `finished` as soon as a container of
 * each runs; only a client that disconnects before takes them with it. The command `detach` does the same later: the server
 * sends `podDetached` and `finished`, or a warning where pods end with the process that serves.
 *
 * Client to server, text frames: first a RunRequest, then RunCommands. Server to client: text frames are RunEvents,
 * binary frames are output: byte 0 the stream (1 stdout, 2 stderr), bytes 1 and 2 the number of the source (big endian,
 * announced by a `source` event), then bytes of the container. The server closes after `finished` or `failed`.
 *
 * `WS /v1/apply`, `/v1/delete`, `/v1/diff`: the same messages, without output, about the objects of the files: brings the node
 * to what they say, removes what they made, or tells what `apply` would change. A client that disconnects ends the work.
 *
 * `WS /v1/pods/{namespace}/{name}/attach`: the same events and output of a pod that runs. The server needs no message, and
 * takes RunCommands except `detach`; a client that disconnects leaves the pod alone.
 */
export const maxFileChars = 4 * 1024 * 1024;
export const maxFiles = 64;
/** Limit of all files of one run. */
export const maxRunChars = 8 * 1024 * 1024;

export const runRequestSchema = v.strictObject({
  /** Names are shown in errors; the server never opens them. */
  files: v.pipe(
    v.array(
      v.strictObject({
        name: v.pipe(v.string(), v.maxLength(4096)),
        text: v.pipe(v.string(), v.maxLength(maxFileChars, `must have at most ${maxFileChars} characters`)),
      }),
    ),
    v.minLength(1),
    v.maxLength(maxFiles, `must be at most ${maxFiles}`),
    v.check(
      (files) => files.reduce((sum, { text }) => sum + text.length, 0) <= maxRunChars,
      `must have at most ${maxRunChars} characters in all`,
    ),
  ),
  network: v.optional(v.picklist(['cni', 'none']), 'cni'),
  /** The pods belong to the node and not to this client. */
  detach: v.optional(v.boolean(), false),
  /** Keeps nothing of the pods after their end. */
  removeAtEnd: v.optional(v.boolean(), false),
  /** Size of the client's terminal, which terminals of the containers have as they start. */
  terminalSize: v.optional(terminalSizeSchema),
  /** For pulls of these pods. The server keeps them in memory only. */
  logins: v.optional(registryLoginsSchema, []),
});
export type RunRequest = v.InferOutput<typeof runRequestSchema>;
export type RunRequestInput = v.InferInput<typeof runRequestSchema>;

export const runCommandSchema = v.variant('command', [
  /** Sends SIGTERM, and SIGKILL after the pods' grace periods. */
  v.strictObject({ command: v.literal('terminate') }),
  v.strictObject({ command: v.literal('kill') }),
  /** Leaves the pods to the node. Services of the files end with the session. */
  v.strictObject({ command: v.literal('detach') }),
]);
export type RunCommand = v.InferOutput<typeof runCommandSchema>;

export const runEventSchema = v.variant('event', [
  v.object({ event: v.literal('warning'), message: v.string() }),
  v.object({ event: v.literal('source'), number: v.number(), pod: v.string(), container: v.string() }),
  /** An event of a pod, in Kubernetes' terms. */
  v.object({ event: v.literal('pod'), pod: v.string(), detail: podEventSchema }),
  /** A pod of the files needs an unsupported feature and does not run; the others do. */
  v.object({ event: v.literal('podRefused'), pod: v.string(), problems: v.array(v.string()) }),
  /** The pod belongs to the node: a container of it runs, or it has ended. */
  v.object({ event: v.literal('podDetached'), pod: v.string() }),
  v.object({ event: v.literal('podFinished'), pod: v.string(), exitCode: v.number(), reason: v.string() }),
  /** `object`: `Deployment default/web`. */
  v.object({
    event: v.literal('object'),
    object: v.string(),
    change: v.picklist(['created', 'configured', 'unchanged', 'deleted', 'kept']),
  }),
  /** With `diff`: YAML of an object as it is and as it would be; empty: absent. */
  v.object({ event: v.literal('differs'), object: v.string(), before: v.string(), after: v.string() }),
  v.object({ event: v.literal('finished'), exitCode: v.number() }),
  v.object({ event: v.literal('failed'), error: errorBodySchema }),
]);
export type RunEvent = v.InferOutput<typeof runEventSchema>;

export const stdoutStream = 1;
export const stderrStream = 2;
