import { Command, type Option } from 'commander';
import { acceptBooleanValues } from './boolean-values.ts';

/**
 * Parses the words that a command passed on, between which its own options may stand. What the options before these words
 * have set stays until an option among these words sets it. Returns the command that holds the values of both, and the other
 * words as its arguments. Errors: commander's.
 */
export function parseAfter(
  before: Command,
  form: { readonly argument: string; readonly options: readonly Option[]; readonly passesThrough: boolean },
  words: readonly string[],
): Command {
  const after = new Command(before.name()).argument(form.argument).passThroughOptions(form.passesThrough);
  for (const option of form.options) after.addOption(option);
  acceptBooleanValues(after, words);
  for (const option of form.options) {
    const name = option.attributeName();
    after.setOptionValueWithSource(name, before.getOptionValue(name), before.getOptionValueSource(name));
  }
  return after.copyInheritedSettings(before).parse(words, { from: 'user' });
}
