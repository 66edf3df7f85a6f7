import { EventEmitter } from 'node:events';
import { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { runProgram } from '../program.ts';
import { type GlobalOptions, type ProgramParts, refusingParts } from '../program-parts.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { type CommandRequest, parseCommandRequest } from './command-request.ts';

/** First bytes of the messages to a caller, as in `caller.c`. */
const kinds = { refused: 0, stdout: 1, stderr: 2, ended: 3, taken: 4 } as const;

/** The end signals by the numbers that a caller sends (signal(7)). */
const signals: Readonly<Record<number, string>> = { 1: 'SIGHUP', 2: 'SIGINT', 3: 'SIGQUIT', 15: 'SIGTERM' };
const sigpipe = 13;

/** A node that runs commands for their callers. */
export interface ServingNode {
  /** Names the build of its program. Another build may give a command line another meaning. */
  readonly key: string;
  readonly version: string;
  readonly mountNamespace: string;
  readonly socketPath: string;
  /** Socket to which a command with these options and variables connects. Errors: those of a wrong setting. */
  readonly socketOf: (options: GlobalOptions, environment: CommandRequest['environment']) => string;
  /** Whether the user with these variables has logins to registries, which only the user's own process reads. */
  readonly mayHaveLogins: (environment: CommandRequest['environment']) => Promise<boolean>;
}

/**
 * Serves one `WS /v1/command`: runs `podvm run` of a caller in this process, which saves the start of Node. It takes a run of an
 * image that needs none of the caller's files, input or logins; any other command is refused, and the caller executes the
 * program itself. Nothing has happened then. When the caller is gone, its command is terminated.
 */
export async function serveCommand(socket: WebSocket, node: ServingNode): Promise<void> {
  const first = await firstMessage(socket);
  const request = first && parseCommandRequest(first);
  if (request === undefined || !isFromHere(request, node)) return refuse(socket);
  const emitter = new EventEmitter();
  const outputGone = new AbortController();
  socket.on('message', (data) => {
    const [number = 0] = messageBytes(data);
    if (number === sigpipe) outputGone.abort();
    else if (signals[number] !== undefined) emitter.emit(signals[number]);
  });
  socket.once('close', () => emitter.emit('SIGTERM'));
  const command = new CalledCommand(socket);
  const terminal = terminalOf(request, command, outputGone.signal);
  const code = await runProgram(request.words, partsOf(request, { node, command, terminal, emitter }));
  await Promise.all([terminal.stdout, terminal.stderr].map((stream) => finished(stream.end())));
  await command.end(code);
}

const isFromHere = ({ key, mountNamespace, words }: CommandRequest, node: ServingNode): boolean =>
  key === node.key && mountNamespace === node.mountNamespace && words[0] === 'run';

function refuse(socket: WebSocket): void {
  socket.send(Buffer.from([kinds.refused]), () => socket.close());
}

/** One command until its end. With its first message it is taken; until then it can be refused. */
class CalledCommand {
  readonly #socket: WebSocket;
  #state: 'asked' | 'taken' | 'refused' = 'asked';

  constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  take(): void {
    void this.say(kinds.taken);
  }

  /** Leaves the command to its caller, which has seen nothing of it. */
  readonly refuse = (): never => {
    if (this.#state === 'asked') this.#state = 'refused';
    throw new PodvmError('internal', 'Cannot run this command for its caller'); // seen only if it was taken
  };

  /** Resolves when the kernel has accepted the message, or when the caller is gone. */
  async say(kind: number, bytes: Uint8Array = new Uint8Array()): Promise<void> {
    if (this.#state === 'refused' || this.#socket.readyState !== this.#socket.OPEN) return;
    this.#state = 'taken';
    const { promise, resolve: done } = Promise.withResolvers<void>();
    this.#socket.send(Buffer.concat([Buffer.from([kind]), bytes]), () => done());
    await promise;
  }

  async end(code: number): Promise<void> {
    if (this.#state === 'refused') return refuse(this.#socket);
    await this.say(kinds.ended, Buffer.from([code]));
    this.#socket.close();
  }
}

function terminalOf(request: CommandRequest, command: CalledCommand, outputGone: AbortSignal): Terminal {
  const stream = (kind: number, isTTY: boolean) =>
    // SAFE: as much of one as a run uses that has neither input nor a terminal for its container
    Object.assign(
      new Writable({
        decodeStrings: true,
        highWaterMark: 1, // who prints waits for each message, so that no other stream's overtakes it
        write: (bytes: Buffer, _encoding, done) => void command.say(kind, bytes).then(() => done()),
      }),
      { isTTY },
    ) as unknown as NodeJS.WriteStream;
  return {
    get stdin() {
      return command.refuse();
    },
    stdout: stream(kinds.stdout, request.stdoutIsTerminal),
    stderr: stream(kinds.stderr, request.stderrIsTerminal),
    hasColour: request.stdoutIsTerminal && request.environment['NO_COLOR'] === undefined,
    outputGone,
  };
}

interface Serving {
  readonly node: ServingNode;
  readonly command: CalledCommand;
  readonly terminal: Terminal;
  readonly emitter: EventEmitter;
}

/** The parts of a program that can only run an image in this node. */
function partsOf(
  { fileWords, environment }: CommandRequest,
  { node, command, terminal, emitter }: Serving,
): ProgramParts {
  const { refuse } = command;
  return {
    ...refusingParts(refuse),
    terminal,
    environment,
    signals: emitter,
    keepsHangUp: environment['PODVM_KEEPS_HANG_UP'] === '1',
    version: node.version,
    elsewhere: { isFile: (word) => fileWords.has(word), refuse },
    ensureServed: async (options) => {
      const isHere = node.socketOf(options, environment) === node.socketPath;
      if (!isHere || (await node.mayHaveLogins(environment))) refuse();
      command.take();
      return { socketPath: node.socketPath, [Symbol.asyncDispose]: () => Promise.resolve() };
    },
    userLogins: () => Promise.resolve({ logins: [], warnings: [] }),
  };
}

async function firstMessage(socket: WebSocket): Promise<Uint8Array | undefined> {
  return await new Promise((done) => {
    socket.once('message', (data) => done(messageBytes(data)));
    socket.once('close', () => done(undefined));
  });
}
