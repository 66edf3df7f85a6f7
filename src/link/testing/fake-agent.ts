import { duplexPair, type Duplex } from 'node:stream';
import { encodeFrame, FrameParser, frameKinds, type FrameHeader, type FrameKind } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { protocolVersions, type ToldMessage, type CallMessage, type ToldWelcome } from '#wire/messages.ts';

export const exampleWelcome: ToldWelcome = {
  t: 'welcome',
  version: protocolVersions[0],
  agentVersion: '0.1.0',
  engine: 'fake',
  phases: [],
  configured: false,
  takesPrograms: true,
};

export interface Received {
  readonly header: FrameHeader;
  readonly payload: Buffer;
}

/**
 * An agent that a test controls, valid or not: the far end of a channel, at the level of frames. `FakeGuest` is built
 * on it, so that `link.conformance.ts` checks both against the behaviour of the real agent.
 */
export class FakeAgent {
  /** The host's end of the channel. */
  readonly channel: Duplex;
  readonly received: Received[] = [];
  /** Number of hellos received. */
  hellos = 0;
  epoch = 0;
  /** Number of hellos to ignore. */
  ignoredHellos = 0;
  welcome: ToldWelcome = exampleWelcome;
  onCall: (call: CallMessage) => void = () => {};
  /** Called for every received frame. */
  onFrame: (frame: Received) => void = (frame) => void this.received.push(frame);
  readonly #mine: Duplex;
  #parts: Buffer[] = [];

  /** `end`: an existing channel; default: a new one. */
  constructor(end?: Duplex) {
    const [mine, theirs] = end === undefined ? duplexPair() : [end, end];
    this.#mine = mine;
    this.channel = theirs;
    const parser = new FrameParser({ decide: () => 'take', frame: (h, p) => this.#frame(h, Buffer.from(p)) });
    mine.on('data', (chunk: Buffer) => parser.push(chunk));
    mine.on('error', () => {});
  }

  send(message: ToldMessage): void {
    this.sendJson(message);
  }

  /** Sends any value as the JSON of a message. */
  sendJson(value: unknown): void {
    this.frame(0, frameKinds.message, Buffer.from(JSON.stringify(value)));
  }

  frame(stream: number, kind: FrameKind, payload?: Uint8Array): void {
    this.raw(encodeFrame(this.epoch, stream, kind, payload));
  }

  raw(bytes: Uint8Array): void {
    this.#mine.write(bytes);
  }

  /** Whether everything sent has arrived, or the channel is torn. */
  get isIdle(): boolean {
    return this.#mine.writableLength === 0 || this.#mine.destroyed;
  }

  /** Sends data frames, each as full as possible. */
  data(stream: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += limits.maxDataBytes) {
      this.frame(stream, frameKinds.data, bytes.subarray(at, at + limits.maxDataBytes));
    }
  }

  /** The received frames of that kind for the stream. */
  framesOf(kind: FrameKind, stream: number): Received[] {
    return this.received.filter(({ header }) => header.kind === kind && header.stream === stream);
  }

  tear(): void {
    this.#mine.destroy();
    this.channel.destroy();
  }

  #frame(header: FrameHeader, payload: Buffer): void {
    this.onFrame({ header, payload });
    if (header.kind === frameKinds.hello) {
      this.hellos += 1;
      this.epoch = header.epoch;
      if (this.hellos > this.ignoredHellos) this.send(this.welcome);
    } else if (header.kind === frameKinds.part && header.epoch === this.epoch) {
      this.#parts.push(payload);
    } else if (header.kind === frameKinds.message && header.epoch === this.epoch) {
      const whole = Buffer.concat([...this.#parts.splice(0), payload]);
      this.onCall(JSON.parse(whole.toString('utf8')) as CallMessage);
    }
  }
}
