/** Whoever breaks a program of ours by what a registry or a layer says gets this user's rights, in a jail. */
export const nobody = 65_534;

/** Arguments of setpriv that give up everything of root. */
export const dropToNobody: readonly string[] = [
  `--reuid=${nobody}`,
  `--regid=${nobody}`,
  '--clear-groups',
  '--no-new-privs',
  '--inh-caps=-all',
  '--bounding-set=-all',
];
