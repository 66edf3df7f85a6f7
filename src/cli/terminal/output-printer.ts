import type { Writable } from 'node:stream';
import { write } from './terminal.ts';

const colours = [36, 32, 33, 35, 34, 96, 92, 93, 95, 94];
const newline = 0x0a;
/** Length at which an incomplete line is printed, in bytes. */
const maxHeldBytes = 64 * 1024;

/**
 * Prints the output of several containers. A single source passes unchanged; several sources print whole lines with a
 * `pod/container` prefix, so that their lines never mix.
 */
export class OutputPrinter {
  readonly #to: { readonly stdout: Writable; readonly stderr: Writable };
  readonly #hasColour: boolean;
  readonly #names = new Map<number, string>();
  readonly #held = new Map<string, Buffer>();

  constructor(to: { readonly stdout: Writable; readonly stderr: Writable }, hasColour: boolean) {
    this.#to = to;
    this.#hasColour = hasColour;
  }

  addSource(number: number, name: string): void {
    this.#names.set(number, name);
  }

  async print(source: number, stream: 'stdout' | 'stderr', bytes: Buffer): Promise<void> {
    if (this.#names.size < 2) return await write(this.#to[stream], bytes);
    const key = `${source} ${stream}`;
    const text = Buffer.concat([this.#held.get(key) ?? Buffer.alloc(0), bytes]);
    const end = text.length > maxHeldBytes ? text.length : text.lastIndexOf(newline) + 1;
    this.#held.set(key, text.subarray(end));
    if (end > 0) await this.#printLines(source, stream, text.subarray(0, end));
  }

  /** Prints incomplete lines. */
  async flush(): Promise<void> {
    for (const [key, text] of this.#held) {
      const [source = '0', stream] = key.split(' ');
      if (text.length > 0) await this.#printLines(Number(source), stream === 'stderr' ? 'stderr' : 'stdout', text);
    }
    this.#held.clear();
  }

  async #printLines(source: number, stream: 'stdout' | 'stderr', text: Buffer): Promise<void> {
    const prefix = Buffer.from(this.#prefix(source));
    const parts: Buffer[] = [];
    for (let at = 0; at < text.length;) {
      const found = text.indexOf(newline, at);
      const next = found < 0 ? text.length : found + 1;
      parts.push(prefix, text.subarray(at, next));
      if (found < 0) parts.push(Buffer.from('\n'));
      at = next;
    }
    await write(this.#to[stream], Buffer.concat(parts));
  }

  #prefix(source: number): string {
    const width = Math.max(...[...this.#names.values()].map((name) => name.length));
    const name = (this.#names.get(source) ?? '?').padEnd(width);
    return this.#hasColour ? `\u001b[${colours[source % colours.length]}m${name} |\u001b[0m ` : `${name} | `;
  }
}
