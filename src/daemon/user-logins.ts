import { open } from 'node:fs/promises';
import * as v from 'valibot';
import type { FoundLogins } from '#api/registry-logins.ts';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { nameOf, parseReference } from '#base/image-reference.ts';
import { run } from '#host/process/run.ts';
import { keyOf, keysOf, type RegistryLogin } from '#image/logins.ts';
import { dockerLogins } from '#pod/schema/docker-config.ts';
import { type Environment, isGiven, loginFiles, type LoginUser } from './login-files.ts';

const maxFileBytes = 1024 * 1024;
const helperTimeoutMs = 30_000;
const maxHelperBytes = 64 * 1024;

/**
 * Logins that a user has for the registries of images, and no others, as podman and docker look for them: the first file that
 * has one for the image counts, and in it the longest part of the image's name (containers-auth.json(5)). `images` is called
 * only if there is a file. Errors: `notFound` for an `authFile` that cannot be read; `cancelled`.
 */
export async function findLogins(
  images: () => Promise<readonly string[]>,
  user: LoginUser,
  signal: AbortSignal,
): Promise<FoundLogins> {
  const warnings: string[] = [];
  const files: AuthFile[] = [];
  for (const path of loginFiles(user)) {
    try {
      const text = await readBounded(path);
      if (text !== undefined) files.push(parseAuthFile(text));
      else if (user.authFile !== undefined) throw new Error('no such file');
    } catch (error) {
      if (user.authFile !== undefined) throw unreadable(path, error);
      if (isClosed(path, error)) continue;
      warnings.push(`the logins in ${path} are not used: ${messageOf(error)}`);
    }
  }
  const found = new Map<string, RegistryLogin>();
  if (files.every(({ keys }) => keys.size === 0)) return { logins: [], warnings };
  for (const name of namesOf(await images())) {
    for (const file of files) {
      const key = keysOf(name).find((part) => file.keys.has(part));
      if (key === undefined) continue;
      const login = found.get(key) ?? (await loginOf(file, key, { user, signal, warnings }));
      if (login === undefined) continue;
      found.set(key, login);
      break;
    }
  }
  return { logins: [...found.values()], warnings };
}

/** Root's podman makes `/run/containers` for itself alone: an ordinary user has no logins there. */
const isClosed = (path: string, error: unknown) =>
  path.startsWith('/run/containers/') && (error as NodeJS.ErrnoException).code === 'EACCES'; // SAFE: only read

/** Reads up to the limit, also from a device; undefined if there is no file. */
async function readBounded(path: string): Promise<string | undefined> {
  const file = await open(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw error;
  });
  if (file === undefined) return undefined;
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of file.createReadStream() as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxFileBytes) throw new Error(`it must have at most ${maxFileBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

interface AuthFile {
  /** Its logins and helpers, by the part of an image's name. */
  readonly keys: ReadonlyMap<string, Place>;
}

/** A login, or the program that has it. */
type Place =
  | { readonly kind: 'login'; readonly login: RegistryLogin }
  /** The program `docker-credential-<name>`, and the registry as it knows it. */
  | { readonly kind: 'helper'; readonly name: string; readonly server: string };

const helpersSchema = v.object({
  auths: v.nullish(v.record(v.string(), v.unknown()), {}),
  credHelpers: v.nullish(v.record(v.string(), v.string()), {}),
  credsStore: v.nullish(v.string(), ''),
});

/** Errors: a sentence without any text of the file. */
function parseAuthFile(text: string): AuthFile {
  const logins = dockerLogins(text, true);
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), helpersSchema), text);
  if (logins === undefined || !parsed.success) throw new Error("it must have the format of docker's config.json");
  const { auths, credHelpers, credsStore } = parsed.output;
  const keys = new Map<string, Place>();
  // Docker notes in `auths`, without credentials, which registries its store has some for.
  if (credsStore !== '') {
    for (const server of Object.keys(auths)) keys.set(keyOf(server), { kind: 'helper', name: credsStore, server });
  }
  for (const login of logins) keys.set(keyOf(login.registry), { kind: 'login', login });
  for (const [server, name] of Object.entries(credHelpers)) keys.set(keyOf(server), { kind: 'helper', name, server });
  keys.delete('');
  return { keys };
}

/** Full names of images, without ids and what is no reference: those are refused elsewhere. */
function namesOf(images: readonly string[]): readonly string[] {
  return images.flatMap((image) => {
    try {
      return [nameOf(parseReference(image))];
    } catch {
      return [];
    }
  });
}

async function loginOf(
  file: AuthFile,
  key: string,
  { user, signal, warnings }: { user: LoginUser; signal: AbortSignal; warnings: string[] },
): Promise<RegistryLogin | undefined> {
  const place = file.keys.get(key);
  if (place === undefined) return undefined;
  if (place.kind === 'login') return { ...place.login, registry: key };
  try {
    const credentials = await askHelper(place.name, place.server, user.environment, signal);
    return credentials && { ...credentials, registry: key };
  } catch (error) {
    if (signal.aborted) throw error;
    const program = printable(`docker-credential-${place.name}`, 100);
    warnings.push(`the login for ${printable(key, 200)} is not used: ${program} did not give it: ${messageOf(error)}`);
    return undefined;
  }
}

const helperAnswer = v.object({ Username: v.string(), Secret: v.string() });
/** The name that stands for an identity token. */
const tokenUser = '<token>';

/** Asks docker's credential helper, a program of the user's (docker/docker-credential-helpers). Undefined: it has none. */
async function askHelper(
  name: string,
  server: string,
  environment: Environment,
  signal: AbortSignal,
): Promise<Omit<RegistryLogin, 'registry'> | undefined> {
  if (!/^[\w.-]+$/.test(name)) throw new Error('its name is not one of a program');
  const { code, stdout } = await run(`docker-credential-${name}`, ['get'], {
    input: `${server}\n`,
    env: Object.fromEntries(Object.entries(environment).filter((pair): pair is [string, string] => isGiven(pair[1]))),
    timeoutMs: helperTimeoutMs,
    maxOutputBytes: maxHelperBytes,
    okCodes: 'any',
    signal,
  });
  if (code !== 0) {
    if (stdout.trim() === 'credentials not found in native keychain') return undefined;
    throw new Error(`it ended with code ${code}`);
  }
  const answer = v.safeParse(v.pipe(v.string(), v.parseJson(), helperAnswer), stdout);
  if (!answer.success) throw new Error('its answer must have Username and Secret');
  const { Username: username, Secret: password } = answer.output;
  return username === tokenUser ? { identityToken: password } : { username, password };
}

const unreadable = (path: string, cause: unknown) =>
  new PodvmError('notFound', `Cannot use the auth file ${path}`, {
    cause,
    fix: 'Give the path of a file that `podvm login --authfile` wrote.',
  });
