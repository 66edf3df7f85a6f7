import * as v from 'valibot';
import { channel, execStatusSchema } from '#api/exec.ts';
import { CallError, openSocket } from './api.ts';

export interface CommandResult {
  readonly exitCode: number;
  /** At most as many bytes as asked for. */
  readonly stdout: Uint8Array<ArrayBuffer>;
  /** The first part of what it said. */
  readonly stderr: string;
  /** Whether it wrote more. */
  readonly isCut: boolean;
}

const maxSaidBytes = 4096;

/** Runs a command in a container, without input, and ends it when it has written `maxBytes`. Errors: CallError. */
export async function runCommand(
  { podPath, container }: { readonly podPath: string; readonly container: string },
  command: readonly string[],
  maxBytes: number,
  signal: AbortSignal,
): Promise<CommandResult> {
  const query = new URLSearchParams({ container });
  for (const word of command) query.append('command', word);
  const socket = openSocket(`/v1${podPath}/exec?${query.toString()}`);
  const [stdout, stderr] = [new Bounded(maxBytes), new Bounded(maxSaidBytes)];
  const end = () => socket.close();
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  let status: Uint8Array | undefined;
  socket.addEventListener('message', ({ data }) => {
    if (!(data instanceof ArrayBuffer)) return;
    const frame = new Uint8Array(data);
    const body = frame.subarray(1);
    if (frame[0] === channel.stdout) stdout.add(body);
    else if (frame[0] === channel.stderr) stderr.add(body);
    else if (frame[0] === channel.status) status = body;
    if (stdout.isCut) end();
  });
  await new Promise((resolve) => socket.addEventListener('close', resolve, { once: true }));
  signal.removeEventListener('abort', end);
  signal.throwIfAborted();
  const result = { stdout: stdout.bytes, stderr: new TextDecoder().decode(stderr.bytes), isCut: stdout.isCut };
  return { exitCode: stdout.isCut ? 0 : exitCodeOf(status), ...result };
}

function exitCodeOf(status: Uint8Array | undefined): number {
  if (status === undefined)
    throw new CallError('unavailable', 'The connection to the container was cut', 'Look at the state of the pod.');
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), execStatusSchema), new TextDecoder().decode(status));
  if (!parsed.success) throw new CallError('internal', 'Cannot read the answer of podvm');
  const { output } = parsed;
  if (!('error' in output)) return output.exitCode;
  if (output.exitCode !== undefined) return output.exitCode; // no such program
  throw new CallError(output.error.kind, output.error.message, output.error.fix);
}

/** The first bytes of a stream. */
class Bounded {
  readonly #parts: Uint8Array[] = [];
  #left: number;
  isCut = false;

  constructor(maxBytes: number) {
    this.#left = maxBytes;
  }

  add(part: Uint8Array): void {
    this.isCut ||= part.length > this.#left;
    const kept = part.slice(0, this.#left);
    this.#left -= kept.length;
    if (kept.length > 0) this.#parts.push(kept);
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    const all = new Uint8Array(this.#parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}
