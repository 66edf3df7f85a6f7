/** Options of a kernel without `CONFIG_`, and their values: `y`, `m`, `n`, a number or a string in quotes. */
type Options = ReadonlyMap<string, string>;

/** Parses a configuration of the kernel, or a fragment of one, which may also say `=n`. */
function optionsIn(text: string): Options {
  const lines = [...text.matchAll(/^(?:CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set)$/gm)];
  return new Map(
    lines.map(([, name, value = '', unset = '']): [string, string] =>
      name === undefined ? [unset, 'n'] : [name, value],
    ),
  );
}

/** The configuration `base` with the options of the fragment instead of its own. */
export function mergeConfig(base: string, fragment: string): string {
  const changes = optionsIn(fragment);
  const kept = base
    .trimEnd()
    .split('\n')
    .filter((line) => !changes.has(/^(?:# )?CONFIG_(\w+)/.exec(line)?.[1] ?? ''));
  const changed = [...changes].map(([name, value]) =>
    value === 'n' ? `# CONFIG_${name} is not set` : `CONFIG_${name}=${value}`,
  );
  return `${[...kept, ...changed].join('\n')}\n`;
}

/** Options of the fragment that the configuration does not know, such as misspelt ones, or has anyway. */
export function idleOptions(fragment: string, base: string): readonly string[] {
  const known = optionsIn(base);
  return namesOf(fragment, (name, value) => !known.has(name) || known.get(name) === value);
}

/** Options of the fragment that the kernel's own rules have changed on the way to its final configuration. */
export function refusedOptions(fragment: string, final: string): readonly string[] {
  const options = optionsIn(final);
  return namesOf(fragment, (name, value) => (options.get(name) ?? 'n') !== value); // what depends on nothing is left out
}

function namesOf(fragment: string, isWanted: (name: string, value: string) => boolean): readonly string[] {
  return [...optionsIn(fragment)].filter(([name, value]) => isWanted(name, value)).map(([name]) => `CONFIG_${name}`);
}
