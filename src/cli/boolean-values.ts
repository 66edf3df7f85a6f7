import { type Command, Option } from 'commander';

/**
 * Lets a command take the words `--NAME=true`, `--NAME=false`, `-N=true` and `-N=false` of a command line for those of its
 * options that have no value, as docker and kubectl do: commander knows them only without one.
 */
export function acceptBooleanValues(command: Command, words: readonly string[]): void {
  for (const word of new Set(words)) {
    const [, name, value] = /^(--?[^-=][^=]*)=(true|false)$/.exec(word) ?? [];
    const option = command.options.find((each) => each.long === name || each.short === name);
    if (name === undefined || option === undefined || option.required || option.optional) continue;
    const spelled = new Option(`--${word.replace(/^-+/, '')}`).hideHelp();
    spelled.long = word; // commander refuses to make a short one
    command.addOption(spelled);
    // False as if it was not given, in spite of the words before it: of many flags, any value is taken for given.
    const absent: unknown = option.defaultValue ?? (option.negate ? true : undefined);
    const [stands, source] = value === 'true' ? [!option.negate, 'cli'] : [absent, 'default'];
    command.on(`option:${spelled.name()}`, () =>
      command.setOptionValueWithSource(option.attributeName(), stands, source),
    );
  }
  for (const below of command.commands) acceptBooleanValues(below, words);
}
