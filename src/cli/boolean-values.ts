import { type Command, Option } from 'commander';

/**
 * Lets a command take the words `--NAME=true` and `--NAME=false` of a command line for those of its options that have no value,
 * as docker and kubectl do: commander knows them only without one.
 */
export function acceptBooleanValues(command: Command, words: readonly string[]): void {
  for (const word of new Set(words)) {
    const [, long, value] = /^(--[^=]+)=(true|false)$/.exec(word) ?? [];
    const option = command.options.find((each) => each.long === long || each.short === long);
    if (long === undefined || option === undefined || option.required || option.optional) continue;
    command.addOption(new Option(word).hideHelp());
    // False as if it was not given, in spite of the words before it: of many flags, any value is taken for given.
    const absent: unknown = option.defaultValue ?? (option.negate ? true : undefined);
    const [stands, source] = value === 'true' ? [!option.negate, 'cli'] : [absent, 'default'];
    command.on(`option:${word.slice(2)}`, () =>
      command.setOptionValueWithSource(option.attributeName(), stands, source),
    );
  }
  for (const below of command.commands) acceptBooleanValues(below, words);
}
