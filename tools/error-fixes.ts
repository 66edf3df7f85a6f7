import { parseSync, Visitor } from 'oxc-parser';

/**
 * Kinds of errors that a user or operator can cause or resolve. Each needs a `fix`, or an entry in the list of the
 * test.
 */
const actionable: ReadonlySet<string> = new Set([
  'invalid',
  'notFound',
  'alreadyExists',
  'failedPrecondition',
  'denied',
  'exhausted',
  'unsupported',
]);

/**
 * Returns the lines of a source that create a PodvmError of such a kind without a `fix`. Errors: a source that cannot
 * be parsed.
 */
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
