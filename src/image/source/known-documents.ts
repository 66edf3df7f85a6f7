const maxDocuments = 128;
const maxChars = 32 * 1024;

/**
 * Manifests, indexes and configs that registries have sent, by full names with a digest, which their bytes have: they are
 * not asked for again. Small ones alone, the last of them, so that no registry fills the memory.
 */
export class KnownDocuments {
  readonly #texts = new Map<string, string>();

  get(name: string): string | undefined {
    return this.#texts.get(name);
  }

  add(name: string, text: string): void {
    if (text.length > maxChars) return;
    this.#texts.set(name, text);
    const [oldest] = this.#texts.keys();
    if (this.#texts.size > maxDocuments && oldest !== undefined) this.#texts.delete(oldest);
  }
}
