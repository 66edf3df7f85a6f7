import { parseSync, Visitor } from 'oxc-parser';

/** Kinds of errors that a user or operator caused, or can end: each has a `fix`, or stands in the list of the test. */
const actionable: ReadonlySet<string> = new Set([
  'invalid',
  'notFound',
  'alreadyExists',
  'failedPrecondition',
  'denied',
  'exhausted',
  'unsupported',
]);

/** Lines of a source that make a PodvmError of such a kind without a `fix`. Errors: a source that cannot be parsed. */
export function errorsWithoutFix(file: string, source: string): readonly number[] {
  const { program, errors } = parseSync(file, source);
  if (errors[0] !== undefined) throw new Error(`Cannot parse ${file}: ${errors[0].message}`);
  const lines: number[] = [];
  new Visitor({
    NewExpression({ start, callee, arguments: [kind, , details] }) {
      if (callee.type !== 'Identifier' || callee.name !== 'PodvmError' || kind?.type !== 'Literal') return;
      if (!actionable.has(String(kind.value))) return;
      const properties = details?.type === 'ObjectExpression' ? details.properties : [];
      const hasFix = properties.some(
        // A spread may add it: `...(fix === undefined ? {} : { fix })`.
        (it) => it.type === 'SpreadElement' || (it.key.type === 'Identifier' && it.key.name === 'fix'),
      );
      if (!hasFix) lines.push(source.slice(0, start).split('\n').length);
    },
  }).visit(program);
  return lines;
}
