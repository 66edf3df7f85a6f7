import { create, type DescMessage, type MessageInitShape, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { kindOf, messageOf } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import type { Log } from '#host/log/log.ts';
import { CriClient, type Method } from '../rpc/cri-client.ts';
import { EncodedAnswer } from '../rpc/service.ts';

/** The settings `delegate` and `delegateNamespaces`. */
export interface DelegateSettings {
  /** Path of the unix socket on which the other runtime serves CRI. */
  readonly socketPath: string;
  /** Namespaces whose pods it may run, or `*`. */
  readonly namespaces: readonly string[];
}

/** Time to wait for a part of an answer, such as of a list, in `ms`. */
const partTimeoutMs = 3000;

/** Name of a delegate and fixes in errors. */
export const delegateName = {
  name: 'the runtime of the setting delegate',
  awayFix: 'Start that runtime, or correct delegate in the settings of podvm; pods in machines are not affected.',
  corruptFix: 'Check that the setting delegate names the socket of a runtime that serves CRI v1.',
};

/** The other runtime, which gets the pods that cannot be machines. */
export class Delegate implements Disposable {
  readonly settings: DelegateSettings;
  readonly #client: CriClient;
  readonly #log: Log;
  #isAway = false;

  constructor(settings: DelegateSettings, log: Log) {
    this.settings = settings;
    this.#log = log;
    this.#client = new CriClient(settings.socketPath, delegateName);
  }

  /**
   * Sends a request as it arrived, and returns the answer as it arrives, with fields that our schema does not know.
   * Errors: as `CriClient.ask`.
   */
  async forward(method: Method, request: Uint8Array, signal: AbortSignal): Promise<EncodedAnswer> {
    const bytes = await this.#call(method, request, signal);
    this.#client.read(method, bytes);
    return new EncodedAnswer(bytes);
  }

  /** Sends a request, and returns the answer. Errors: as `CriClient.ask`. */
  async ask<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    request: MessageInitShape<Input>,
    signal: AbortSignal,
  ): Promise<MessageShape<Output>> {
    const bytes = await this.#call(method, toBinary(method.input, create(method.input, request)), signal);
    return this.#client.read(method, bytes);
  }

  /** Like `ask`, with a short deadline, for a part of an answer about both runtimes. Errors: also `timeout`. */
  async askPromptly<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    request: MessageInitShape<Input>,
    signal: AbortSignal,
  ): Promise<MessageShape<Output>> {
    using deadline = openDeadline(partTimeoutMs, signal);
    try {
      return await this.ask(method, request, deadline.signal);
    } catch (error) {
      signal.throwIfAborted();
      if (kindOf(error) === 'timeout') this.#is('away', error);
      throw error;
    }
  }

  /** Like `askPromptly`, for an answer that is useful without this part: undefined for any error. */
  async askPart<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    request: MessageInitShape<Input>,
    signal: AbortSignal,
  ): Promise<MessageShape<Output> | undefined> {
    try {
      return await this.askPromptly(method, request, signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#log.debug('an answer lacks the part of the delegate', { verb: method.name, why: messageOf(error) });
      return undefined;
    }
  }

  /** Yields the answers of a verb that streams, until the signal aborts. Errors: as `CriClient.ask`. */
  async *listen<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageShape<Output>> {
    try {
      yield* this.#client.listen(method, signal);
    } catch (error) {
      if (!signal.aborted) this.#learn(error);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }

  async #call(method: Method, request: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    try {
      const answer = await this.#client.call(method, request, signal);
      this.#is('here');
      return answer;
    } catch (error) {
      if (!signal.aborted) this.#learn(error);
      throw error;
    }
  }

  /** Records that the delegate answers. Errors other than `unavailable` are answers. */
  #learn(error: unknown): void {
    this.#is(kindOf(error) === 'unavailable' ? 'away' : 'here', error);
  }

  #is(state: 'here' | 'away', error?: unknown): void {
    const isAway = state === 'away';
    if (this.#isAway === isAway) return;
    this.#isAway = isAway;
    const delegate = this.settings.socketPath;
    if (isAway) this.#log.error('the delegate does not answer', error, { delegate });
    else this.#log.info('the delegate answers again', { delegate });
  }
}
