import { stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The files in which a user's logins may be. What reads them (`user-logins.ts`) is loaded only if there is one. */

export type Environment = Readonly<Record<string, string | undefined>>;

/** The user of a command. */
export interface LoginUser {
  readonly environment: Environment;
  readonly uid: number;
  /** Replaces the user's own files. */
  readonly authFile?: string;
}

/** Files with logins, in the order in which they count: that in which skopeo's own login chooses one to write. */
export function loginFiles({ environment, uid, authFile }: LoginUser): readonly string[] {
  const { REGISTRY_AUTH_FILE, DOCKER_CONFIG, XDG_RUNTIME_DIR, XDG_CONFIG_HOME, HOME } = environment;
  if (authFile !== undefined) return [authFile];
  if (isGiven(REGISTRY_AUTH_FILE)) return [REGISTRY_AUTH_FILE];
  if (isGiven(DOCKER_CONFIG)) return [join(DOCKER_CONFIG, 'config.json')];
  const home = isGiven(HOME) ? HOME : homedir();
  return [
    isGiven(XDG_RUNTIME_DIR) ? join(XDG_RUNTIME_DIR, 'containers/auth.json') : `/run/containers/${uid}/auth.json`,
    join(isGiven(XDG_CONFIG_HOME) ? XDG_CONFIG_HOME : join(home, '.config'), 'containers/auth.json'),
    join(home, '.docker/config.json'),
  ];
}

/** Whether one of the files is there, or cannot be looked at. */
export async function mayHaveLogins(user: LoginUser): Promise<boolean> {
  if (user.authFile !== undefined) return true;
  const found = await Promise.all(loginFiles(user).map((path) => stat(path).then(() => true, isThere)));
  return found.includes(true);
}

/** What cannot be looked at is read later, with the reason. */
const isThere = ({ code }: NodeJS.ErrnoException): boolean => code !== 'ENOENT' && code !== 'ENOTDIR';

export const isGiven = (value: string | undefined): value is string => value !== undefined && value !== '';
