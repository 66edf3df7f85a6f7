/** The user of the jails: an attacker who exploits a program that reads images gains only this user's rights. */
export const nobody = 65_534;

/** Arguments of setpriv that drop all of root's rights. */
export const dropToNobody: readonly string[] = [
  `--reuid=${nobody}`,
  `--regid=${nobody}`,
  '--clear-groups',
  '--no-new-privs',
  '--inh-caps=-all',
  '--bounding-set=-all',
];
