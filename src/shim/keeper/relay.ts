import { connect, type Socket } from 'node:net';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { PodvmError } from '#base/errors.ts';
import { codeOfKind, statusOf } from '#base/status-codes.ts';
import { type Request, RequestSchema, ResponseSchema } from '../schema/generated/ttrpc-request_pb.ts';
import { encodeFrame, FrameReader, type Frame, frameTypes } from '../ttrpc/frame.ts';

/** The daemon, which comes and goes. */
export interface Daemon {
  readonly socketPath: string;
  /** Resolves to true when it serves, and to false when the keeper ends. */
  serves(): Promise<boolean>;
}

/** Answers from the daemon's records while it is away; undefined: only the daemon knows the answer. */
export type AnswerAway = (request: Request) => Promise<Uint8Array | undefined>;

/** Calls that the next daemon can answer in place of the last one. */
const repeatable: ReadonlySet<string> = new Set(['Wait', 'State', 'Connect', 'Pids', 'Shutdown', 'CloseIO']);
/** Time in which a daemon may come back before a call that it has not begun fails, in `ms`. */
const patienceMs = 20_000;
/** Pause before the next attempt to reach a daemon, in `ms`. */
const againMs = 50;
const maxUnreadBytes = 16 * 1024 * 1024;

interface Call {
  readonly frame: Frame;
  readonly request: Request;
  isSent: boolean;
  patience?: NodeJS.Timeout;
}

/**
 * Carries the calls of one connection of containerd to the daemon. When the daemon ends, the connection stays: queries
 * are repeated, waiting calls go to the next daemon, and calls in progress fail.
 */
export class Relay {
  readonly #containerd: Socket;
  readonly #daemon: Daemon;
  readonly #answerAway: AnswerAway;
  readonly #calls = new Map<number, Call>();
  #upstream: Socket | undefined;
  #isConnecting = false;

  constructor(containerd: Socket, daemon: Daemon, answerAway: AnswerAway) {
    this.#containerd = containerd;
    this.#daemon = daemon;
    this.#answerAway = answerAway;
    const reader = new FrameReader();
    containerd.on('error', () => undefined);
    containerd.on('data', (chunk: Buffer) => {
      try {
        for (const frame of reader.read(chunk)) this.#take(frame);
      } catch {
        containerd.destroy(); // not ttrpc
      }
    });
    containerd.once('close', () => {
      this.#upstream?.destroy();
      for (const streamId of this.#calls.keys()) this.#forget(streamId);
    });
    this.#connect();
  }

  #take(frame: Frame): void {
    if (frame.type !== frameTypes.request) {
      throw new PodvmError('corrupt', `Cannot take a ttrpc frame of type ${frame.type}`);
    }
    const call: Call = { frame, request: fromBinary(RequestSchema, frame.payload), isSent: false };
    this.#calls.set(frame.streamId, call);
    if (this.#upstream === undefined) this.#wait(call);
    else this.#send(call, this.#upstream);
  }

  #send(call: Call, to: Socket): void {
    clearTimeout(call.patience);
    call.isSent = true;
    to.write(encodeFrame(call.frame));
  }

  /** The daemon is away. */
  #wait(call: Call): void {
    const { request, frame } = call;
    call.isSent = false;
    void this.#answerAway(request)
      .catch(() => undefined)
      .then((payload) => {
        if (payload !== undefined && !call.isSent) this.#answer(frame.streamId, { payload });
      });
    if (request.method === 'Wait') return;
    // Containerd requests figures of all tasks in turn, those of other runtimes too.
    const allowedMs = request.timeoutNano > 0n ? Number(request.timeoutNano / 1_000_000n) : patienceMs;
    const ms = request.method === 'Stats' ? 0 : Math.min(allowedMs, patienceMs);
    call.patience = setTimeout(() => {
      if (!call.isSent) this.#answer(frame.streamId, { error: away });
    }, ms);
  }

  #answer(streamId: number, { payload, error }: { readonly payload?: Uint8Array; readonly error?: PodvmError }): void {
    if (!this.#calls.has(streamId)) return;
    this.#forget(streamId);
    const status = error === undefined ? { code: 0 } : { code: statusOf(error).code, message: statusOf(error).details };
    const response = create(ResponseSchema, { status, ...(payload === undefined ? {} : { payload }) });
    this.#pass({ streamId, type: frameTypes.response, payload: Buffer.from(toBinary(ResponseSchema, response)) });
  }

  #pass(frame: Frame): void {
    if (this.#containerd.destroyed) return;
    this.#containerd.write(encodeFrame(frame));
    if (this.#containerd.writableLength > maxUnreadBytes) this.#containerd.destroy();
  }

  #forget(streamId: number): void {
    clearTimeout(this.#calls.get(streamId)?.patience);
    this.#calls.delete(streamId);
  }

  /** Connects to the daemon when it serves, and sends it the waiting calls. */
  #connect(): void {
    if (this.#isConnecting || this.#upstream !== undefined || this.#containerd.destroyed) return;
    this.#isConnecting = true;
    void this.#daemon.serves().then((isServing) => {
      if (!isServing || this.#containerd.destroyed) return;
      const socket = connect(this.#daemon.socketPath);
      socket.on('error', () => undefined);
      socket.once('connect', () => {
        this.#isConnecting = false;
        if (this.#containerd.destroyed) return void socket.destroy();
        this.#upstream = socket;
        for (const call of this.#calls.values()) this.#send(call, socket);
      });
      const reader = new FrameReader();
      socket.on('data', (chunk: Buffer) => {
        try {
          for (const frame of reader.read(chunk)) this.#takeAnswer(frame);
        } catch {
          socket.destroy(); // not ttrpc
        }
      });
      socket.once('close', () => this.#lose(socket));
    });
  }

  #takeAnswer(frame: Frame): void {
    const call = this.#calls.get(frame.streamId);
    if (call === undefined) return;
    const { status } = fromBinary(ResponseSchema, frame.payload);
    // A daemon that ends reports this to its callers.
    if (status?.code === codeOfKind.unavailable && repeatable.has(call.request.method)) return;
    this.#forget(frame.streamId);
    this.#pass(frame);
  }

  #lose(socket: Socket): void {
    this.#isConnecting = false;
    if (this.#upstream === socket) this.#upstream = undefined;
    if (this.#containerd.destroyed) return;
    for (const call of this.#calls.values()) {
      if (!call.isSent || repeatable.has(call.request.method)) this.#wait(call);
      else this.#answer(call.frame.streamId, { error: ended });
    }
    setTimeout(() => this.#connect(), againMs);
  }
}

const away = new PodvmError('unavailable', 'Cannot reach podvm: its daemon is not running', {
  fix: 'Start it, such as with `systemctl start podvm`.',
});
const ended = new PodvmError('unavailable', "Cannot tell whether it was done: podvm's daemon has ended meanwhile", {
  fix: 'Try again.',
});
