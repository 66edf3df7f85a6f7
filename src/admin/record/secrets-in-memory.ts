import type { PodConfig } from '#pod/pods.ts';

type Secrets = Pick<PodConfig, 'secrets' | 'logins'>;

/** Limit of the Secrets and logins of all pods, in characters of their JSON. The oldest are dropped first. */
const maxChars = 16 * 1024 ** 2;

/** Secrets and logins of pods by id, for running the pods again. They are kept in memory only, never on disk. */
export class SecretsInMemory {
  readonly #kept = new Map<string, { readonly secrets: Secrets; readonly chars: number }>();
  #chars = 0;

  keep(id: string, secrets: Secrets): void {
    this.drop(id);
    const chars = JSON.stringify(secrets).length;
    this.#kept.set(id, { secrets, chars });
    this.#chars += chars;
    for (const oldest of this.#kept.keys()) {
      if (this.#chars <= maxChars) return;
      this.drop(oldest);
    }
  }

  /** Undefined when they were dropped, or kept by an earlier process. */
  of(id: string): Secrets | undefined {
    return this.#kept.get(id)?.secrets;
  }

  drop(id: string): void {
    this.#chars -= this.#kept.get(id)?.chars ?? 0;
    this.#kept.delete(id);
  }
}
