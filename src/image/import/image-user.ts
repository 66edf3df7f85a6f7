import { userIdOf } from '#host/user-ids.ts';

/**
 * User of the jails: an attacker who exploits a program that reads images gains only this user's rights. The user
 * `nobody` would not do: services of the host run as `nobody`, and could read a pull's credentials or change an
 * unfinished image. The id is the one below those of VMMs (`src/sandbox/names.ts`).
 */
export const imageUser = userIdOf(1_879_100_031, 64_100);

/** Arguments of setpriv that drop all of root's rights. */
export const dropToImageUser: readonly string[] = [
  `--reuid=${imageUser}`,
  `--regid=${imageUser}`,
  '--clear-groups',
  '--no-new-privs',
  '--inh-caps=-all',
  '--bounding-set=-all',
];
