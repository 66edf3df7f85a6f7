/**
 * Arrival of layers at the importing process. Each line has the number of a layer, counted from 0, whose blob is whole;
 * after the last line, all layers are there.
 */
export class Arrivals {
  readonly #arrived = new Set<number>();
  readonly #waiting = new Map<number, () => void>();
  #isOver = false;

  constructor(lines: AsyncIterable<string>) {
    this.#read(lines).catch(() => this.#end()); // the layers that are missing are found when they are opened
  }

  async #read(lines: AsyncIterable<string>): Promise<void> {
    for await (const line of lines) {
      this.#arrived.add(Number(line));
      this.#waiting.get(Number(line))?.();
    }
    this.#end();
  }

  #end(): void {
    this.#isOver = true;
    for (const wake of this.#waiting.values()) wake();
  }

  /** Waits until the layer is there. To be called once for each. */
  async of(layer: number): Promise<void> {
    if (this.#isOver || this.#arrived.has(layer)) return;
    await new Promise<void>((resolve) => {
      this.#waiting.set(layer, resolve);
    });
  }
}
