import * as v from 'valibot';
import { pullInProgressSchema } from '#api/images.ts';
import { formatReference, parseReference } from '#base/image-reference.ts';
import { untilAborted } from '#host/until-aborted.ts';
import type { Client } from '../client.ts';
import { ProgressLine } from '../terminal/progress-line.ts';
import type { Terminal } from '../terminal/terminal.ts';

/** Time before the first look, and between two, in `ms`: what is quicker is not worth a word. */
const lookMs = 2000;

/**
 * While pods start, shows which of their images are pulled, and how far. Until a container runs, it also says on a terminal that
 * the pods are starting.
 */
export class PullProgress implements AsyncDisposable {
  readonly #client: Client;
  /** Names of the images, asked for once something is pulled. */
  readonly #images: () => Promise<readonly string[]>;
  readonly #line: ProgressLine;
  #names: Promise<ReadonlySet<string>> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  readonly #over = new AbortController();
  #isStarting: boolean;

  /** `isStarting`: whether what starts is followed to its start. */
  constructor(
    client: Client,
    images: () => Promise<readonly string[]>,
    terminal: Pick<Terminal, 'stderr'>,
    isStarting = false,
  ) {
    this.#client = client;
    this.#isStarting = isStarting && terminal.stderr.isTTY;
    this.#images = images;
    this.#line = new ProgressLine(terminal);
    this.#plan();
  }

  /** A container runs. */
  started(): void {
    this.#isStarting = false;
  }

  /** Makes way for other output. */
  async clear(): Promise<void> {
    await this.#line.clear();
  }

  /** Shows nothing more, and waits for no answer of the node. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    clearTimeout(this.#timer);
    await this.#looking;
    await this.#line.clear();
  }

  #plan(): void {
    this.#timer = setTimeout(() => {
      // A node of an earlier version has no such call, and one that ends says so elsewhere.
      this.#looking = this.#look().then(
        () => (this.#over.signal.aborted ? undefined : this.#plan()),
        () => undefined,
      );
    }, lookMs);
    this.#timer.unref();
  }

  async #look(): Promise<void> {
    const { signal } = this.#over;
    const pulls = await this.#client.get('/v1/images/pulling', v.array(pullInProgressSchema), signal);
    if (pulls.length === 0) return await this.#showStart();
    this.#names ??= this.#images().then((images) => new Set(images.map(fullName)));
    const names = await untilAborted(this.#names, signal);
    const own = pulls.find(({ reference }) => names.has(reference));
    if (own === undefined) await this.#showStart();
    else await this.#line.show(own.doing ?? `pulling ${own.reference}`);
  }

  async #showStart(): Promise<void> {
    if (this.#isStarting && !this.#over.signal.aborted) await this.#line.show('starting');
    else await this.#line.clear();
  }
}

/** The name of what is no name, such as an id, is itself. */
function fullName(image: string): string {
  try {
    return formatReference(parseReference(image));
  } catch {
    return image;
  }
}
