import { mkdir, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type DescMessage, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { replaceFile } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import type { Method } from '../rpc/cri-client.ts';
import type { Delegate } from './delegate.ts';

/**
 * The delegate's answer to a request without fields. While the delegate is away it is the last one, also in the next
 * process.
 */
export class LastAnswer<Output extends DescMessage> {
  readonly #delegate: Delegate;
  readonly #method: Method<DescMessage, Output>;
  readonly #file: string;
  readonly #log: Log;
  #last: MessageShape<Output>;
  #bytes: Buffer;
  #saving: Promise<void> = Promise.resolve();

  private constructor(delegate: Delegate, method: Method<DescMessage, Output>, file: string, log: Log, bytes: Buffer) {
    this.#delegate = delegate;
    this.#method = method;
    this.#file = file;
    this.#log = log;
    this.#last = fromBinary(method.output, bytes);
    this.#bytes = bytes;
  }

  /** An invalid file is logged, and the answer is empty until there is one. */
  static async open<Output extends DescMessage>(
    delegate: Delegate,
    method: Method<DescMessage, Output>,
    file: string,
    log: Log,
  ): Promise<LastAnswer<Output>> {
    const none = Buffer.alloc(0);
    const bytes = await readFile(file).catch(() => none);
    try {
      return new LastAnswer(delegate, method, file, log, bytes);
    } catch (error) {
      log.error('last answer of the delegate not read', error, { verb: method.name });
      return new LastAnswer(delegate, method, file, log, none);
    }
  }

  async get(signal: AbortSignal): Promise<MessageShape<Output>> {
    const answer = await this.#delegate.askPart(this.#method, {}, signal);
    if (answer === undefined) return this.#last;
    this.#last = answer;
    const bytes = Buffer.from(toBinary(this.#method.output, answer));
    if (bytes.equals(this.#bytes)) return answer;
    this.#bytes = bytes;
    this.#saving = this.#saving.then(() => this.#save(bytes));
    await this.#saving;
    return answer;
  }

  async #save(bytes: Buffer): Promise<void> {
    if (bytes !== this.#bytes) return; // a later one is next
    try {
      await mkdir(dirname(this.#file), { recursive: true, mode: 0o700 });
      await replaceFile(this.#file, bytes);
    } catch (error) {
      this.#log.error('answer of the delegate not recorded', error, { verb: this.#method.name });
    }
  }
}
