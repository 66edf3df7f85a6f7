import { createHash } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { writeFileAtomic } from '#host/file/files.ts';
import { parseReference } from '#base/image-reference.ts';
import type { AuthConfig } from './schema/api_pb.ts';

/**
 * Credentials of a pull as a file for the image layer. Pulls with equal credentials share a file, and so the download.
 * The file is removed after the last of them.
 */
export class Credentials {
  readonly #directory: string;
  readonly #users = new Map<string, number>();

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Opens the directory, and removes files of a killed process. */
  static async open(directory: string): Promise<Credentials> {
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return new Credentials(directory);
  }

  /** Returns a file, or undefined for a pull without credentials. Errors: `unsupported`, `invalid`. */
  async file(
    reference: string,
    auth: AuthConfig | undefined,
  ): Promise<(AsyncDisposable & { path: string }) | undefined> {
    const entry = auth === undefined ? undefined : entryOf(auth);
    if (entry === undefined) return undefined;
    const text = JSON.stringify({ auths: { [parseReference(reference).registry]: entry } });
    const path = join(this.#directory, `${createHash('sha256').update(text).digest('hex')}.json`);
    this.#users.set(path, (this.#users.get(path) ?? 0) + 1);
    await writeFileAtomic(path, text);
    return {
      path,
      [Symbol.asyncDispose]: async () => {
        const left = (this.#users.get(path) ?? 1) - 1;
        if (left > 0) {
          this.#users.set(path, left);
          return;
        }
        this.#users.delete(path);
        await rm(path, { force: true });
      },
    };
  }
}

/** Converts credentials to the format of docker's config.json. */
function entryOf(auth: AuthConfig): Readonly<Record<string, string>> | undefined {
  if (auth.registryToken !== '') {
    throw new PodvmError(
      'unsupported',
      'Cannot pull with a registry token: only user names with passwords and identity tokens are supported',
      { fix: 'Use a user name with a password, or an identity token.' },
    );
  }
  if (auth.identityToken !== '') return { identitytoken: auth.identityToken };
  if (auth.auth !== '') return { auth: auth.auth };
  if (auth.username === '') return undefined;
  return { auth: Buffer.from(`${auth.username}:${auth.password}`).toString('base64') };
}
